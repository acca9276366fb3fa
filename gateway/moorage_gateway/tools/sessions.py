"""Sessions that servers of the older era keep for an agent's session: one each, so that what a server remembers lasts from call to call and
is nobody else's. Layer: state of one process; its loop says goodbye.

Which one it is, all gateways know (`shared_sessions.py`); these are in use here. Calls by hand, and servers that give no session id, have
none.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

IDLE_S = 900.0
"""A session that was not used for so long gets its goodbye: an agent's sandbox sleeps by then."""
LOOK_S = 30.0
MOST = 2_000
"""Of one gateway; the one that was used least recently goes first."""
AT_ONCE = 16
"""Goodbyes at a time."""
LAST_S = 2.0

Key = tuple[str, str]
"""The server, as eras are remembered by, and the agent's session."""


@dataclass
class Kept:
    """One session. `number`: of the last request in it; `told`: when other gateways were told of its use; `last`: no other gateway is there
    to use it."""

    version: str
    id: str
    goodbye: Callable[[Kept], Awaitable[None]]
    used: float = 0.0
    number: int = 0
    told: float = 0.0
    last: bool = False
    title: str = ""

    def next(self) -> int:
        """An id for a request: each of a session has its own."""
        self.number += 1
        return self.number


@dataclass
class _Door:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    askers: int = 0


class Sessions:
    """Those of this process. `now` in seconds that only go forward."""

    def __init__(self, now: Callable[[], float], sleep: Callable[[float], Awaitable[None]]) -> None:
        self._now = now
        self._sleep = sleep
        self._kept: OrderedDict[Key, Kept] = OrderedDict()
        self._opening: dict[Key, _Door] = {}

    def __len__(self) -> int:
        return len(self._kept)

    @contextlib.asynccontextmanager
    async def opening(self, key: Key) -> AsyncIterator[None]:
        """For one asker at a time: two that begin together must not get a session each."""
        door = self._opening.setdefault(key, _Door())
        door.askers += 1
        try:
            async with door.lock:
                yield
        finally:
            door.askers -= 1
            if not door.askers:
                del self._opening[key]

    def get(self, key: Key) -> Kept | None:
        """The session, which counts as used."""
        kept = self._kept.get(key)
        if kept is not None:
            kept.used = self._now()
            self._kept.move_to_end(key)
        return kept

    def put(self, key: Key, kept: Kept) -> None:
        """From now on."""
        kept.used = kept.told = self._now()
        self._kept[key] = kept
        self._kept.move_to_end(key)

    def drop(self, key: Key, kept: Kept) -> None:
        """The server does not know it any more."""
        if self._kept.get(key) is kept:
            del self._kept[key]

    async def run(self) -> None:
        """Ends what nobody uses, until cancelled."""
        while True:
            await self._sleep(LOOK_S)
            await self._end(self._idle())

    async def close(self, *, others: bool = False) -> None:
        """Says goodbye to every server, for as long as that is polite. `others`: there are gateways that go on in these sessions."""
        every, self._kept = list(self._kept.values()), OrderedDict()
        if others:
            return
        for each in every:
            each.last = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_S):
                await self._end(every)

    def _idle(self) -> list[Kept]:
        found, limit = [], self._now() - IDLE_S
        while self._kept and (len(self._kept) > MOST or next(iter(self._kept.values())).used < limit):
            found.append(self._kept.popitem(last=False)[1])
        return found

    async def _end(self, ending: list[Kept]) -> None:
        for start in range(0, len(ending), AT_ONCE):
            await asyncio.gather(*(each.goodbye(each) for each in ending[start : start + AT_ONCE]))
