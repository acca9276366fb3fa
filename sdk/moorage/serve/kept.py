"""Responses kept in memory when no platform keeps them: chains, retrieval and background runs of `python host.py`.

Layer: agent server. Bounded by count and bytes; the oldest ended response goes first.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from moorage.serve import asgi


@dataclass
class Kept:
    """One response. `task` and `log` only of a background one; `log` is its SSE frames, indexed by sequence number."""

    response: dict[str, Any]
    items: list[dict[str, Any]]
    history: list[dict[str, Any]]
    session: str
    background: bool = False
    stream: bool = False
    ended: bool = False
    task: asyncio.Task[None] | None = None
    log: list[bytes] = field(default_factory=list)
    log_size: int = 0
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    def context(self) -> list[dict[str, Any]]:
        """What the next turn of the chain sees as history."""
        return [*self.history, *self.items, *self.response["output"]]

    async def append(self, frames: list[bytes]) -> None:
        """More of the log; wakes its readers."""
        async with self.changed:
            self.log.extend(frames)
            self.log_size += sum(map(len, frames))
            self.changed.notify_all()

    async def end(self) -> None:
        """No more will come; wakes readers and those who wait for the end."""
        async with self.changed:
            self.ended = True
            self.changed.notify_all()

    async def follow(self, after: int) -> AsyncIterator[bytes]:
        """Frames with a sequence number over `after`, then live ones, until the end."""
        position = after + 1
        while True:
            async with self.changed:
                while not self.ended and len(self.log) <= position:
                    await self.changed.wait()
            while position < len(self.log):
                yield self.log[position]
                position += 1
            if self.ended:
                return


class Shelf:
    """Kept responses by id, oldest first."""

    def __init__(self, *, max_count: int, max_bytes: int) -> None:
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._sizes: dict[str, int] = {}
        self._max_count = max_count
        self._max_bytes = max_bytes

    def get(self, response_id: str) -> Kept | None:
        """The response, or None when it is unknown, deleted or no longer kept."""
        return self._kept.get(response_id)

    def put(self, response_id: str, kept: Kept) -> None:
        """Keeps a response, or measures it anew; room is made at the expense of the oldest ended ones."""
        self._kept[response_id] = kept
        self._sizes[response_id] = len(asgi.encode([kept.response, kept.items])) + kept.log_size
        while len(self._kept) > self._max_count or sum(self._sizes.values()) > self._max_bytes:
            oldest = next(
                (i for i, k in self._kept.items() if i != response_id and (k.ended or not k.background)), None
            )
            if oldest is None:
                return
            self.drop(oldest)

    def drop(self, response_id: str) -> None:
        """Forgets a response."""
        self._kept.pop(response_id, None)
        self._sizes.pop(response_id, None)

    def running(self) -> list[asyncio.Task[None]]:
        """Background runs that have not ended."""
        return [k.task for k in self._kept.values() if k.task is not None and not k.task.done()]
