"""One client of the shim's server: framing, deadlines, back-pressure, departure. Layer: I/O rim; used by `server.py` alone.

One request at a time. Reading pauses at `HIGH_WATER` unread body bytes; writers wait at WRITE_HIGH_WATER unsent ones.
"""

from __future__ import annotations

import asyncio
import select
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, cast

from moorage_api.wire import http1

HIGH_WATER = 128 * 1024
"""Unread request-body bytes at which reading pauses."""
LOW_WATER = 32 * 1024
WRITE_HIGH_WATER = 64 * 1024
"""Answer bytes not yet taken by the kernel at which writers wait."""
HEAD_SECONDS = 10.0
"""From the first byte of a request to the end of its head."""
IDLE_SECONDS = 75.0
"""Between two requests of one connection; longer than a client keeps it."""
GONE_CHECK = 0.5
"""While reading is paused an end of the client shows only when asked for: how often."""


@dataclass(frozen=True)
class Serving:
    """What the connections of one server share."""

    run: Callable[[http1.RequestHead, HttpConnection], Awaitable[bool]]
    """Serves one request; True when its answer was ended in good order."""
    joined: Callable[[HttpConnection], bool]
    left: Callable[[HttpConnection], None]
    scratch: memoryview
    """One for all: a read and its parsing are one synchronous step."""


