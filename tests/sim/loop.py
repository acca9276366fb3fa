"""An event loop without a wall clock: when nothing is ready, time jumps to the next timer. No real I/O may be awaited."""

from __future__ import annotations

import asyncio
import selectors
from typing import Any


class Stuck(RuntimeError):
    """Nothing is ready and no timer is set: whoever waits would wait for ever."""


class _NoIo(selectors.BaseSelector):
    def __init__(self, loop: SimLoop) -> None:
        self._loop = loop
        self._map: dict[int, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        key = selectors.SelectorKey(fileobj, fileobj if isinstance(fileobj, int) else fileobj.fileno(), events, data)
        self._map[key.fd] = key
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._map.pop(fileobj if isinstance(fileobj, int) else fileobj.fileno())

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Stuck("no timer is set")
        if timeout > 0:
            self._loop.now += timeout
        return []

    def get_map(self) -> Any:
        return self._map

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        return self._map[fileobj if isinstance(fileobj, int) else fileobj.fileno()]

    def close(self) -> None:
        self._map.clear()


class SimLoop(asyncio.SelectorEventLoop):
    """`now` is in seconds; it starts at a fixed date so that fences look like real ones."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0
        super().__init__(_NoIo(self))
        self._clock_resolution = 1e-6

    def time(self) -> float:
        return self.now
