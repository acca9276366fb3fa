"""One connection of the sandbox hop, one exchange at a time over it. Layer: the floor; stdlib; for `hop.py` alone.

An asyncio.BufferedProtocol and no streams: StreamReader costs twice the CPU. What is not read stays in the peer:
reading pauses at `HIGH_WATER` buffered bytes, so one slow reader holds 192 KiB at most.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

from moorage_api.wire import http1

SCRATCH = 64 * 1024
"""Bytes of one read from a socket."""
HIGH_WATER = 128 * 1024
"""Unread body bytes at which reading pauses; with one more read it stays within 192 KiB."""
LOW_WATER = 32 * 1024
"""Unread body bytes at which reading resumes."""

SETTLE = 1.0
"""Seconds a cancelled upload may take to let go of its source."""

RequestBody = bytes | AsyncIterator[bytes] | None


class HopError(ConnectionError):
    """The exchange broke. `sent` is False only when nothing can have been processed at the other end."""

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class HopTimeout(HopError):
    """The peer did not answer, or went silent, within the deadline."""


class HopConnection(asyncio.BufferedProtocol):
    """One connection. Owned by the pool while idle, by one exchange while not."""

    def __init__(self, scratch: memoryview) -> None:
        self._loop = asyncio.get_running_loop()
        self._scratch = scratch
        self._transport: asyncio.Transport | None = None
        self._held = b""
        self._method = ""
        self._body: http1.Body | None = None
        self._head: http1.ResponseHead | None = None
        self._pieces: deque[bytes] = deque()
        self._buffered = 0
        self._paused = False
        self._waiter: asyncio.Future[None] | None = None
        self._drain: asyncio.Future[None] | None = None
        self._failure: BaseException | None = None
        self._upload: asyncio.Task[None] | None = None
        self._busy = False
        self._write_blocked = False
        self.closed = False
        self.idle_since = 0.0
        self.on_closed: Callable[[HopConnection], None] | None = None
        self._deliver: Callable[[bytes], None] | None = None  # set while the body is poured
        self._arrived_at = 0.0
        self._stirred = False  # something came since the timer looked
        self._silence: asyncio.TimerHandle | None = None

    # -- called by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are none of asyncio's own classes

    def get_buffer(self, sizehint: int) -> Any:
        return self._scratch

    def buffer_updated(self, nbytes: int) -> None:
        data = bytes(self._scratch[:nbytes])
        try:
            if self._deliver is not None:
                self._stirred = True
                self._body_poured(data, self._deliver)
            elif self._body is not None:
                self._body_arrived(data)
            elif self._busy:
                self._head_arrived(data)
            else:
                self._fail(HopError("bytes arrived that nobody asked for", sent=True))
        except http1.BadMessage as error:
            self._fail(HopError(f"malformed answer: {error}", sent=True))

    def eof_received(self) -> None:
        if isinstance(self._body, http1.UntilClose):
            self._body.done = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if isinstance(self._body, http1.UntilClose) and exc is None:
            self._body.done = True
        if self._failure is None and not (self._body is not None and self._body.done):
            self._failure = HopError(f"the connection was lost: {exc or 'closed by the peer'}", sent=True)
        self._wake()
        if self._drain is not None and not self._drain.done():
            self._drain.set_result(None)
        if self.on_closed is not None:
            self.on_closed(self)

    def pause_writing(self) -> None:
        self._write_blocked = True

    def resume_writing(self) -> None:
        self._write_blocked = False
        if self._drain is not None and not self._drain.done():
            self._drain.set_result(None)

    # -- the exchange

    async def exchange(
        self, method: str, head: bytes, body: RequestBody, *, length: int | None, timeout: float
    ) -> None:
        """Sends a request and waits for the head of its answer. Raises HopError; the connection is then closed.

        `length` is what the head promises of a streamed body; None sends it in chunks.
        """
        transport = self._transport
        assert transport is not None
        self._busy, self._method, self._head, self._body, self._failure = True, method, None, None, None
        if body is None or isinstance(body, bytes):
            transport.write(head + body if body else head)
        else:
            transport.write(head)
            self._upload = self._loop.create_task(self._send(body, length))
        await self.wait(lambda: self._head is not None, timeout, "no answer")

    def _head_arrived(self, data: bytes) -> None:
        held = self._held + data if self._held else data
        while True:
            stop = held.find(b"\r\n\r\n")
            if stop < 0:
                if len(held) > http1.MAX_HEAD:
                    raise http1.HeadTooLarge("head too large")
                self._held = held
                return
            head = http1.response_head(held[: stop + 2])
            held = held[stop + 4 :]
            if head.status >= 200:
                break
            if head.status == 101:
                raise http1.BadMessage("an upgrade nobody asked for")
        self._held = b""
        self._body = http1.response_body(head, self._method)
        self._head = head
        if held or self._body.done:
            self._body_arrived(held)
        self._wake()

    def _body_arrived(self, data: bytes) -> None:
        body = self._body
        assert body is not None
        if body.done:
            rest = data
        else:
            rest = body.feed(data, self._put)
        if rest:
            raise http1.BadMessage("bytes past the end of the body")
        if self._buffered >= HIGH_WATER and not body.done:
            self._pause()
        self._wake()

    def _body_poured(self, data: bytes, deliver: Callable[[bytes], None]) -> None:
        body = self._body
        assert body is not None
        if data if body.done else body.feed(data, deliver):
            raise http1.BadMessage("bytes past the end of the body")
        if body.done:
            self._wake()

    def _put(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._buffered += len(piece)

    def _pause(self) -> None:
        if not self._paused:
            assert self._transport is not None
            self._paused = True
            self._transport.pause_reading()

    async def _send(self, body: AsyncIterator[bytes], length: int | None) -> None:
        transport = self._transport
        assert transport is not None
        left = length
        try:
            async for piece in body:
                if self.closed:
                    return
                if left is not None:
                    left -= len(piece)
                    if left < 0:
                        raise http1.BadMessage("the body is longer than its content-length")
                if piece:
                    transport.write(http1.chunk(piece) if length is None else piece)
                if self._write_blocked:
                    self._drain = self._loop.create_future()
                    await self._drain
            if left:
                raise http1.BadMessage("the body is shorter than its content-length")
            if length is None and not self.closed:
                transport.write(http1.LAST_CHUNK)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            # The body's source is foreign code: whatever it raises ends this exchange and reaches the caller as cause.
            failure = HopError("the request's body broke off", sent=True)
            failure.__cause__ = error
            self._fail(failure)

    # -- waiting and the body

    async def wait(self, ready: Callable[[], bool], timeout: float | None, what: str, *, last: bool = False) -> None:
        """Waits until `ready`, the connection's failure, or the deadline; the latter two raise HopError.

        A cancelled wait closes the connection, but for a `last` one whose end was there already: what follows may use it again.
        """
        if ready():
            return
        timer = None if timeout is None else self._loop.call_later(timeout, self._late, what, timeout)
        try:
            while not ready():
                if self._failure is not None:
                    raise self._failure
                self._waiter = self._loop.create_future()
                await self._waiter
        except BaseException:
            if not (last and self._failure is None and ready()):
                self.abort()
                await self.settle()
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def _late(self, what: str, timeout: float) -> None:
        self._fail(HopTimeout(f"{what} within {timeout:g} s", sent=True))

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, error: HopError) -> None:
        if self._failure is None:
            self._failure = error
        self.abort()
        self._wake()

    @property
    def answered(self) -> bool:
        """Any byte of an answer has arrived."""
        return self._head is not None or bool(self._held)

    @property
    def head(self) -> http1.ResponseHead:
        """The head of the answer; only after `exchange`."""
        assert self._head is not None
        return self._head

    @property
    def complete(self) -> bool:
        """The whole body has arrived from the peer."""
        return self._body is not None and self._body.done

    @property
    def waiting(self) -> int:
        """Pieces of the body that have arrived and nobody has read."""
        return len(self._pieces)

    async def piece(self, timeout: float | None) -> bytes:
        """The next piece of the body; empty at its end. Raises HopError when it breaks off."""
        if not self._pieces:
            if self.complete:
                return b""
            await self.wait(lambda: bool(self._pieces) or self.complete, timeout, "nothing arrived")
            if not self._pieces:
                return b""
        piece = self._pieces.popleft()
        self._buffered -= len(piece)
        if self._buffered <= LOW_WATER:
            self.resume()
        return piece

    async def pour(self, sink: Callable[[bytes], bool], idle: float) -> None:
        """Every piece goes to `sink` as it arrives, without a task in between; returns at the end of the body.

        A sink that returns False has enough until `resume`. Raises HopError on a break, on `idle` seconds of silence while it would
        take more, and on whatever the sink raises.
        """

        def deliver(piece: bytes) -> None:
            try:
                if not sink(piece):
                    self._pause()
            except Exception as error:
                # The sink is the caller's code: whatever it raises ends this exchange and reaches the caller as cause.
                failure = HopError("what arrived was not accepted", sent=True)
                failure.__cause__ = error
                self._fail(failure)

        self._buffered = 0
        self.resume()  # what had paused reading is delivered now; a sink that has enough pauses it again
        while self._pieces:
            deliver(self._pieces.popleft())
        self._deliver, self._stirred = deliver, True
        self._quiet(idle)
        try:
            await self.wait(lambda: self.complete, None, "", last=True)
        finally:
            self._deliver = None
            if self._silence is not None:
                self._silence.cancel()

    def _quiet(self, idle: float) -> None:
        """One timer for the whole body, which looks whether anything came: setting one for each piece costs more than the piece.

        So silence is noticed after `idle` to `idle` + `idle` / 4 seconds.
        """
        now = self._loop.time()
        if self._stirred or self._paused:
            self._stirred, self._arrived_at = False, now
        if now - self._arrived_at >= idle:
            self._late("nothing arrived", idle)
            return
        self._silence = self._loop.call_later(idle / 4, self._quiet, idle)

    def resume(self) -> None:
        """The sink takes more."""
        if self._paused and not self.closed:
            assert self._transport is not None
            self._paused = False
            self._transport.resume_reading()

    def reusable(self) -> bool:
        """Whether another exchange may follow; drops what nobody read of a body that has wholly arrived."""
        if self.closed or not self.complete or self._failure is not None or self._head is None:
            return False
        if isinstance(self._body, http1.UntilClose) or not http1.keeps_alive(self._head.minor, self._head.headers):
            return False
        if self._upload is not None and not self._upload.done():
            return False
        self._upload, self._body, self._busy = None, None, False
        self._pieces.clear()
        self._buffered = 0
        if self._paused:
            assert self._transport is not None
            self._paused = False
            self._transport.resume_reading()
        return True

    async def settle(self) -> None:
        """Waits for a cancelled upload to be gone, so that its source is free when the exchange has ended."""
        if self._upload is not None and not self._upload.done():
            await asyncio.wait([self._upload], timeout=SETTLE)

    def abort(self) -> None:
        """Closes at once; the peer sees a reset or an end. Harmless when repeated."""
        self.closed = True
        if self._upload is not None:
            self._upload.cancel()
        if self._transport is not None:
            self._transport.abort()
