"""One request and its answer on a connection: the ASGI side of `connection.py`. Layer: gateway, transport.

Differs from uvicorn's cycle in three ways: head and first body bytes leave in one write, header lines are checked as one block,
and the scope carries `moorage.exchange`, by which a route learns at once, and without a task of its own, that its caller left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

if TYPE_CHECKING:
    from moorage_gateway.connection import Connection

EXTENSION = "moorage.exchange"  # key in the ASGI scope


class Exchange(RequestResponseCycle):
    """The cycle of one request. `on_left` is called once if the caller goes before the answer is complete."""

    def __init__(self, connection: Connection, scope: Any, *, keep_alive: bool, expects_continue: bool) -> None:
        super().__init__(
            scope=scope,
            transport=connection.transport,
            flow=connection.flow,
            logger=connection.logger,
            access_logger=connection.logger,
            access_log=False,
            default_headers=connection.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=expects_continue,
            keep_alive=keep_alive,
            on_response=connection.on_response_complete,
        )
        self.on_left: Callable[[], None] | None = None
        self.awaits = False  # somebody waits for more of the body
        self.status = 0
        self.sent_bytes = 0
        self._streams = False  # begun, in chunks, and not complete
        self._loop = connection.loop
        self._head = b""
        self._connection = connection

    # What the transport tells

    def left(self) -> None:
        """The connection is gone: wake whoever waits for the body, and tell the route."""
        if self.response_complete:
            return
        self.disconnected = True
        self.message_event.set()
        if self.on_left is not None:
            self.on_left()

    def abort(self) -> None:
        """Break the answer off visibly (no end marker): what was promised cannot be sent any more."""
        self._flush()
        self.disconnected = True
        self.message_event.set()
        self.transport.close()

    # ASGI

    async def receive(self) -> Any:
        """As uvicorn's, but reading goes on only while a body is awaited: pipelined requests stay in the socket."""
        if self.waiting_for_100_continue and not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.waiting_for_100_continue = False
        if not self.disconnected and not self.response_complete:
            if self.more_body:
                self.flow.resume_reading()
            self.awaits = True
            try:
                await self.message_event.wait()
            finally:
                self.awaits = False
            self.message_event.clear()
        if self.disconnected or self.response_complete:
            return {"type": "http.disconnect"}
        body, self.body = bytes(self.body), bytearray()
        return {"type": "http.request", "body": body, "more_body": self.more_body}

    async def send(self, message: Any) -> None:
        """Head and body as one write where possible; waits while the caller reads too slowly."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        kind = message["type"]
        if not self.response_started:
            if kind != "http.response.start":
                raise RuntimeError(f"expected http.response.start, not {kind}")
            self._start(message)
        elif self.response_complete or kind != "http.response.body":
            raise RuntimeError(f"unexpected {kind}")
        else:
            self._body(message.get("body", b""), message.get("more_body", False))

    def put(self, body: bytes) -> bool:
        """Sends a piece of an answer at once, past the layers, which have seen it begin: what a stream does for each event.

        False, and nothing is sent, when it must wait or go through `send`: not begun, the caller reads slowly or left, no chunks.
        """
        if not self._streams or self._head or not body or self.flow.write_paused or self.disconnected:
            return False
        self.sent_bytes += len(body)
        self.transport.write(b"%x\r\n%b\r\n" % (len(body), body))
        return True

    def _start(self, message: Any) -> None:
        self.response_started = True
        self.waiting_for_100_continue = False
        self.status = status = message["status"]
        if status >= 400 and self.more_body:
            self.keep_alive = False  # the rest of the body will not be read: the connection cannot be used again
        lines = [STATUS_LINE[status]]
        closing = False
        for name, value in self.default_headers:
            lines.append(b"%b: %b\r\n" % (name, value))
        count = len(lines)
        for name, value in message.get("headers", ()):
            if name == b"content-length":
                self.expected_content_length = int(value)
                self.chunked_encoding = False
            elif name == b"connection":
                closing = closing or b"close" in value.lower()
            lines.append(b"%b: %b\r\n" % (name, value))
            count += 1
        if closing:
            self.keep_alive = False
        elif not self.keep_alive:
            lines.append(b"connection: close\r\n")
            count += 1
        if self.chunked_encoding is None and self.scope["method"] != "HEAD" and status not in (204, 304):
            if self.scope["http_version"] == "1.1":
                self.chunked_encoding = True
                lines.append(b"transfer-encoding: chunked\r\n")
                count += 1
            else:
                self.keep_alive = False  # HTTP/1.0 has no chunks: the end of the connection ends the body
        lines.append(b"\r\n")
        head = b"".join(lines)
        if head.count(b"\n") != count + 1 or head.count(b"\r") != count + 1 or b"\x00" in head:
            self.response_started = False
            raise RuntimeError("a response header holds a line break")
        self._head = head
        self._streams = bool(self.chunked_encoding) and self.scope["method"] != "HEAD"
        self._loop.call_soon(self._flush)

    def _body(self, body: bytes, more_body: bool) -> None:
        if self.scope["method"] == "HEAD":
            body, self.expected_content_length = b"", 0
        self.sent_bytes += len(body)
        head, self._head = self._head, b""
        if self.chunked_encoding:
            end = b"" if more_body else b"0\r\n\r\n"
            data = b"%b%x\r\n%b\r\n%b" % (head, len(body), body, end) if body else head + end
        else:
            if self.chunked_encoding is False and self.scope["method"] != "HEAD":
                self.expected_content_length -= len(body)
                if self.expected_content_length < 0:
                    raise RuntimeError("the body is longer than its Content-Length")
            data = head + body if head else body
        if data:
            self.transport.write(data)
        if not more_body:
            if self.expected_content_length:
                raise RuntimeError("the body is shorter than its Content-Length")
            self.response_complete, self._streams = True, False
            self.message_event.set()
            self.on_response()

    def _flush(self) -> None:
        if self._head and not self.disconnected:
            head, self._head = self._head, b""
            self.transport.write(head)
