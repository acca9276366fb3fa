"""The in-process table of routes, and the hints that keep it and its waiters honest.

A hit costs no Redis command. The table counts only while its invalidation stream beats (turns.md §5: 5 s); a stale entry is
harmless, since the sandbox itself refuses another session or epoch.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from moorage_gateway.clock import Clock
from moorage_gateway.upstream import Route

BEAT_S = 5.0
CAPACITY = 50_000


class RouteTable:
    """Bound routes by session key, least recently used first out."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._routes: OrderedDict[str, Route] = OrderedDict()
        self._beat = float("-inf")
        self._waiters: dict[str, asyncio.Event] = {}

    def get(self, key: str) -> Route | None:
        """The bound route of a session, None when unknown or when the stream has been silent."""
        if self._clock.monotonic() - self._beat > BEAT_S:
            return None
        return self._routes.get(key)

    def put(self, route: Route) -> None:
        """Remembers a route whose shim accepted the binding."""
        self._routes[route.session_key] = route
        self._routes.move_to_end(route.session_key)
        while len(self._routes) > CAPACITY:
            self._routes.popitem(last=False)

    def forget(self, key: str) -> None:
        """Drops a route; also what a hint does."""
        self._routes.pop(key, None)

    def beat(self) -> None:
        """The stream is alive."""
        self._beat = self._clock.monotonic()

    def hint(self, key: str) -> None:
        """A session's route changed: drop it, wake who waits for it."""
        self.beat()
        if not key:
            return
        self.forget(key)
        waiter = self._waiters.get(key)
        if waiter is not None:
            waiter.set()

    def silent(self) -> None:
        """The stream broke: nothing counts until it beats again, and hints may have been missed."""
        self._beat = float("-inf")
        self._routes.clear()
        for waiter in self._waiters.values():
            waiter.set()

    async def changed(self, key: str, timeout: float) -> None:
        """Returns when a hint for this session came, or after `timeout` seconds: waiters also poll."""
        waiter = self._waiters.setdefault(key, asyncio.Event())
        try:
            async with asyncio.timeout(timeout):
                await waiter.wait()
        except TimeoutError:
            return
        finally:
            if self._waiters.get(key) is waiter:
                del self._waiters[key]
