"""The agent's door: on loopback inside the sandbox's network, a proxy to the gateway's egress port, and the way to models.

Layer: I/O rim. Decides nothing about hosts: it adds the sandbox's proof, which the agent never sees, and then moves bytes. The
egress port resolves, decides and connects (design.md §6). A request for the door itself goes to `boundary.py`.

    Door
      └─ _Client  ⇄  _Upstream      two protocols that write into each other, reading paused while the other is slow
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable
from typing import cast

from moorage_api.wire import http1
from moorage_sandbox.errors import NoProof
from moorage_sandbox.prompt import end_to_end
from moorage_sandbox.proof import Proof
from moorage_sandbox.server import HttpServer

MAX_HEAD = 16 * 1024
HEAD_SECONDS = 10.0
CONNECT_SECONDS = 10.0
IDLE_SECONDS = 1800.0
"""A tunnel in which nothing moved for this long is closed."""
HIGH_WATER = 128 * 1024
_AUTHORITY = re.compile(rb"(?:[A-Za-z0-9_.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]):[0-9]{1,5}\Z")
_ABSOLUTE = re.compile(rb"http://[A-Za-z0-9_.:\[\]-]{1,260}(?:[/?][\x21-\x7e]*)?\Z")


class _End(asyncio.Protocol):
    """One end of a splice."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.other: _End | None = None
        self.moved = asyncio.get_running_loop().time()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)  # uvloop's are none of asyncio's own classes
        self.transport = transport
        transport.set_write_buffer_limits(high=HIGH_WATER)

    def data_received(self, data: bytes) -> None:
        self.moved = asyncio.get_running_loop().time()
        if self.other is not None and self.other.transport is not None:
            self.other.transport.write(data)

    def eof_received(self) -> bool:
        other = None if self.other is None else self.other.transport
        if other is not None and other.can_write_eof() and not other.is_closing():
            other.write_eof()
            return True  # the other direction may go on
        return False

    def pause_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        other = None if self.other is None else self.other.transport
        if other is not None:
            other.close()


class _Client(_End):
    """The agent's side: reads one head, then is spliced to the egress port."""

    def __init__(self, door: Door) -> None:
        super().__init__()
        self._door = door
        self._held = b""
        self._opening: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if not self._door.joined(self):
            self.refuse(503, b"too many connections")
            return
        self._timer = asyncio.get_running_loop().call_later(HEAD_SECONDS, self.refuse, 408, b"no request")

    def data_received(self, data: bytes) -> None:
        if self.other is not None:
            super().data_received(data)
            return
        self._held += data
        if self._opening is not None:
            return
        stop = self._held.find(b"\r\n\r\n")
        if stop < 0 or stop > MAX_HEAD:
            if len(self._held) > MAX_HEAD:
                self.refuse(431, b"head too large")
            return
        try:
            head = http1.request_head(self._held[: stop + 2])
            opening = self._door.opening(head)
        except http1.BadMessage as error:
            self.refuse(400, str(error).encode())
            return
        except NoProof as fault:
            self._door.note(f"no connection to the egress port: {fault}")
            self.refuse(503, b"this sandbox cannot prove itself to the platform now")
            return
        assert self.transport is not None
        if opening is None:
            self._hand_over(self._door.server)
            return
        self._held = self._held[stop + 4 :]
        self.transport.pause_reading()
        if self._timer is not None:
            self._timer.cancel()
        self._opening = asyncio.get_running_loop().create_task(self._open(opening))

    def _hand_over(self, server: HttpServer | None) -> None:
        """No proxy request: from here the connection is the server's."""
        if server is None:
            self.refuse(404, b"nothing here: this is a proxy")
            return
        transport, self.transport = self.transport, None
        assert transport is not None
        if self._timer is not None:
            self._timer.cancel()
        transport.pause_reading()
        self._door.left(self)
        server.adopt(transport, self._held)

    async def _open(self, opening: bytes) -> None:
        upstream = await self._door.connect()
        if self.transport is None:
            if upstream is not None and upstream.transport is not None:
                upstream.transport.abort()
            return
        if upstream is None or upstream.transport is None:
            self.refuse(502, b"the egress port of the platform does not answer")
            return
        upstream.transport.write(opening + self._held)
        self._held = b""
        self.other, upstream.other = upstream, self
        self.transport.resume_reading()
        self._watch()

    def _watch(self) -> None:
        """Closes a tunnel in which nothing moves."""
        loop = asyncio.get_running_loop()
        last = max(self.moved, 0 if self.other is None else self.other.moved)
        left = last + IDLE_SECONDS - loop.time()
        if left <= 0 and self.transport is not None:
            self.transport.abort()
        else:
            self._timer = loop.call_later(max(left, 1.0), self._watch)

    def refuse(self, status: int, reason: bytes) -> None:
        """Says no and closes."""
        if self.transport is not None and not self.transport.is_closing():
            headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(reason))]
            head = http1.encode_head(b"HTTP/1.1 %d Refused" % status, [*headers, (b"connection", b"close")])
            self.transport.write(head + reason)
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._timer is not None:
            self._timer.cancel()
        self._door.left(self)

    @property
    def opening(self) -> asyncio.Task[None] | None:
        """The task that connects to the egress port."""
        return self._opening


