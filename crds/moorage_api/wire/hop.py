"""The HTTP/1.1 client of the sandbox hop: gateway → shim, shim → agent, shim → gateway; and of the operator. Layer: the floor; stdlib only.

    HopPool                   keep-alive connections by endpoint: `unix:/path`, `http://host:port`, `https:` too, or a connector's own
      └─ HopConnection        one connection, one exchange at a time (exchange.py)
           └─ HopResponse     status, headers, body as it arrives: a piece a read and a chunk, never merged

Rejected: aiohttp and httpx, which cost five to forty times the CPU (performance.md §3).
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from urllib.parse import urlsplit

from moorage_api.wire import http1
from moorage_api.wire.exchange import SCRATCH, HopConnection, HopError, HopTimeout, RequestBody

__all__ = ["Connector", "HopError", "HopPool", "HopResponse", "HopTimeout"]

MAX_CONNECTIONS_IDLE = 1024
"""Idle connections of one pool over all endpoints."""
WRITE_HIGH_WATER = 192 * 1024
"""Bytes of a request body waiting to leave before its source is paused."""

Connector = Callable[[str], Awaitable[socket.socket]]
"""Gives a connected, non-blocking stream socket for an endpoint, or raises OSError."""


class HopResponse:
    """An answer whose head is here and whose body may still be coming. Whoever holds it must `aclose` it."""

    __slots__ = ("_connection", "_pool_key", "_release", "headers", "status")

    def __init__(self, connection: HopConnection, key: str, release: Callable[[str, HopConnection], None]) -> None:
        self._connection: HopConnection | None = connection
        self._pool_key = key
        self._release = release
        self.status = connection.head.status
        self.headers = connection.head.headers

    def header(self, name: bytes) -> bytes | None:
        """The first value of a header (lower-case name), or None."""
        return http1.header(self.headers, name)

    @property
    def arrived(self) -> bool:
        """`next_chunk` would not wait: a piece is here, or the end."""
        return self._connection is None or self._connection.waiting > 0 or self._connection.complete

    @property
    def exhausted(self) -> bool:
        """The whole body has been read."""
        return self._connection is None or (self._connection.complete and self._connection.waiting == 0)

    async def next_chunk(self, *, idle: float | None = None) -> bytes:
        """The next piece as it arrived, empty at the end. `idle` is the longest silence; HopError on a break."""
        if self._connection is None:
            return b""
        piece = await self._connection.piece(idle)
        if not piece:
            self._give_back()
        return piece

    async def pour(self, sink: Callable[[bytes], bool], *, idle: float) -> None:
        """Every piece of the body goes to `sink` as it arrives, up to the end; see `HopConnection.pour`."""
        if self._connection is not None:
            await self._connection.pour(sink, idle)
            self._give_back()

    def resume(self) -> None:
        """A sink that said it had enough takes more."""
        if self._connection is not None:
            self._connection.resume()

    async def chunks(self, *, idle: float | None = None) -> AsyncIterator[bytes]:
        """The body as it arrives, nothing merged."""
        while piece := await self.next_chunk(idle=idle):
            yield piece

    async def read(self, limit: int, *, idle: float | None = None) -> bytes:
        """The whole body; HopError when it is longer than `limit` bytes."""
        parts: list[bytes] = []
        size = 0
        while piece := await self.next_chunk(idle=idle):
            parts.append(piece)
            size += len(piece)
            if size > limit:
                await self.aclose()
                raise HopError(f"the answer is longer than {limit} bytes", sent=True)
        return b"".join(parts)

    async def aclose(self) -> None:
        """Ends the exchange; the connection is kept only if the body has wholly arrived."""
        connection = self._connection
        self._give_back()
        if connection is not None:
            await connection.settle()

    def _give_back(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._release(self._pool_key, connection)

    async def __aenter__(self) -> HopResponse:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()


class HopPool:
    """Keep-alive connections by endpoint. Belongs to one event loop; `close` it when its owner ends.

    `tls`: for `https:` endpoints, none of which is met without; `server_name`: of their certificates, where that is not the host's.
    """

    def __init__(
        self,
        *,
        max_idle: int = 32,
        idle_seconds: float = 20,
        connector: Connector | None = None,
        tls: ssl.SSLContext | None = None,
        server_name: str | None = None,
    ) -> None:
        self._max_idle = max_idle
        self._idle_seconds = idle_seconds
        self._connector = connector
        self._tls = tls
        self._server_name = server_name
        self._idle: dict[str, list[HopConnection]] = {}
        self._count = 0
        self._sweep: asyncio.TimerHandle | None = None
        # One scratch for all: a read and its parsing are one synchronous step, so no two connections use it at once.
        self._scratch = memoryview(bytearray(SCRATCH))

    async def request(
        self,
        endpoint: str,
        method: str,
        target: str,
        headers: http1.Headers,
        body: RequestBody,
        *,
        connect_timeout: float,
        head_timeout: float,
        retry_stale: bool = True,
    ) -> HopResponse:
        """Sends a request; returns with the head of its answer. Raises HopError.

        A kept connection that dies before any byte of the answer is replaced once, if the body can be sent again; say
        `retry_stale=False` where the other end must never see a request twice.
        """
        head, length = _encode(endpoint, method, target, headers, body)
        connection = self._take(endpoint)
        sent = False
        if connection is not None:
            replay = retry_stale and (body is None or isinstance(body, bytes))
            try:
                await connection.exchange(method, head, body, length=length, timeout=head_timeout)
                return HopResponse(connection, endpoint, self._put)
            except HopTimeout:
                raise
            except HopError:
                if not replay or connection.answered:
                    raise
                sent = True
        try:
            connection = await self._connect(endpoint, connect_timeout)
        except HopError as error:
            error.sent = sent
            raise
        await connection.exchange(method, head, body, length=length, timeout=head_timeout)
        return HopResponse(connection, endpoint, self._put)

    async def close(self) -> None:
        """Closes the idle connections; those in use are their holders'."""
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        for held in list(self._idle.values()):
            for connection in list(held):
                connection.abort()
        self._idle.clear()
        self._count = 0

    def drop(self, endpoint: str) -> None:
        """Forgets the idle connections of an endpoint that is gone."""
        for connection in self._idle.pop(endpoint, []):
            self._count -= 1
            connection.on_closed = None
            connection.abort()

    def _take(self, endpoint: str) -> HopConnection | None:
        held = self._idle.get(endpoint)
        while held:
            connection = held.pop()
            self._count -= 1
            connection.on_closed = None
            if not connection.closed:
                return connection
        return None

    def _put(self, endpoint: str, connection: HopConnection) -> None:
        held = self._idle.setdefault(endpoint, [])
        if len(held) >= self._max_idle or self._count >= MAX_CONNECTIONS_IDLE or not connection.reusable():
            connection.abort()
            if not held:
                del self._idle[endpoint]
            return
        loop = asyncio.get_running_loop()
        connection.idle_since = loop.time()
        connection.on_closed = lambda lost: self._lost(endpoint, lost)
        held.append(connection)
        self._count += 1
        if self._sweep is None:
            self._sweep = loop.call_later(self._idle_seconds, self._expire)

    def _lost(self, endpoint: str, connection: HopConnection) -> None:
        held = self._idle.get(endpoint, [])
        if connection in held:
            held.remove(connection)
            self._count -= 1
            if not held:
                del self._idle[endpoint]

    def _expire(self) -> None:
        loop = asyncio.get_running_loop()
        self._sweep = None
        oldest = loop.time() - self._idle_seconds
        for endpoint, held in list(self._idle.items()):
            # A pool is a stack, so the oldest stand first.
            while held and held[0].idle_since <= oldest:
                connection = held.pop(0)
                self._count -= 1
                connection.on_closed = None
                connection.abort()
            if not held:
                del self._idle[endpoint]
        if self._count:
            self._sweep = loop.call_later(self._idle_seconds / 2, self._expire)

    async def _connect(self, endpoint: str, timeout: float) -> HopConnection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout):
                transport, connection = await self._open(loop, endpoint)
        except TimeoutError as error:
            raise HopTimeout(f"no connection to {endpoint} within {timeout:g} s", sent=False) from error
        except OSError as error:
            raise HopError(f"no connection to {endpoint}: {error}", sent=False) from error
        transport.set_write_buffer_limits(high=WRITE_HIGH_WATER)
        return connection

    async def _open(
        self, loop: asyncio.AbstractEventLoop, endpoint: str
    ) -> tuple[asyncio.WriteTransport, HopConnection]:
        def make() -> HopConnection:
            return HopConnection(self._scratch)

        if self._connector is not None:
            ready = await self._connector(endpoint)
            if self._tls is None or not endpoint.startswith("https:"):
                return await loop.create_connection(make, sock=ready)
            name = self._server_name or urlsplit(endpoint).hostname
            return await loop.create_connection(make, sock=ready, ssl=self._tls, server_hostname=name)
        if endpoint.startswith("unix:"):
            return await loop.create_unix_connection(make, endpoint[5:])
        parts = urlsplit(endpoint)
        if parts.hostname and parts.scheme == "http":
            return await loop.create_connection(make, parts.hostname, parts.port or 80)
        if parts.hostname and parts.scheme == "https" and self._tls is not None:
            name = self._server_name or parts.hostname
            return await loop.create_connection(
                make, parts.hostname, parts.port or 443, ssl=self._tls, server_hostname=name
            )
        raise ValueError(f"not an endpoint: {endpoint!r}")


