"""A turn as its owner holds it in memory: enough to drive it, feed its readers, and write it anew after a loss."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from moorage_api.ledger.records import Entry, SessionIdentity, TurnRecord
from moorage_gateway.turns.normalise import Template
from moorage_gateway.turns.rules import Limits
from moorage_gateway.upstream import Route


class Feed:
    """Wakes the readers when something was published; readers keep their own place."""

    def __init__(self) -> None:
        self._waiting: dict[asyncio.Future[None], Callable[[], bool] | None] = {}

    def publish(self) -> None:
        """Something is there, or the source ended."""
        for waiter, quick in tuple(self._waiting.items()):
            if quick is not None and quick():
                continue
            del self._waiting[waiter]
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self, quick: Callable[[], bool] | None = None) -> None:
        """Until the next publication; look before, with no `await` in between.

        `quick` is called at each publication first, in the publisher's own step: True, and the wait goes on.
        """
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[waiter] = quick
        try:
            await waiter
        finally:
            self._waiting.pop(waiter, None)


class Dropped(Exception):
    """This process no longer owns the turn (a higher fence exists); its readers read the log."""


@dataclass
class Fate:
    """What became of a turn here, for whoever must not keep its log alive to learn that."""

    kept: bool = False  # it is closed, and its response stored


@dataclass(eq=False)
class Held:
    """One owned turn. `log` has only acknowledged entries: index = sequence number."""

    record: TurnRecord
    fence: int
    template: Template
    identity: SessionIdentity
    limits: Limits
    input_items: list[dict[str, Any]]
    log: list[Entry] = field(default_factory=list)
    log_bytes: int = 0
    attempts: list[dict[str, Any]] = field(default_factory=list)
    begun: int = 0
    taken_over: bool = False
    named: bool = True
    route: Route | None = None
    dead_epoch: int = 0  # the binding that was found dead
    proved: bool = True  # whether an object `accepted` may be there
    fate: Fate = field(default_factory=Fate)
    decided_at: float = float("-inf")  # monotonic; when this process fixed the outcome
    cancelled: bool = False
    fenced: bool = False
    releasing: bool = False
    ended: bool = False  # the terminal event is in `log`
    gone: bool = False  # dropped: readers must go to Redis
    readers: int = 0
    left_at: float | None = None
    feed: Feed = field(default_factory=Feed)
    _watchers: set[Callable[[], None]] = field(default_factory=set)

    @property
    def response(self) -> str:
        """The response id."""
        return self.record.response

    @property
    def interrupted(self) -> bool:
        """Whether the running attempt must be left: cancelled, fenced, or handed back."""
        return self.cancelled or self.fenced or self.releasing

    def interrupt(self, *, cancelled: bool = False, fenced: bool = False, releasing: bool = False) -> None:
        """Leaves the running attempt at the next point where it waits."""
        self.cancelled |= cancelled
        self.fenced |= fenced
        self.releasing |= releasing
        for watcher in list(self._watchers):
            watcher()

    def watch(self, watcher: Callable[[], None]) -> Callable[[], None]:
        """Calls `watcher` on an interrupt; the returned function ends that."""
        self._watchers.add(watcher)
        return lambda: self._watchers.discard(watcher)

    def logged(self, entries: list[Entry]) -> None:
        """Acknowledged entries become visible to the readers here."""
        self.log += entries
        for entry in entries:
            self.log_bytes += len(entry.data)
        self.feed.publish()

    async def until_interrupt(self, timeout: float) -> bool:
        """Waits up to `timeout` seconds for an interrupt; True when there is one."""
        if self.interrupted:
            return True
        event = asyncio.Event()
        unwatch = self.watch(event.set)
        try:
            async with asyncio.timeout(timeout):
                await event.wait()
        except TimeoutError:
            return False
        finally:
            unwatch()
        return True