class Door:
    """Accepts the agent's connections on the listener that init opened inside the sandbox."""

    def __init__(
        self,
        egress: str | None,
        proof: Proof,
        *,
        max_connections: int,
        note: Callable[[str], None],
        server: HttpServer | None = None,
    ) -> None:
        """`server` takes the requests for the door itself; without one there is nothing but the proxy."""
        self.server = server
        self._egress = egress
        self._proof = proof
        self._max_connections = max_connections
        self.note = note
        self._clients: set[_Client] = set()
        self._server: asyncio.Server | None = None

    async def open(self, listener: socket.socket) -> None:
        """Starts to accept."""
        listener.setblocking(False)
        self._server = await asyncio.get_running_loop().create_server(lambda: _Client(self), sock=listener)

    async def close(self) -> None:
        """Stops to accept and ends every tunnel."""
        if self._server is not None:
            self._server.close()
        if self.server is not None:
            await self.server.close()
        openings = [each.opening for each in self._clients if each.opening is not None]
        for task in openings:
            task.cancel()
        for client in list(self._clients):
            if client.transport is not None:
                client.transport.abort()
        await asyncio.gather(*openings, return_exceptions=True)

    def opening(self, head: http1.RequestHead) -> bytes | None:
        """What to say to the egress port for this request, None when it is no proxy request. Raises BadMessage, NoProof."""
        if head.method == b"CONNECT":
            if _AUTHORITY.match(head.target) is None:
                raise http1.BadMessage("CONNECT needs host:port")
            line = b"CONNECT %b HTTP/1.1" % head.target
            return http1.encode_head(line, [(b"host", head.target), *self._shown()])
        if not head.target.startswith(b"http://"):
            return None
        if _ABSOLUTE.match(head.target) is None:
            raise http1.BadMessage("malformed absolute target")
        http1.request_body(head)  # refuses an ambiguous framing
        kept = end_to_end(head.headers)
        framing = [each for each in head.headers if each[0] == b"transfer-encoding"]
        # One request a connection: a second one would pass without the proof.
        last = [*self._shown(), (b"connection", b"close")]
        return http1.encode_head(b"%b %b HTTP/1.1" % (head.method, head.target), [*kept, *framing, *last])

    def _shown(self) -> http1.Headers:
        return self._proof.headers(b"proxy-authorization")

    async def connect(self) -> _End | None:
        """A connection to the egress port; None when there is none to have."""
        if self._egress is None:
            return None
        host, _, port = self._egress.rpartition(":")
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                _, upstream = await asyncio.get_running_loop().create_connection(_End, host, int(port))
        except OSError as error:  # TimeoutError is one
            self.note(f"the egress port does not answer: {error}")
            return None
        return upstream

    def joined(self, client: _Client) -> bool:
        """Counts a client in; False when there are too many."""
        if len(self._clients) >= self._max_connections:
            return False
        self._clients.add(client)
        return True

    def left(self, client: _Client) -> None:
        """Counts a client out."""
        self._clients.discard(client)
