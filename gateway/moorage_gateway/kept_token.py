"""A token that a program gets for itself, kept until shortly before it ends, and asked for by one asker at a time. Layer: engine.

While it counts, its renewal has a moment, and one in vain costs nothing: who has a token goes on with it. A refusal is remembered, so
that a wrong secret is not tried once a call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from moorage_gateway.token_requests import KEPT, LASTS_S, PATIENCE_S, REST_S

ASK_S = 10.0
REFUSED_S = 5.0
"""For which a refusal is remembered."""


@dataclass(frozen=True)
class Got:
    """What a token server said: a token and how long it counts (None: it does not say), or why there is none."""

    token: str = field(default="", repr=False)
    lasts: float | None = None
    refusal: str = ""


class KeptToken:
    """One of them. `now` in seconds that only go forward; `faults`: what asking raises where there is no answer."""

    def __init__(self, now: Callable[[], float], faults: type[Exception]) -> None:
        self._now = now
        self._faults = faults
        self._lock = asyncio.Lock()
        self._got = Got()
        self._until = self._ends = self._rests = float("-inf")

    async def get(self, ask: Callable[[], Awaitable[Got]], seconds: float) -> Got:
        """The token, or why there is none. Raises TimeoutError and `faults`, neither while a token counts."""
        if self._counts:
            await self._renewed(ask, seconds)
        if not self._counts:
            async with asyncio.timeout(min(ASK_S, seconds)), self._lock:
                if self._now() >= self._until:
                    await self._fill(ask)
        return self._got

    def drop(self, token: str) -> None:
        """It is not accepted any more."""
        if self._got.token == token:
            self._until = self._ends = float("-inf")

    @property
    def _counts(self) -> bool:
        return bool(self._got.token) and self._now() < self._ends

    async def _renewed(self, ask: Callable[[], Awaitable[Got]], seconds: float) -> None:
        """Where it is time, and nobody else does it."""
        if self._now() < max(self._until, self._rests) or self._lock.locked():
            return
        try:
            async with asyncio.timeout(min(PATIENCE_S, seconds / 2)), self._lock:
                await self._fill(ask, rather=self._got)
        except (TimeoutError, self._faults):
            self._rests = self._now() + REST_S

    async def _fill(self, ask: Callable[[], Awaitable[Got]], rather: Got | None = None) -> None:
        """`rather`: kept in place of a refusal."""
        asked_at = self._now()
        got = await ask()
        if got.token:
            lasts = LASTS_S if got.lasts is None else got.lasts
            self._got, self._until, self._ends = got, asked_at + KEPT * lasts, asked_at + lasts
        elif rather is not None:
            self._rests = self._now() + REST_S
        else:
            self._got, self._until, self._ends = got, self._now() + REFUSED_S, float("-inf")
