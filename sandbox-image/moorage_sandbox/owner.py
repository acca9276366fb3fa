"""The reader of an attempt's frames: one answer to `start` or `attach`. Layer: engine, beside `attempt.py`.

While the reader keeps up, an event is written by whoever brings it (`offer`); this object's own coroutine only catches up, waits for
a slow reader, sends keep-alives and the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from moorage_api.wire import frames
from moorage_api.wire.shim import FRAMES, End
from moorage_sandbox.buffer import FrameBuffer
from moorage_sandbox.server import Answer


class Owner:
    """Streams frames from the buffer's position until the end, or until another owner comes."""

    def __init__(
        self, answer: Answer, buffer: FrameBuffer, begun: int, keepalive: float, *, moved: Callable[[], None]
    ) -> None:
        self._answer = answer
        self._buffer = buffer
        self._begun = begun
        self._keepalive = keepalive
        self._moved = moved
        self._end: End | None = None
        self._superseded = False
        self._live = False
        self._quiet = True
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def offer(self, line: bytes) -> None:
        """The buffer's newest frame: written at once if this reader has all before it."""
        if not self._live:
            return
        self._buffer.mark(len(line))
        self._quiet = False
        if not self._answer.write(line):
            self._wake()

    def finish(self, end: End) -> None:
        """The attempt has ended; what is buffered is still sent before."""
        self._end = end
        self._wake()

    def supersede(self) -> None:
        """Another owner has come: nothing more of the attempt goes to this one."""
        self._superseded = True
        self._wake()

    async def run(self) -> None:
        """Streams until the end. Raises ConnectionError when the reader is gone."""
        self._answer.start(200, [(b"content-type", FRAMES.encode()), (b"cache-control", b"no-store")])
        self._answer.write(frames.acknowledged(self._begun))
        self._beat()
        try:
            while True:
                await self._answer.drain()
                if self._superseded:
                    return self._last(End("superseded", "another gateway owns the turn"))
                line = self._buffer.next()
                if line is not None:
                    self._quiet = False
                    self._answer.write(line)
                    self._moved()
                elif self._end is not None:
                    return self._last(self._end)
                else:
                    await self._sleep()
        finally:
            self._live = False
            if self._timer is not None:
                self._timer.cancel()

    def _last(self, end: End) -> None:
        self._answer.end(frames.end(end))

    async def _sleep(self) -> None:
        self._live = True
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter

    def _wake(self) -> None:
        self._live = False
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _beat(self) -> None:
        """Every `keepalive` seconds: a sign of life if nothing else was written since the last look."""
        if self._live and self._quiet:
            self._answer.write(frames.KEEPALIVE)
        self._quiet = True
        self._timer = asyncio.get_running_loop().call_later(self._keepalive, self._beat)
