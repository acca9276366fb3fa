"""The shim's HTTP/1.1 server: strict, small, streaming both ways. Layer: I/O rim; knows nothing of sessions.

    HttpServer                     listens, counts connections, closes
      └─ HttpConnection            one request at a time (connection.py), for each a handler call with
           ├─ Request              head, and the body as it arrives
           └─ Answer               whole, or streamed with back-pressure

A handler is cancelled when its client is gone. Not uvicorn or aiohttp: they are larger than all the rest of the shim.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

from moorage_api.wire import http1
from moorage_sandbox.connection import HttpConnection, Serving

SCRATCH = 64 * 1024
"""Bytes of one read from a client."""
REASONS = {200: b"OK", 400: b"Bad Request", 404: b"Not Found", 409: b"Conflict", 502: b"Bad Gateway"}

Handler = Callable[["Request", "Answer"], Awaitable[None]]


class Request:
    """One request. The body is read at most once, whole or in pieces."""

    __slots__ = ("_connection", "headers", "method", "path", "query")

    def __init__(self, head: http1.RequestHead, connection: HttpConnection) -> None:
        self._connection = connection
        self.method = head.method.decode("ascii")
        self.path, _, self.query = head.target.decode("ascii").partition("?")
        self.headers = head.headers

    def header(self, name: bytes) -> bytes:
        """The first value of a header (lower-case name), or nothing."""
        return http1.header(self.headers, name) or b""

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives, nothing merged."""
        while piece := await self._connection.piece():
            yield piece

    async def read(self, limit: int) -> bytes:
        """The whole body. Raises BodyTooLarge as soon as more than `limit` bytes are announced or seen."""
        promised = self.header(b"content-length")
        if promised and int(promised) > limit:
            raise BodyTooLarge
        parts: list[bytes] = []
        size = 0
        while piece := await self._connection.piece():
            size += len(piece)
            if size > limit:
                raise BodyTooLarge
            parts.append(piece)
        return b"".join(parts)

    def whole(self) -> bytes | None:
        """The body, if all of it has come in one piece; it then counts as read."""
        return self._connection.only_piece()

    @property
    def has_body(self) -> bool:
        """The request came with a body (perhaps an empty one of unknown length)."""
        return any(name in (b"content-length", b"transfer-encoding") for name, _ in self.headers)


class BodyTooLarge(Exception):
    """The request's body is over its limit."""


class Answer:
    """The answer to one request. `started` tells whether a status has left."""

    __slots__ = ("_chunked", "_connection", "_unsent", "ended", "started")

    def __init__(self, connection: HttpConnection) -> None:
        self._connection = connection
        self._chunked = False
        self._unsent = b""
        self.started = False
        self.ended = False

    def send(self, status: int, body: bytes, kind: bytes = b"application/json") -> None:
        """A whole answer in one write."""
        headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body))]
        self.started = self.ended = True
        self._connection.write(self._head(status, headers) + body)

    def start(self, status: int, headers: http1.Headers) -> None:
        """The head of a streamed answer: by length when `headers` has one, else in chunks.

        It leaves with the first piece, or with `flush`.
        """
        bodiless = status in (204, 304) or self._connection.method == b"HEAD"
        if not bodiless and http1.header(headers, b"content-length") is None:
            self._chunked = True
            headers = [*headers, (b"transfer-encoding", b"chunked")]
        self._unsent = self._head(status, headers)
        self.started = True

    def flush(self) -> None:
        """Sends the head now: its first piece may be long in coming."""
        unsent, self._unsent = self._unsent, b""
        self._connection.write(unsent)

    def write(self, data: bytes) -> bool:
        """Writes one piece at once. False: the client is slow, wait in `drain` before the next."""
        piece = http1.chunk(data) if self._chunked else data
        if self._unsent:
            piece, self._unsent = self._unsent + piece, b""
        self._connection.write(piece)
        return not self._connection.blocked

    async def drain(self) -> None:
        """Waits until the client has taken enough."""
        await self._connection.drain()

    def end(self, data: bytes = b"") -> None:
        """Ends a streamed answer in good order, with a last piece."""
        piece = http1.chunk(data) if self._chunked and data else data
        rest = self._unsent + piece + (http1.LAST_CHUNK if self._chunked else b"")
        self._unsent = b""
        if rest:
            self._connection.write(rest)
        self.ended = True

    def _head(self, status: int, headers: http1.Headers) -> bytes:
        last = (b"connection", b"close") if self._connection.last else (b"connection", b"keep-alive")
        return http1.encode_head(b"HTTP/1.1 %d %b" % (status, REASONS.get(status, b"Status")), [*headers, last])


class HttpServer:
    """Listens at `unix:/path` (mode 0600) or `http://host:port`, or on a given socket."""

    def __init__(self, handler: Handler, failed: Callable[[BaseException], None], max_connections: int) -> None:
        """`failed` is told of an error that no handler should let out; its client got a 500 or a broken stream."""
        self._handler = handler
        self._failed = failed
        self._max_connections = max_connections
        self._serving = Serving(self._run, self._joined, self._left, memoryview(bytearray(SCRATCH)))
        self._connections: set[HttpConnection] = set()
        self._server: asyncio.Server | None = None

    async def listen(self, endpoint: str) -> None:
        """Starts to accept. Raises OSError."""
        if endpoint.startswith("unix:"):
            await self.accept(_unix_socket(endpoint[5:]))
            return
        host, _, port = endpoint.removeprefix("http://").rstrip("/").rpartition(":")
        self._server = await asyncio.get_running_loop().create_server(self._make, host, int(port))

    async def accept(self, sock: socket.socket) -> None:
        """Starts to accept on a bound socket, which is closed with the server."""
        loop = asyncio.get_running_loop()
        if sock.family == socket.AF_UNIX:
            self._server = await loop.create_unix_server(self._make, sock=sock)
        else:
            self._server = await loop.create_server(self._make, sock=sock)

    def adopt(self, transport: asyncio.Transport, data: bytes) -> None:
        """Takes over a connection whose reading is paused, and of which `data` has been read."""
        connection = self._make()
        transport.set_protocol(connection)
        connection.connection_made(transport)
        connection.adopt(data)

    async def _run(self, head: http1.RequestHead, connection: HttpConnection) -> bool:
        request, answer = Request(head, connection), Answer(connection)
        try:
            await self._handler(request, answer)
        except BodyTooLarge:
            connection.last = True
            if not answer.started:
                answer.send(413, b'{"error":"too_large"}')
        except ConnectionError:
            return False
        except Exception as error:
            # The outermost frame of a request: whatever went wrong ends this request and no other.
            self._failed(error)
            connection.last = True
            if not answer.started:
                answer.send(500, b'{"error":"internal"}')
        return answer.ended

    def _make(self) -> HttpConnection:
        return HttpConnection(self._serving)

    def _joined(self, connection: HttpConnection) -> bool:
        if len(self._connections) >= self._max_connections:
            return False
        self._connections.add(connection)
        return True

    def _left(self, connection: HttpConnection) -> None:
        self._connections.discard(connection)

    async def close(self, seconds: float = 1.0) -> None:
        """Stops to accept, ends all connections, waits for their handlers at most `seconds`."""
        if self._server is not None:
            self._server.close()
        tasks = [each.task for each in self._connections if each.task is not None]
        for connection in list(self._connections):
            connection.abort()
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)


def _unix_socket(path: str) -> socket.socket:
    with suppress(FileNotFoundError):
        os.unlink(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    sock.bind(path)
    # Nobody can connect before `listen`, so the wide mode of this instant lets nobody in.
    os.chmod(path, 0o600)
    return sock
