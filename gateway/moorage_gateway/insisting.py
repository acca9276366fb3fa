"""What must reach the ledger, sent until it answers. Layer: engine."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from moorage_api.ledger.script import Lost, Unreachable
from moorage_gateway.clock import Clock
from moorage_gateway.recovery import Recovery

T = TypeVar("T")

RETRY_S = 0.2


class Insisting:
    """Sends again: every script answers the same then."""

    def __init__(self, recovery: Recovery, clock: Clock) -> None:
        self._recovery = recovery
        self._clock = clock

    async def __call__(self, call: Callable[[], Awaitable[T]], seconds: float) -> T:
        """Sends until an answer comes. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            return await self.while_wanted(call, _always)

    async def while_wanted(self, call: Callable[[], Awaitable[T]], stay: Callable[[], None]) -> T:
        """Sends until an answer comes, or `stay`, which is asked after each time in vain, raises."""
        while True:
            if self._recovery.runs:
                await self._recovery.settled()
            try:
                return await call()
            except Lost:
                if not await self.recovered():
                    await self._clock.sleep(RETRY_S)
            except Unreachable:
                await self._clock.sleep(RETRY_S)
            stay()

    async def recovered(self) -> bool:
        """What the ledger has lost is told to it again. False: it is away."""
        try:
            await self._recovery.recover()
        except Unreachable:
            return False
        return True


def _always() -> None:
    """Wanted until the deadline."""
