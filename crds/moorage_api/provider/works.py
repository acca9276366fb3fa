"""Named work that a provider's loop has begun and does not wait for: one task a subject, each with an owner. Layer: the floor."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

log = logging.getLogger(__name__)

Guard = Callable[[Callable[[], Awaitable[None]]], Awaitable[None]]


class Works:
    """`guard` runs each work and takes what the loop takes from a look; `ended` is called after each that brings no other word."""

    def __init__(self, guard: Guard, ended: Callable[[], None]) -> None:
        self._guard = guard
        self._ended = ended
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def begin(self, name: str, work: Coroutine[Any, Any, None], ended: Callable[[], None] | None = None) -> None:
        """Runs work about one subject, unless it runs already; errors are logged and left to the next look. `ended`: called after it."""
        if name in self._tasks:
            work.close()
            return
        task = asyncio.create_task(self._run(work), name=name)
        self._tasks[name] = task
        task.add_done_callback(lambda done: self._over(name, done, ended or self._ended))

    def count(self, prefix: str) -> int:
        """How many names under way begin so."""
        return sum(1 for name in self._tasks if name.startswith(prefix))

    async def close(self) -> None:
        """Cancels everything and waits for it."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, work: Coroutine[Any, Any, None]) -> None:
        await self._guard(lambda: work)

    def _over(self, name: str, task: asyncio.Task[None], ended: Callable[[], None]) -> None:
        self._tasks.pop(name, None)
        if not task.cancelled() and task.exception() is not None:
            log.error("%s failed", name, exc_info=task.exception())
        ended()