def _encode(
    endpoint: str, method: str, target: str, headers: http1.Headers, body: RequestBody
) -> tuple[bytes, int | None]:
    """The request's head, and the length it promises (None: chunks). `host` and the framing are added where missing.

    Raises HopError for a target or header that would change the message: nothing was sent.
    """
    lines = list(headers)
    host = promised = None
    for name, value in headers:
        if name == b"host":
            host = value
        elif name == b"content-length":
            promised = value
    if host is None:
        of_url = endpoint.startswith(("http://", "https://"))
        lines.insert(0, (b"host", endpoint.partition("://")[2].rstrip("/").encode() if of_url else b"sandbox"))
    try:
        length = _framing(method, lines, body, promised)
        if " " in target or not target:
            raise http1.BadMessage("a target with a space")
        return http1.encode_head(f"{method} {target} HTTP/1.1".encode("ascii"), lines), length
    except (http1.BadMessage, UnicodeEncodeError) as error:
        raise HopError(f"the request cannot be sent: {error}", sent=False) from error


def _framing(method: str, lines: http1.Headers, body: RequestBody, promised: bytes | None) -> int | None:
    if isinstance(body, bytes) or body is None:
        size = len(body or b"")
        if promised is None:
            if body is not None or method in ("POST", "PUT", "PATCH"):
                lines.append((b"content-length", b"%d" % size))
        elif promised != b"%d" % size:
            raise http1.BadMessage("content-length differs from the body")
        return size
    if promised is None:
        lines.append((b"transfer-encoding", b"chunked"))
        return None
    return http1.length(promised)
