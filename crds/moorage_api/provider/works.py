"""Named work that a provider's loop has begun and does not wait for: one task a subject, each with an owner. Layer: the floor."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

log = logging.getLogger(__name__)

Guard = Callable[[Callable[[], Awaitable[None]]], Awaitable[bool]]


class Works:
    """`guard` runs each work, takes what the loop takes from a look, and says whether all of it was done; `ended` is called after each
    that was, and brings no other word. What failed waits for the next look in its time: at once it would fail again, as fast as it can.
    """

    def __init__(self, guard: Guard, ended: Callable[[], None]) -> None:
        self._guard = guard
        self._ended = ended
        self._tasks: dict[str, asyncio.Task[bool]] = {}

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

    async def _run(self, work: Coroutine[Any, Any, None]) -> bool:
        return await self._guard(lambda: work)

    def _over(self, name: str, task: asyncio.Task[bool], ended: Callable[[], None]) -> None:
        self._tasks.pop(name, None)
        if task.cancelled():
            return
        if task.exception() is not None:
            log.error("%s failed", name, exc_info=task.exception())
        elif task.result():
            ended()
