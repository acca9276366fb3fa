"""An event loop without a wall clock: when nothing is ready, time jumps to the next timer. No real I/O may be awaited.

Timers that are due at one instant fire in the order they were set, so a schedule depends on its seed alone.
"""

from __future__ import annotations

import asyncio
import heapq
import selectors
from contextvars import Context
from typing import Any

ROUNDS = 200_000  # a schedule takes some five thousand; beyond this something spins without time passing


class Stuck(RuntimeError):
    """Nothing is ready and no timer is set (whoever waits would wait for ever), or the loop spins."""


class _NoIo(selectors.BaseSelector):
    """Never asked for events; only there because the loop registers its own wake-up pipe."""

    def __init__(self) -> None:
        self._map: dict[int, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        key = selectors.SelectorKey(fileobj, fileobj if isinstance(fileobj, int) else fileobj.fileno(), events, data)
        self._map[key.fd] = key
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._map.pop(fileobj if isinstance(fileobj, int) else fileobj.fileno())

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return []

    def get_map(self) -> Any:
        return self._map

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        return self._map[fileobj if isinstance(fileobj, int) else fileobj.fileno()]

    def close(self) -> None:
        self._map.clear()


class SimLoop(asyncio.SelectorEventLoop):
    """`now` is in seconds; it starts at a fixed date so that fences look like real ones. `rounds` counts its turns."""

    _ready: Any

    def __init__(self) -> None:
        self.now = 1_800_000_000.0
        self.rounds = 0
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._set = 0
        self._made = 0
        super().__init__(_NoIo())

    def time(self) -> float:
        return self.now

    def create_task(self, coro: Any, *, name: str | None = None, **options: Any) -> asyncio.Task[Any]:
        """Named in the order of their making, so that who ends many of a set does so in an order that is the seed's."""
        self._made += 1
        return super().create_task(coro, name=f"{self._made:08} {name or ''}", **options)

    def call_soon(self, callback: Any, *args: Any, context: Context | None = None) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_at(self, when: float, callback: Any, *args: Any, context: Context | None = None) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        self._set += 1
        heapq.heappush(self._timers, (when, self._set, timer))
        return timer

    def call_later(
        self, delay: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.now + delay, callback, *args, context=context)

    def _run_once(self) -> None:
        self.rounds += 1
        if self.rounds > ROUNDS:
            raise Stuck("the loop spins")
        timers, ready = self._timers, self._ready
        while timers and timers[0][2]._cancelled:  # type: ignore[attr-defined]
            heapq.heappop(timers)
        if not ready:
            if not timers:
                raise Stuck("no timer is set")
            self.now = max(self.now, timers[0][0])
        now = self.now
        while timers and timers[0][0] <= now:
            timer = heapq.heappop(timers)[2]
            if not timer._cancelled:  # type: ignore[attr-defined]
                ready.append(timer)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:
                handle._run()
