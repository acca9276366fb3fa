"""The newest word of somebody who says many: handed on with pauses, older ones are forgotten. Layer: pure but for its task."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")

PAUSE_S = 0.5
"""Between two words that are handed on."""


class Newest(Generic[T]):
    """Keeps one word. `send` says whether it is done with it; otherwise it gets it again, unless a newer one has come."""

    def __init__(self, send: Callable[[T], Awaitable[bool]], pause: float = PAUSE_S) -> None:
        self._send = send
        self._pause = pause
        self._word: T | None = None
        self._task: asyncio.Task[None] | None = None

    def put(self, word: T) -> None:
        """From now on it is this one."""
        self._word = word
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """What was not handed on is forgotten."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while self._word is not None:
            word, self._word = self._word, None
            if not await self._send(word) and self._word is None:
                self._word = word
            await asyncio.sleep(self._pause)
