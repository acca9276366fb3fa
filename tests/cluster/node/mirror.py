"""What the cluster holds of some kinds, kept up to date by one watch a kind, and those who act on it. Layer: I/O rim.

Mirror      lists, watches, lists again when a watch ends: a lost event costs minutes at most
Follower    calls a translator with what the mirror holds, at every change; never says what changed
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from cluster.node.api import Away, Object, Refused

AGAIN_SECONDS = 0.2
"""Between two tries to reach an API server that is away, and to do what could not be done."""
QUIET_SECONDS = 30.0
END_SECONDS = 10.0

Held = Mapping[str, Sequence[Object]]
"""Kind → the API's objects of it."""


class Events(Protocol):
    """A running watch: (type, object) of each change. See `api.Watch`."""

    def __iter__(self) -> Iterator[tuple[str, Object]]: ...
    def end(self) -> None: ...
    def close(self) -> None: ...


class Source(Protocol):
    """Where the objects are. See `api.Api`."""

    def get(self, path: str) -> Object: ...
    def watch(self, path: str, version: str) -> Events: ...


class Mirror:
    """`paths`: kind → path of its collection, over all namespaces."""

    def __init__(self, source: Source, paths: Mapping[str, str]) -> None:
        self._source = source
        self._changed = threading.Condition()
        self._held: dict[str, dict[str, Object]] = {}
        self._count = 0
        self._over = threading.Event()
        self._watches: dict[str, Events] = {}
        self._paths = dict(paths)
        self._threads = [
            threading.Thread(target=self._keep, args=each, name=f"mirror of {each[0]}", daemon=True)
            for each in self._paths.items()
        ]

    def start(self) -> None:
        """From here it fills."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ends the watches; who waits is woken."""
        self._over.set()
        with self._changed:
            for watch in self._watches.values():
                watch.end()
            self._changed.notify_all()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(END_SECONDS)

    def wait(self, after: int, seconds: float) -> int:
        """The count of changes once it is not `after`, or when the time is over, or the mirror stopped."""
        with self._changed:
            self._changed.wait_for(lambda: self._count != after or self._over.is_set(), seconds)
            return self._count

    def held(self) -> Held | None:
        """Everything as it is now; None until every kind was listed once."""
        with self._changed:
            if len(self._held) < len(self._paths):
                return None
            return {kind: list(objects.values()) for kind, objects in self._held.items()}

    def _keep(self, kind: str, path: str) -> None:
        while not self._over.is_set():
            try:
                self._listen(kind, path, self._list(kind, path))
            except (Away, Refused):
                self._over.wait(AGAIN_SECONDS)  # what was seen last goes on holding

    def _list(self, kind: str, path: str) -> str:
        found = self._source.get(path)
        with self._changed:
            self._held[kind] = {one["metadata"]["uid"]: one for one in found["items"]}
            self._note()
        return str(found["metadata"]["resourceVersion"])

    def _listen(self, kind: str, path: str, version: str) -> None:
        watch = self._source.watch(path, version)
        with self._changed:
            self._watches[kind] = watch
            if self._over.is_set():
                watch.end()
        try:
            for event, thing in watch:
                self._take(kind, event, thing)
        finally:
            with self._changed:
                del self._watches[kind]
            watch.close()

    def _take(self, kind: str, event: str, thing: Object) -> None:
        if event == "ERROR":
            raise Away(f"the watch of {kind} is too old")
        with self._changed:
            if event == "DELETED":
                self._held[kind].pop(thing["metadata"]["uid"], None)
            else:
                self._held[kind][thing["metadata"]["uid"]] = thing
            self._note()

    def _note(self) -> None:
        self._count += 1
        self._changed.notify_all()


class Follower:
    """Owns a mirror and one thread that brings the world to what it shows. `act` may raise: it is called again soon; or say in how many
    seconds it wants to be, whatever changes.

    `log`: where failures are written, each once until another follows. `pause`: the least time between two calls, in seconds.
    """

    def __init__(self, mirror: Mirror, act: Callable[[Held], float | None], log: Path, *, pause: float = 0.0) -> None:
        self._mirror = mirror
        self._act = act
        self._log = log
        self._pause = pause
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=log.stem, daemon=True)

    def start(self) -> None:
        """From here it acts."""
        self._mirror.start()
        self._thread.start()

    def stop(self) -> None:
        """Comes back when the last call has returned. May be called without `start`, and again."""
        self._over.set()
        self._mirror.stop()
        if self._thread.is_alive():
            self._thread.join(END_SECONDS)

    def _run(self) -> None:
        count, said, rest = 0, "", QUIET_SECONDS
        while True:
            count = self._mirror.wait(count, rest)
            if self._over.wait(self._pause):
                return
            held = self._mirror.held()
            if held is None:
                continue
            try:
                wanted = self._act(held)
                rest = QUIET_SECONDS if wanted is None else wanted
            except Exception as fault:  # the outermost frame of this thread: one bad object must not end it
                rest = AGAIN_SECONDS
                if said != str(fault):
                    said = str(fault)
                    with self._log.open("a") as log:
                        log.write(f"{type(fault).__name__}: {said}\n")
