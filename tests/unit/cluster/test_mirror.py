"""The node's view of the cluster: complete after every list, moved by every event, and ended at once when it is told to."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cluster.node.api import Away, Object
from cluster.node.mirror import Events, Follower, Held, Mirror

pytestmark = pytest.mark.unit
SECONDS = 10.0


def thing(name: str, **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "uid": name, **more}}


class MemoryWatch:
    """Says what is put into it, until it is ended."""

    def __init__(self) -> None:
        self._events: queue.Queue[tuple[str, Object] | None] = queue.Queue()

    def put(self, event: str, what: Object) -> None:
        self._events.put((event, what))

    def __iter__(self) -> Iterator[tuple[str, Object]]:
        while (event := self._events.get(timeout=SECONDS)) is not None:
            yield event

    def end(self) -> None:
        self._events.put(None)

    def close(self) -> None: ...


class MemorySource:
    """One collection. `away`: as long as it is set nothing answers."""

    def __init__(self, *things: Object) -> None:
        self.things = list(things)
        self.away = threading.Event()
        self.watches: queue.Queue[MemoryWatch] = queue.Queue()

    def get(self, path: str) -> Object:
        if self.away.is_set():
            raise Away("it is away")
        return {"metadata": {"resourceVersion": "1"}, "items": list(self.things)}

    def watch(self, path: str, version: str) -> Events:
        made = MemoryWatch()
        self.watches.put(made)
        return made

    def watched(self) -> MemoryWatch:
        return self.watches.get(timeout=SECONDS)


@contextmanager
def mirrored(source: MemorySource) -> Iterator[Mirror]:
    mirror = Mirror(source, {"pods": "/pods"})
    mirror.start()
    try:
        yield mirror
    finally:
        mirror.stop()


def names(mirror: Mirror, wanted: set[str]) -> bool:
    """Whether the mirror comes to hold these."""
    count = 0
    while True:
        held = mirror.held()
        if held is not None and {one["metadata"]["name"] for one in held["pods"]} == wanted:
            return True
        before, count = count, mirror.wait(count, SECONDS)
        if count == before:
            return False


def test_a_list_and_every_event_are_seen() -> None:
    source = MemorySource(thing("one"))
    with mirrored(source) as mirror:
        watch = source.watched()
        assert names(mirror, {"one"})
        watch.put("ADDED", thing("two"))
        assert names(mirror, {"one", "two"})
        watch.put("MODIFIED", thing("two", labels={"new": "yes"}))
        watch.put("DELETED", thing("one"))
        assert names(mirror, {"two"})
        held = mirror.held()
        assert held is not None and held["pods"][0]["metadata"]["labels"] == {"new": "yes"}


@pytest.mark.parametrize("ending", ["too old", "over"])
def test_what_a_watch_missed_is_seen_by_the_next_list(ending: str) -> None:
    source = MemorySource(thing("one"))
    with mirrored(source) as mirror:
        watch = source.watched()
        source.things[:] = [thing("three")]
        if ending == "over":
            watch.end()
        else:
            watch.put("ERROR", {"code": 410})
        assert names(mirror, {"three"})


def test_a_source_that_is_away_leaves_what_was_seen_and_is_asked_again() -> None:
    source = MemorySource(thing("one"))
    with mirrored(source) as mirror:
        watch = source.watched()
        assert names(mirror, {"one"})
        source.away.set()
        watch.end()
        assert names(mirror, {"one"})
        source.things[:] = [thing("two")]
        source.away.clear()
        assert names(mirror, {"two"})


def test_nothing_is_held_before_every_kind_was_listed() -> None:
    source = MemorySource(thing("one"))
    source.away.set()
    with mirrored(source) as mirror:
        assert mirror.held() is None


def test_a_follower_acts_at_every_change_and_again_after_a_failure(tmp_path: Path) -> None:
    source = MemorySource()
    acted: queue.Queue[int] = queue.Queue()
    faults = iter([ValueError("not now"), None])

    def act(held: Held) -> None:
        acted.put(len(held["pods"]))
        if held["pods"] and (fault := next(faults, None)):
            raise fault

    log = tmp_path / "acts.log"
    follower = Follower(Mirror(source, {"pods": "/pods"}), act, log)
    follower.start()
    try:
        assert acted.get(timeout=SECONDS) == 0
        source.watched().put("ADDED", thing("one"))
        assert acted.get(timeout=SECONDS) == 1, "the change"
        assert acted.get(timeout=SECONDS) == 1, "again, though nothing changed"
    finally:
        follower.stop()
    assert log.read_text() == "ValueError: not now\n"


def test_a_follower_that_never_started_can_be_stopped(tmp_path: Path) -> None:
    Follower(Mirror(MemorySource(), {"pods": "/pods"}), lambda held: None, tmp_path / "acts.log").stop()


def test_a_follower_acts_again_when_it_said_so_though_nothing_changed(tmp_path: Path) -> None:
    source = MemorySource()
    acted: queue.Queue[float | None] = queue.Queue()
    waits: Iterator[float | None] = iter([0.01, 0.01, None])

    def act(held: Held) -> float | None:
        wanted = next(waits, None)
        acted.put(wanted)
        return wanted

    follower = Follower(Mirror(source, {"pods": "/pods"}), act, tmp_path / "log")
    follower.start()
    try:
        assert [acted.get(timeout=SECONDS) for _ in range(3)] == [0.01, 0.01, None]
    finally:
        follower.stop()
