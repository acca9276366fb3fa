"""Admission: requests in flight in all and by key, and the rate of a key. Plain ASGI, no I/O.

Two layers. `Crowd` stands before identification: a flood is refused at the cost of a comparison. `KeyLimits` stands right after it:
the caller is known, nothing has been done yet. Budgets are spent in process.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from moorage_api.errors import ApiError, Kind
from moorage_gateway import facts
from moorage_gateway.metrics import Metrics
from moorage_gateway.server import Asgi

KEYS = 50_000  # keys whose budget is remembered; the least recently used one is forgotten, which only refills it


class Crowd:
    """At most `limit` requests in flight."""

    def __init__(self, app: Asgi, limit: int, metrics: Metrics) -> None:
        self._app = app
        self._limit = limit
        self._metrics = metrics
        self._inside = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serves one request, or raises ApiError."""
        if self._inside >= self._limit:
            self._metrics.refused(Kind.UNAVAILABLE)
            raise ApiError(Kind.UNAVAILABLE, "This gateway is at its limit of running requests.", retry_after=1)
        self._inside += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._inside -= 1


class Budget:
    """One key's tokens and its requests in flight. Times are seconds of one monotonic clock."""

    __slots__ = ("inside", "since", "tokens")

    def __init__(self, tokens: float, now: float) -> None:
        self.tokens = tokens
        self.since = now
        self.inside = 0

    def take(self, now: float, rate: float, burst: float) -> float:
        """Takes one token: 0.0, or the seconds until there is one."""
        self.tokens = min(burst, self.tokens + (now - self.since) * rate)
        self.since = now
        if self.tokens >= 1:
            self.tokens -= 1
            return 0.0
        return (1 - self.tokens) / rate


class KeyLimits:
    """Concurrency and rate by key; 0 switches a limit off."""

    def __init__(
        self,
        app: Asgi,
        metrics: Metrics,
        monotonic: Callable[[], float],
        *,
        concurrency: int,
        rate: float,
        burst: float,
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._monotonic = monotonic
        self._concurrency = concurrency
        self._rate = rate
        self._burst = burst
        self._budgets: OrderedDict[tuple[str, str, str], Budget] = OrderedDict()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serves one request, or raises ApiError."""
        caller = facts.of(scope).caller
        if caller is None:
            await self._app(scope, receive, send)
            return
        budget = self._budget((caller.tenant, caller.user, caller.key_id))
        if self._concurrency and budget.inside >= self._concurrency:
            self._metrics.refused(Kind.RATE_LIMITED)
            raise ApiError(Kind.RATE_LIMITED, "This key has too many requests running.", retry_after=1)
        if self._rate and (wait := budget.take(self._monotonic(), self._rate, self._burst)):
            self._metrics.refused(Kind.RATE_LIMITED)
            raise ApiError(Kind.RATE_LIMITED, "This key sends requests too fast.", retry_after=wait)
        budget.inside += 1
        try:
            await self._app(scope, receive, send)
        finally:
            budget.inside -= 1

    def _budget(self, key: tuple[str, str, str]) -> Budget:
        found = self._budgets.get(key)
        if found is None:
            found = self._budgets[key] = Budget(self._burst, self._monotonic())
            if len(self._budgets) > KEYS:
                self._forget_one()
        self._budgets.move_to_end(key)
        return found

    def _forget_one(self) -> None:
        for key, budget in self._budgets.items():
            if not budget.inside:
                del self._budgets[key]
                return
