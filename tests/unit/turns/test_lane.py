"""The quick way into the log: what it takes, what it gives back, and that nothing is lost between the two ways."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, TypeAlias

import orjson
import pytest

from moorage_api.ledger.records import Entry
from moorage_api.wire.shim import End, Source
from moorage_gateway.turns.held import Held
from moorage_gateway.turns.lane import MOST, Lane
from moorage_gateway.turns.normalise import Normaliser, Template, created_event
from moorage_gateway.turns.rules import Limits
from moorage_gateway.turns.source_reader import SourceReader

pytestmark = pytest.mark.unit

Group: TypeAlias = Callable[[], "tuple[int, Sequence[Entry]] | None"]
Landed: TypeAlias = Callable[["list[Any] | None"], None]

ADDED = {
    "type": "response.output_item.added",
    "output_index": 0,
    "item": {"id": "m", "type": "message", "role": "assistant"},
}
PART = {"type": "response.content_part.added", "item_id": "m", "output_index": 0, "content_index": 0}


class Ledger:
    """Keeps what is posted until the test lets it leave, and what left until the test lands it."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Group, Landed]] = []
        self.posted: list[tuple[int, list[Entry], Landed]] = []

    def append_soon(self, response: str, fence: int, group: Group, landed: Landed) -> None:
        assert (response, fence) == ("caresp_1", 7)
        self.waiting.append((group, landed))

    def leave(self) -> None:
        """The pipeline leaves."""
        waiting, self.waiting = self.waiting, []
        for group, landed in waiting:
            if (leaving := group()) is not None:
                self.posted.append((leaving[0], list(leaving[1]), landed))

    def land(self, words: list[Any] | None) -> None:
        """Answers the oldest."""
        self.posted.pop(0)[2](words)


class World:
    """One attempt whose first events are logged, a lane over it, and how often the engine was woken."""

    def __init__(self, *, log_bytes: int = 1 << 20) -> None:
        template = Template("caresp_1", 1, "m", "a", "r", "s", {})
        record: Any = SimpleNamespace(response="caresp_1", meta={})
        identity: Any = None
        limits = Limits(log_bytes=log_bytes)
        self.held = Held(record, 7, template, identity, limits, [])
        self.held.begun = 7
        self.held.logged([Entry(0, 0, orjson.dumps(event)) for event in created_event(template, queued=False)])
        normaliser = Normaliser(template, [orjson.loads(entry.data) for entry in self.held.log], continues=False)
        self.reader = SourceReader(self.held, normaliser, position=len(self.held.log))
        self.ledger, self.recovery, self.woken = Ledger(), SimpleNamespace(runs=False), 0
        self.lane = Lane(self.held, self.reader, self.ledger, self.recovery, self._wake)  # type: ignore[arg-type]
        self.source = 0
        self.reader.read([self.frame(ADDED), self.frame(PART | {"part": {"type": "output_text", "text": ""}})])
        self.held.logged(self.reader.drain())
        self.lane.start()

    def _wake(self) -> None:
        self.woken += 1

    def frame(self, event: dict[str, Any]) -> Source:
        """The next source event."""
        self.source += 1
        return Source(self.source, orjson.dumps(event))

    def delta(self, text: str) -> Source:
        """The next piece of the answer."""
        return self.frame(PART | {"type": "response.output_text.delta", "delta": text})


def texts(entries: Sequence[Entry]) -> list[str]:
    """What the deltas among them say."""
    return [event["delta"] for entry in entries if "delta" in (event := orjson.loads(entry.data))]


async def test_events_are_shown_once_the_log_has_them_and_share_the_next_append() -> None:
    world = World()
    seen = len(world.held.log)
    for text in "ab":
        assert world.lane.offer([world.delta(text)])
    world.ledger.leave()
    for text in "cd":
        assert world.lane.offer([world.delta(text)])
    assert len(world.held.log) == seen, "nothing is shown before it is logged"
    assert [texts(entries) for _, entries, _ in world.ledger.posted] == [["a", "b"]]
    assert world.ledger.waiting == [], "one append is in the air"
    world.ledger.land([b"OK", 9])
    assert texts(world.held.log) == ["a", "b"]
    world.ledger.leave()
    first, entries, _ = world.ledger.posted[0]
    assert (first, texts(entries)) == (seen + 2, ["c", "d"])
    world.ledger.land([b"OK", 9])
    assert texts(world.held.log) == ["a", "b", "c", "d"]
    assert await world.lane.stop() == []
    assert world.woken == 0


