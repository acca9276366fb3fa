"""The loops of a platform. Layer: local."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Coroutine
from typing import Any

log = logging.getLogger(__name__)


class Tasks:
    """The platform's loops: ended together, and one that dies by itself ends the platform."""

    def __init__(self) -> None:
        self.failed: asyncio.Event | None = None
        self.ending = False
        self._tasks: list[asyncio.Task[Any]] = []

    async def __aenter__(self) -> Tasks:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.ending = True
        for task in reversed(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def begin(self, name: str, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Work with an end."""
        task = asyncio.create_task(work, name=name)
        self._tasks.append(task)
        return task

    def keep(self, name: str, work: Awaitable[None]) -> None:
        """A loop."""
        self.begin(name, self._guarded(name, work))

    async def end(self, name: str) -> None:
        """Ends one of them ahead of the others."""
        ending = [task for task in self._tasks if task.get_name() == name]
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)

    async def _guarded(self, name: str, work: Awaitable[None]) -> None:
        """The outermost frame of a loop."""
        try:
            await work
        except Exception:  # whatever it was: told, and the platform ends
            log.exception("the loop %s died; the platform ends", name)
            if self.failed is not None:
                self.failed.set()