class HttpConnection(asyncio.BufferedProtocol):
    """One client. `run` of Serving is called once a request, in a task that is cancelled when the client is gone."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._held = b""
        self._body: http1.Body | None = None
        self._pieces: deque[bytes] = deque()
        self._buffered = 0
        self._paused = False
        self._expects = False
        self._waiter: asyncio.Future[None] | None = None
        self._drainer: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self.blocked = False
        self.last = False
        self.gone = False
        self.method = b""

    # -- called by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        ours = self._transport = cast(asyncio.Transport, transport)  # uvloop's are none of asyncio's own classes
        ours.set_write_buffer_limits(high=WRITE_HIGH_WATER)
        if not self._serving.joined(self):
            ours.abort()
            return
        self._expect(IDLE_SECONDS)

    def adopt(self, data: bytes) -> None:
        """Goes on where another protocol has read `data` of this connection; called once, after `connection_made`."""
        self._arrived(data)
        if not self._paused and self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def get_buffer(self, sizehint: int) -> Any:
        return self._serving.scratch

    def buffer_updated(self, nbytes: int) -> None:
        self._arrived(bytes(self._serving.scratch[:nbytes]))

    def _arrived(self, data: bytes) -> None:
        try:
            if self._body is None:
                self._head_arrived(data)
            else:
                self._body_arrived(data)
        except http1.HeadTooLarge:
            self._refuse(431)
        except http1.BadMessage:
            self._refuse(400)

    def eof_received(self) -> None:
        self._client_gone()

    def connection_lost(self, exc: Exception | None) -> None:
        self._client_gone()
        self._serving.left(self)

    def pause_writing(self) -> None:
        self.blocked = True

    def resume_writing(self) -> None:
        self.blocked = False
        if self._drainer is not None and not self._drainer.done():
            self._drainer.set_result(None)

    # -- requests

    def _head_arrived(self, data: bytes) -> None:
        if not self._held:
            self._expect(HEAD_SECONDS)
        held = self._held + data if self._held else data
        stop = held.find(b"\r\n\r\n")
        if stop < 0 or stop > http1.MAX_HEAD:
            if len(held) > http1.MAX_HEAD:
                raise http1.HeadTooLarge("head too large")
            self._held = held
            return
        self._held = b""
        head = http1.request_head(held[: stop + 2])
        self._body = http1.request_body(head)
        self.last = not http1.keeps_alive(head.minor, head.headers)
        self.method = head.method
        self._expects = head.minor == 1 and http1.header(head.headers, b"expect") == b"100-continue"
        self._calm()
        self._task = self._loop.create_task(self._serve(head))
        rest = held[stop + 4 :]
        if rest:
            self._body_arrived(rest)

    def _body_arrived(self, data: bytes) -> None:
        body = self._body
        assert body is not None
        rest = data if body.done else body.feed(data, self._put)
        if rest:
            # No client of ours sends a second request before the first is answered: end after this one.
            self.last = True
            self._pause()
        elif self._buffered >= HIGH_WATER and not body.done:
            self._pause()
        self._wake()

    def _put(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._buffered += len(piece)

    async def _serve(self, head: http1.RequestHead) -> None:
        try:
            ended = await self._serving.run(head, self)
        except asyncio.CancelledError:
            self.abort()
            raise
        self._finish(ended)

    def _finish(self, ended: bool) -> None:
        transport = self._transport
        if transport is None or self.gone:
            return
        if not ended:
            self.abort()
            return
        body = self._body
        if self.last or body is None or not body.done:
            transport.close()
            return
        self._body, self._task = None, None
        self._pieces.clear()
        self._buffered = 0
        self._resume()
        self._expect(IDLE_SECONDS)

    async def piece(self) -> bytes:
        """The next piece of the request's body; empty at its end. Raises ConnectionError when the client is gone."""
        body = self._body
        assert body is not None
        if self._expects and not body.done:
            self._expects = False
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        while not self._pieces:
            if body.done:
                return b""
            if self.gone:
                raise ConnectionResetError("the client is gone")
            self._waiter = self._loop.create_future()
            await self._waiter
        piece = self._pieces.popleft()
        self._buffered -= len(piece)
        if self._buffered <= LOW_WATER and not body.done:
            self._resume()
        return piece

    def only_piece(self) -> bytes | None:
        """The body when it is complete and one piece."""
        body = self._body
        if body is None or not body.done or len(self._pieces) != 1:
            return None
        self._buffered = 0
        return self._pieces.popleft()

    # -- answers

    def write(self, data: bytes) -> None:
        """Writes at once; nothing when the client is gone."""
        if self._transport is not None and not self.gone:
            self._transport.write(data)

    async def drain(self) -> None:
        """Waits until the transport takes more, or the client is gone."""
        if self.blocked and not self.gone:
            self._drainer = self._loop.create_future()
            await self._drainer
        if self.gone:
            raise ConnectionResetError("the client is gone")

    def abort(self) -> None:
        """Ends the connection so that the client sees a break, not an end."""
        if self._transport is not None:
            self._transport.abort()

    # -- deadlines and departures

    def _expect(self, seconds: float) -> None:
        self._calm()
        self._timer = self._loop.call_later(seconds, self._late)

    def _calm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        if self._held:
            self._refuse(408)
        elif self._transport is not None:
            self._transport.close()

    def _refuse(self, status: int) -> None:
        """A request that is none: answers once when nothing else is being answered, and ends the connection."""
        self._calm()
        self.last = True
        if self._task is None or self._task.done():
            body = b'{"error":"bad_request"}'
            fields = [(b"content-length", b"%d" % len(body)), (b"connection", b"close")]
            self.write(http1.encode_head(b"HTTP/1.1 %d Refused" % status, fields) + body)
            if self._transport is not None:
                self._transport.close()
        else:
            self._client_gone()
            self.abort()

    def _pause(self) -> None:
        if not self._paused and self._transport is not None and not self.gone:
            self._paused = True
            self._transport.pause_reading()
            self._watch = self._loop.call_later(GONE_CHECK, self._look)

    def _resume(self) -> None:
        if self._paused and self._transport is not None and not self.gone:
            self._paused = False
            self._transport.resume_reading()
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    def _look(self) -> None:
        """Whether the client hung up behind the bytes that we do not read yet."""
        sock = None if self._transport is None else self._transport.get_extra_info("socket")
        if sock is None or self.gone:
            return
        poller = select.poll()
        poller.register(sock.fileno(), select.POLLRDHUP | select.POLLHUP | select.POLLERR)
        if poller.poll(0):
            self._client_gone()
            self.abort()
        else:
            self._watch = self._loop.call_later(GONE_CHECK, self._look)

    def _client_gone(self) -> None:
        if self.gone:
            return
        self.gone = True
        self._calm()
        if self._watch is not None:
            self._watch.cancel()
        if self._task is not None:
            self._task.cancel()
        self._wake()
        if self._drainer is not None and not self._drainer.done():
            self._drainer.set_result(None)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    @property
    def task(self) -> asyncio.Task[None] | None:
        """The handler that runs now."""
        return self._task