@pytest.mark.parametrize("words", [None, [b"GAP", 1], [b"FENCED", b"9"], [b"ABSENT"]])
async def test_what_was_not_written_is_given_back_in_order(words: list[Any] | None) -> None:
    world = World()
    world.lane.offer([world.delta("a")])
    world.ledger.leave()
    for text in "bc":
        world.lane.offer([world.delta(text)])
    world.ledger.land(words)
    assert world.woken == 1
    assert not world.lane.offer([world.delta("d")]), "the engine must look first"
    assert [texts(group) for group in await world.lane.stop()] == [["a"], ["b", "c"]], (
        "what was sent is to be sent again as it was"
    )
    assert await world.lane.stop() == []
    assert texts(world.held.log) == []


async def test_stopping_waits_for_what_is_in_the_air() -> None:
    world = World()
    world.lane.offer([world.delta("a")])
    world.ledger.leave()
    world.lane.offer([world.delta("b")])
    stopping = asyncio.ensure_future(world.lane.stop())
    await asyncio.sleep(0)
    assert not stopping.done()
    world.ledger.land([b"OK", 9])
    assert [texts(group) for group in await stopping] == [["b"]]
    assert texts(world.held.log) == ["a"]
    assert world.ledger.posted == []


async def test_stopping_does_not_wait_for_what_has_not_left_and_nothing_goes_twice() -> None:
    world = World()
    world.lane.offer([world.delta("a")])
    assert [texts(group) for group in await world.lane.stop()] == [["a"]]
    world.held.logged([Entry(7, 3, orjson.dumps({"delta": "a"}))])
    world.lane.start()
    world.lane.offer([world.delta("b")])
    assert len(world.ledger.waiting) == 1, "what was asked for then serves now"
    world.ledger.leave()
    assert [texts(entries) for _, entries, _ in world.ledger.posted] == [["b"]]
    world.ledger.land([b"OK", 9])
    await world.lane.stop()
    world.ledger.leave()
    assert world.ledger.posted == []


async def test_only_the_agents_events_are_taken_and_only_while_nothing_else_is_up() -> None:
    world = World()
    assert not world.lane.offer([world.delta("a"), End("done")])
    world.recovery.runs = True
    assert not world.lane.offer([world.delta("b")])
    world.recovery.runs = False
    world.held.interrupt(cancelled=True)
    assert not world.lane.offer([world.delta("c")])
    assert world.ledger.posted == []


async def test_an_outcome_and_too_large_a_log_are_the_engines() -> None:
    world = World(log_bytes=1)
    world.lane.offer([world.delta("a")])
    world.ledger.leave()
    world.ledger.land([b"OK", 9])
    assert world.woken == 1, "the log is over its limit"
    world = World()
    world.lane.offer([world.frame({"type": "response.completed", "response": {"status": "completed", "output": []}})])
    world.ledger.leave()
    assert world.woken == 1
    assert world.ledger.posted == [], "how it ends is the engine's"
    assert not world.lane.offer([world.delta("a")])
    assert world.reader.normaliser.outcome is not None


async def test_what_waits_is_bounded() -> None:
    world, offered = World(), 0
    while world.lane.offer([world.delta("x" * 1000)]):
        offered += 1
        assert offered < 1000
    assert offered <= MOST / 1000 + 2


async def test_a_mistake_while_normalising_reaches_the_task_that_owns_the_turn() -> None:
    world = World()
    assert world.lane.offer([Source(99, b"no json")])
    world.ledger.leave()
    assert world.woken == 1
    with pytest.raises(orjson.JSONDecodeError):
        await world.lane.stop()
