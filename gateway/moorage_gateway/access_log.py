"""The access log: one JSON line a request, written in batches off the event loop. Layer: gateway, I/O rim.

`middleware/access.py` adds lines; `app.py` owns it. Never blocks a request: when the sink is slower than the traffic, lines are
dropped and counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

FLUSH_SECONDS = 0.5
BATCH_BYTES = 64 * 1024
PENDING_BYTES = 4 * 1024 * 1024


class AccessLog:
    """Collects lines and hands them to `write` (blocking, called in a thread) every half second or 64 KiB."""

    def __init__(self, write: Callable[[bytes], object] | None) -> None:
        self.dropped = 0
        self._write = write
        self._lines: list[bytes] = []
        self._size = 0
        self._timer: asyncio.TimerHandle | None = None
        self._flush: asyncio.Future[object] | None = None

    def add(self, line: bytes) -> None:
        """One line, with its line end."""
        if self._write is None:
            return
        if self._size + len(line) > PENDING_BYTES:
            self.dropped += 1
            return
        self._lines.append(line)
        self._size += len(line)
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(FLUSH_SECONDS, self._due)
        elif self._size > BATCH_BYTES and self._flush is None:
            self._timer.cancel()
            self._due()

    def _due(self) -> None:
        self._timer = None
        if not self._lines or self._write is None:
            return
        loop = asyncio.get_running_loop()
        if self._flush is not None:
            self._timer = loop.call_later(FLUSH_SECONDS, self._due)
            return
        batch, self._lines, self._size = b"".join(self._lines), [], 0
        self._flush = loop.run_in_executor(None, self._write, batch)
        self._flush.add_done_callback(self._flushed)

    def _flushed(self, done: asyncio.Future[object]) -> None:
        self._flush = None
        if not done.cancelled() and done.exception() is not None:
            self.dropped += 1  # the sink is gone: nothing useful can be said about it here

    async def aclose(self, seconds: float = 2.0) -> None:
        """Writes what is left, for a few seconds at most."""
        for _ in range(2):
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if self._flush is not None:
                await asyncio.wait([self._flush], timeout=seconds)
            self._due()
        if self._flush is not None:
            await asyncio.wait([self._flush], timeout=seconds)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
