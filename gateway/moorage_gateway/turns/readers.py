"""Readers of a turn's log: at its owner from memory, elsewhere from Redis, after the end from the store.

A reader never ends a turn. What it yields was logged first; it may begin anywhere and change its source on the way.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import orjson

from moorage_api.ledger.records import ENDED
from moorage_api.ledger.script import Lost, Unreachable
from moorage_api.ledger.turns import WATCH_TTL_S, TurnLedger
from moorage_gateway.clock import Clock
from moorage_gateway.store.errors import StoreUnavailable
from moorage_gateway.turns.held import Held

POLL_S = 1.0
WATCH_S = WATCH_TTL_S / 3
PAGE = 512
AWAY_S = 0.5
MISSING_S = 60.0  # longer than it takes to give a lost turn up (turns.md §7: 30 s)


class LogHints:
    """Wakes readers of other gateways' turns; pub/sub is a hint, they also poll."""

    def __init__(self) -> None:
        self._waiting: dict[str, dict[asyncio.Event, None]] = {}  # in order of arrival

    def hint(self, response: str) -> None:
        """A log grew."""
        for event in self._waiting.get(response, ()):
            event.set()

    @contextmanager
    def subscribed(self, response: str) -> Iterator[asyncio.Event]:
        """The event that is set when this log grows."""
        event = asyncio.Event()
        self._waiting.setdefault(response, {})[event] = None
        try:
            yield event
        finally:
            events = self._waiting[response]
            events.pop(event, None)
            if not events:
                del self._waiting[response]


class _Place:
    """How far a reader is: the index of the next event it lacks."""

    __slots__ = ("index",)

    def __init__(self, index: int) -> None:
        self.index = index


class Readers:
    """`follow` yields (sequence_number, event JSON) from a cursor to the terminal event, gapless."""

    def __init__(
        self,
        ledger: TurnLedger,
        clock: Clock,
        hints: LogHints,
        held: Callable[[str], Held | None],
        stored: Callable[[str, str], Awaitable[list[dict[str, Any]] | None]],
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._hints = hints
        self._held = held
        self._stored = stored

    async def follow(
        self, response: str, *, tenant: str, after: int = -1, quick: Callable[[bytes], bool] | None = None
    ) -> AsyncIterator[tuple[int, bytes]]:
        """Ends after the terminal event. A cursor past an ended log gets the terminal event alone.

        `quick` may take an event the moment it is logged, and says whether it did: what it took is not yielded. It is asked only
        while this reader waits, and never for the terminal event.
        """
        place = _Place(after + 1)
        missing_since: float | None = None
        while True:
            held = self._held(response)
            source = self._from_owner(held, place, quick) if held is not None else self._from_ledger(response, place)
            ended = False
            async for number, entry, last in source:
                place.index = number + 1
                ended = last
                yield number, entry
            if ended:
                return
            if self._held(response) is not None or not await self._absent(response):
                missing_since = None
                continue
            told = False
            async for number, data in self._from_store(tenant, response, place.index):
                told = True
                yield number, data
            missing_since = self._clock.monotonic() if missing_since is None else missing_since
            if told or self._clock.monotonic() - missing_since > MISSING_S:
                return
            await self._clock.sleep(AWAY_S)  # Redis lost it: its owner writes it anew, or it is given up

    async def _absent(self, response: str) -> bool:
        try:
            return await self._ledger.turn(response) is None
        except (Lost, Unreachable):
            await self._clock.sleep(AWAY_S)
            return False

    async def _from_owner(
        self, held: Held, place: _Place, quick: Callable[[bytes], bool] | None
    ) -> AsyncIterator[tuple[int, bytes, bool]]:
        log = held.log

        def at_once() -> bool:
            assert quick is not None
            if held.ended or held.gone:
                return False
            while place.index < len(log):
                if not quick(log[place.index].data):
                    return False
                place.index += 1
            return True

        held.readers += 1
        try:
            while True:
                while place.index < len(log):
                    last = held.ended and place.index == len(log) - 1
                    yield place.index, log[place.index].data, last
                    if last:
                        return
                if held.ended and log:
                    yield len(log) - 1, log[-1].data, True  # the cursor lies past the end
                    return
                if held.gone:
                    return
                await held.feed.wait(at_once if quick is not None else None)
        finally:
            held.readers -= 1

    async def _from_ledger(self, response: str, place: _Place) -> AsyncIterator[tuple[int, bytes, bool]]:
        watched = float("-inf")
        with self._hints.subscribed(response) as grown:
            while self._held(response) is None:
                grown.clear()
                try:
                    record = await self._ledger.turn(response)
                    if record is None:
                        return
                    index = place.index
                    entries = await self._ledger.log(response, index, index + PAGE - 1)
                    ended = record.state in ENDED
                    if ended and not entries:
                        total = await self._ledger.length(response)
                        final = await self._ledger.log(response, total - 1, total - 1) if total else []
                        if not final or not record.ends_with(final[0]):  # Redis lost it between the two reads
                            await self._clock.sleep(AWAY_S)
                            return
                        yield total - 1, final[0].data, True
                        return
                    for number, entry in enumerate(entries, index):
                        # A page may end before the terminal event, and so may a log that was rolled back since the record was read.
                        last = number == index + len(entries) - 1 and record.ends_with(entry)
                        yield number, entry.data, last
                        if last:
                            return
                    if entries:
                        continue
                    if self._clock.monotonic() - watched >= WATCH_S:
                        await self._ledger.watch(response)
                        watched = self._clock.monotonic()
                        continue  # what came between the reading and the mark was told to nobody
                except (Lost, Unreachable):
                    await self._clock.sleep(AWAY_S)
                    continue
                try:
                    async with asyncio.timeout(POLL_S):
                        await grown.wait()
                except TimeoutError:
                    continue

    async def _from_store(self, tenant: str, response: str, index: int) -> AsyncIterator[tuple[int, bytes]]:
        try:
            events = await self._stored(tenant, response)
        except StoreUnavailable:
            return
        if not events:
            return
        for number in range(min(index, len(events) - 1), len(events)):
            yield number, orjson.dumps(events[number])
