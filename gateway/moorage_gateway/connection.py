"""One client connection: uvicorn's httptools protocol with limits, deadlines and strict framing. Layer: gateway, transport.

`server.Listener` makes one per connection and calls `sweep` once a second; no timer is set per request. A message's bytes reach
the parser only in pieces whose limits `framing.py` has found, so that both must agree on where it ends. Requests on one
connection are served one at a time. After anything ambiguous the connection is answered once and never read again.
"""

from __future__ import annotations

import asyncio
from enum import Enum, auto
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import httptools
import orjson
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.protocols.utils import get_local_addr, get_remote_addr

from moorage_api.errors import ApiError, Kind
from moorage_gateway import framing
from moorage_gateway.exchange import EXTENSION, Exchange

if TYPE_CHECKING:
    from moorage_gateway.server import Listener

LINGER_SECONDS = 2.0  # after a last answer, so that the caller can read it before the connection is torn down
LINGER_BYTES = 4 * 1024 * 1024
HELD_BYTES = 512 * 1024


class Phase(Enum):
    """What the next byte from the caller is."""

    HEAD = auto()
    BODY = auto()
    CLOSED = auto()  # nothing more is read


class Connection(HttpToolsProtocol):
    """See the module. `since` is when the present phase began, by the loop's clock."""

    cycle: Exchange

    def __init__(self, listener: Listener, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(listener.config, listener.state, {}, loop)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=False)
        self.listener = listener
        self.limits = listener.limits
        self.since = loop.time()
        self._phase = Phase.HEAD
        self._partial = bytearray()
        self._held = b""
        self._left = 0
        self._chunks: framing.Chunks | None = None
        self._message_ended = False
        self._upgrade = False
        self._credit = 0.0
        self._arrived = 0
        self._blocked_since: float | None = None
        self._linger_until: float | None = None

    # The transport's callbacks

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        self.flow = FlowControl(transport)
        self.server = get_local_addr(transport)
        self.client = get_remote_addr(transport)
        self.scheme = "http"
        transport.set_write_buffer_limits(high=self.limits.stream_buffer // 2)
        self.connections.add(self)
        if not self.listener.admit(self.client):
            self.refuse(ApiError(Kind.UNAVAILABLE, "Too many connections are open; try again shortly.", retry_after=1))

    def connection_lost(self, exc: Exception | None) -> None:
        self.connections.discard(self)
        self.listener.release(self.client)
        self._phase = Phase.CLOSED
        if self.cycle is not None:
            self.cycle.left()
        self.flow.resume_writing()
        self.parser = None  # type: ignore[assignment]  # breaks the cycle parser → callbacks → connection

    def data_received(self, data: bytes) -> None:
        if self._phase is Phase.CLOSED:
            self._arrived += len(data)
            if self._arrived > LINGER_BYTES:
                self.transport.abort()
            return
        try:
            self._take(data)
        except framing.FramingError as error:
            self.refuse(ApiError(error.kind, f"The request cannot be read: {error.message}."))
        except httptools.HttpParserError:
            self.refuse(ApiError(Kind.INVALID_REQUEST, "The request cannot be read."))

    def pause_writing(self) -> None:
        self._blocked_since = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        self._blocked_since = None
        super().resume_writing()

    def shutdown(self) -> None:
        """The listener drains: close when idle, else after the running answer."""
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()
        else:
            self.cycle.keep_alive = False

    # The parser's callbacks

    def on_message_begin(self) -> None:
        self.url = b""
        self.headers = []
        self._message_ended = False

    def on_headers_complete(self) -> None:
        """Nothing: the request begins once `_take_head` has checked the framing of the whole head."""

    def on_body(self, body: bytes) -> None:
        cycle = self.cycle
        if cycle.response_complete or cycle.disconnected:
            return
        cycle.body += body
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        self._message_ended = True

    # Reading

    def _take(self, data: bytes) -> None:
        while data and self._phase is not Phase.CLOSED:
            if self._phase is Phase.BODY:
                data = self._take_body(data)
            elif self.cycle is not None and not self.cycle.response_complete:
                self._held += data  # the next request waits until this one is answered
                self.flow.pause_reading()
                if len(self._held) > HELD_BYTES:
                    raise framing.FramingError("too much is sent before the answer")
                return
            else:
                data = self._take_head(data)

    def _take_head(self, data: bytes) -> bytes:
        partial, limits = self._partial, self.limits
        seen = len(partial)
        if seen:
            partial += data
            end = partial.find(framing.HEAD_END, max(0, seen - 3))
        else:
            end = data.find(framing.HEAD_END)
        if end < 0:
            if not seen:
                partial += data
                self.since = self.loop.time()
            framing.check_partial_head(partial, seen, limits.header_bytes)
            return b""
        if seen:
            data = bytes(partial)
            partial.clear()
        head, rest = data[: end + 4], data[end + 4 :]
        framing.check_head(head, max_bytes=limits.header_bytes, max_headers=limits.header_count)
        self._upgrade = False
        try:
            self.parser.feed_data(head)
        except httptools.HttpParserUpgrade:
            self._upgrade = True
        minor = 0 if self.parser.get_http_version() == "1.0" else 1
        self._begin(framing.body_length(self.headers, minor=minor), minor)
        return rest

    def _begin(self, length: int | None, minor: int) -> None:
        if self._message_ended is not (length == 0):
            raise framing.FramingError("its length is ambiguous")
        keep_alive, expects = bool(minor) and not self._upgrade, False
        for name, value in self.headers:
            if name == b"connection" and b"close" in value.lower():
                keep_alive = False
            elif name == b"expect" and value.lower() == b"100-continue":
                expects = True
        scope = self._scope(minor)
        cycle = Exchange(self, scope, keep_alive=keep_alive, expects_continue=expects)
        scope[EXTENSION] = cycle
        if length == 0:
            cycle.more_body = False
            cycle.message_event.set()
            self._phase = Phase.HEAD if keep_alive else Phase.CLOSED
        else:
            self._phase = Phase.BODY
            self._left = length or 0
            self._chunks = framing.Chunks() if length is None else None
            self._credit, self._arrived = self.limits.body_grace, 0
        self.cycle = cycle
        self._start_asgi_task(cycle, self.app)

    def _scope(self, minor: int) -> dict[str, Any]:
        raw_path, _, query = self.url.partition(b"?")
        path = raw_path.decode("ascii")
        if "%" in path:
            try:
                path = unquote(path, errors="strict")
            except UnicodeDecodeError:
                raise framing.FramingError("its path is not UTF-8") from None
            if any(letter < " " or letter == "\x7f" for letter in path):
                raise framing.FramingError("its path holds control characters")
        return {
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": f"1.{minor}",
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "root_path": "",
            "method": self.parser.get_method().decode("ascii"),
            "path": path,
            "raw_path": raw_path,
            "query_string": query,
            "headers": self.headers,
            "state": {},
        }

    def _take_body(self, data: bytes) -> bytes:
        if self._chunks is not None:
            used = self._chunks.feed(data)
            ended = self._chunks.done
        else:
            used = min(len(data), self._left)
            self._left -= used
            ended = not self._left
        self._arrived += used
        self.parser.feed_data(data if used == len(data) else data[:used])
        if self._message_ended is not ended:
            raise framing.FramingError("its length is ambiguous")
        if ended:
            cycle = self.cycle
            cycle.more_body = False
            cycle.message_event.set()
            self._phase = Phase.HEAD if cycle.keep_alive else Phase.CLOSED
        return data[used:]

    # Ending

    def on_response_complete(self) -> None:
        """The answer is written: serve the next request, or end the connection."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.since = self.loop.time()
        if self._phase is Phase.BODY:
            self._linger()
        elif not self.cycle.keep_alive:
            self._phase = Phase.CLOSED
            self.transport.close()
        else:
            self.flow.resume_reading()
            if self._held:
                held, self._held = self._held, b""
                self.loop.call_soon(self.data_received, held)

    def refuse(self, error: ApiError) -> None:
        """Answer what cannot reach the app (once, if nothing was answered yet), then never read again."""
        self.listener.refused(error.kind)
        running = self.cycle is not None and not self.cycle.response_complete
        if running and (self.cycle.response_started or self._phase is not Phase.BODY):
            # An answer has begun, or is owed to an earlier request: nothing may be mixed into it.
            self._phase = Phase.CLOSED
            self.transport.abort()
            return
        body = orjson.dumps(error.body())
        lines = [STATUS_LINE[error.status], b"content-type: application/json\r\nconnection: close\r\n"]
        lines += [f"{name}: {value}\r\n".encode() for name, value in error.headers().items()]
        lines += [b"content-length: %d\r\n\r\n" % len(body), body]
        self.transport.write(b"".join(lines))
        if running:
            self.cycle.left()
        self._linger()

    def _linger(self) -> None:
        # Closing with unread bytes sends a reset, and the caller would lose the answer: half-close, read on for a moment.
        self._phase = Phase.CLOSED
        self._arrived = 0
        self._linger_until = self.loop.time() + LINGER_SECONDS
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def sweep(self, now: float, elapsed: float) -> None:
        """Once a second: end what has waited too long."""
        limits = self.limits
        if self._linger_until is not None:
            if now > self._linger_until:
                self.transport.abort()
        elif self._blocked_since is not None and now - self._blocked_since > limits.slow_reader_seconds:
            self.transport.abort()
        elif self._phase is Phase.BODY:
            self._sweep_body(elapsed)
        elif self._phase is Phase.HEAD and (self.cycle is None or self.cycle.response_complete):
            if self._partial:
                if now - self.since > limits.header_seconds:
                    self.refuse(ApiError(Kind.SLOW_REQUEST, "The request head took too long."))
            elif now - self.since > (limits.header_seconds if self.cycle is None else limits.keep_alive_seconds):
                self.transport.close()

    def _sweep_body(self, elapsed: float) -> None:
        # A leaky bucket in seconds: bytes at the floor's rate just keep it level. Neither our own back-pressure counts nor time in which
        # nobody waits for the body: who has sent its beginning may want to see the head first, and a sandbox may have to be made for that.
        if self.flow.read_paused or self.cycle.waiting_for_100_continue or not self.cycle.awaits:
            return
        self._credit = min(self.limits.body_grace, self._credit + self._arrived / self.limits.body_floor - elapsed)
        self._arrived = 0
        if self._credit < 0:
            self.refuse(ApiError(Kind.SLOW_REQUEST, "The request body came too slowly."))
