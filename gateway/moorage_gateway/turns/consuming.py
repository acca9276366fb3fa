"""Frames of an attempt, read ahead of the log: what arrives while one append is in flight shares the next.

The inbox is bounded by bytes; a full one stops reading, so back-pressure reaches the agent (faults.md F17: 256 KiB).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from moorage_api.wire.shim import Frame, Source
from moorage_gateway.upstream import Frames

INBOX_BYTES = 256 * 1024


class Inbox:
    """One producer (`pump`), one consumer; `take` gives everything that is there.

    What `first` accepts while nothing waits here never comes in.
    """

    def __init__(self, limit: int = INBOX_BYTES) -> None:
        self._limit = limit
        self.first: Callable[[list[Frame]], bool] | None = None
        self._frames: list[Frame] = []
        self._bytes = 0
        self._filled = asyncio.Event()
        self._woken = False
        self._source: Frames | None = None
        self._fault: BaseException | None = None
        self._closed = False

    async def pump(self, source: Frames) -> None:
        """Reads `source` to its end; its exception is raised by `take` after the frames before it."""
        self._source = source
        try:
            await source.pour(self._put)
        except Exception as fault:
            self._fault = fault
        finally:
            self._closed = True
            self._filled.set()

    def _put(self, frames: list[Frame]) -> bool:
        if self.first is not None and not self._frames and self.first(frames):
            return True
        for frame in frames:
            if isinstance(frame, Source):
                self._bytes += len(frame.data)
        self._frames += frames
        self._filled.set()
        return self._bytes < self._limit

    def wake(self) -> None:
        """Makes a waiting `take` return, with what there is (perhaps nothing)."""
        self._woken = True
        self._filled.set()

    def hand_over(self) -> None:
        """Offers `first` what arrived while it took nothing: else a consumer slower than the source keeps it all to itself."""
        if not self._frames or self.first is None or not self.first(self._frames):
            return
        self._emptied()
        if not self._woken and not self._closed:
            self._filled.clear()

    async def take(self) -> list[Frame] | None:
        """Everything that arrived; [] after a wake; None at the end. Raises what the source raised."""
        await self._filled.wait()
        self._woken = False
        frames = self._emptied()
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

    def _emptied(self) -> list[Frame]:
        frames, self._frames = self._frames, []
        if self._bytes >= self._limit and self._source is not None:
            self._source.resume()
        self._bytes = 0
        return frames
