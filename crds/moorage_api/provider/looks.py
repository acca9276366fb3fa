"""When a provider looks next, and at what. Layer: the floor; a part of `loop.Provider`.

It looks at everything at least every so often. Where one agent alone can have changed (its spec, or its own work came to an end), a look
between goes over that one: with hundreds of others beside it they would be most of what it costs.
"""

from __future__ import annotations

import asyncio
import contextlib
import time

Key = tuple[str, str]


class Looks:
    """`tick`: seconds between two looks at everything, at most. The first look is one."""

    def __init__(self, tick: float) -> None:
        self._tick = tick
        self._asked = asyncio.Event()
        self._whole, self._fresh = True, set[Key]()
        self._whole_at = 0.0

    def at_all(self) -> None:
        """Has everything looked at, now."""
        self._whole = True
        self._asked.set()

    def at(self, tenant: str, agent: str) -> None:
        """Has one agent looked at, now."""
        self._fresh.add((tenant, agent))
        self._asked.set()

    def take(self) -> set[Key] | None:
        """What the look that begins now goes over: these agents, or everything (None). What is asked for from here on is the next one's."""
        self._asked.clear()
        whole, fresh = self._whole or time.monotonic() >= self._whole_at, self._fresh
        self._whole, self._fresh = False, set()
        if not whole:
            return fresh
        self._whole_at = time.monotonic() + self._tick
        return None

    async def due(self) -> None:
        """Waits until a look is due."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, self._whole_at - time.monotonic())):
                await self._asked.wait()
