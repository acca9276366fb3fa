"""Frames of an attempt, read ahead of the log: what arrives while one append is in flight shares the next.

The inbox is bounded by bytes; a full one stops reading, so back-pressure reaches the agent (faults.md F17: 256 KiB).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from moorage_api.wire.shim import End, Frame, Source

INBOX_BYTES = 256 * 1024


class Inbox:
    """One producer, one consumer; `take` gives everything that is there."""

    def __init__(self, limit: int = INBOX_BYTES) -> None:
        self._limit = limit
        self._frames: list[Frame] = []
        self._bytes = 0
        self._filled = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._fault: BaseException | None = None
        self._closed = False

    async def pump(self, source: AsyncIterator[Frame]) -> None:
        """Reads `source` to its end; its exception is raised by `take` after the frames before it."""
        try:
            async for frame in source:
                self._frames.append(frame)
                if isinstance(frame, Source):
                    self._bytes += len(frame.data)
                self._filled.set()
                if isinstance(frame, End):
                    break
                if self._bytes >= self._limit:
                    self._room.clear()
                    await self._room.wait()
        except Exception as fault:
            self._fault = fault
        finally:
            self._closed = True
            self._filled.set()

    def wake(self) -> None:
        """Makes a waiting `take` return, with what there is (perhaps nothing)."""
        self._filled.set()

    async def take(self) -> list[Frame] | None:
        """Everything that arrived; [] after a wake; None at the end. Raises what the source raised."""
        await self._filled.wait()
        frames, self._frames = self._frames, []
        self._bytes = 0
        self._room.set()
        if frames:
            if not self._closed:
                self._filled.clear()
            return frames
        if self._fault is not None:
            raise self._fault
        if self._closed:
            return None
        self._filled.clear()
        return []
