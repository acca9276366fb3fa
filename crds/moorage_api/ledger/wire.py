"""The wire below `client`: a few connections, each with one batch of commands in flight. Layer: the floor; stdlib, I/O.

Packing and reading replies is hiredis' work (`Speech`), addresses and credentials are read by redis-py (`Address`): whoever has them
hands them in. Between the two there is no task and no stream: a batch costs one write, its replies call back (decisions/0010 has the
figures). RESP2, so a reply is bytes, int, list or None.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, cast

Command: TypeAlias = tuple[Any, ...]
Landed: TypeAlias = Callable[[list[Any] | None, Exception | None], None]

_NOT_YET = object()


class WireLost(ConnectionError):
    """The connection broke, or never came to be: whether a command was executed is not known."""


class Reader(Protocol):
    """Takes replies apart as their bytes arrive."""

    def feed(self, data: bytes, /) -> object: ...
    def gets(self) -> Any: ...


@dataclass(frozen=True)
class Speech:
    """RESP2. `reader`: a fresh one, given what its `gets` is to say while no reply is whole; `malformed`: what it raises for bytes that are
    no reply; `refusal`: what stands, not raised, for a command that was answered with an error."""

    pack: Callable[[Command], bytes]
    reader: Callable[[object], Reader]
    malformed: type[Exception]
    refusal: type[Exception]


@dataclass(frozen=True)
class Address:
    """Where a server is: the `path` of its socket, else `host`, `port` and perhaps `tls`; `greeting`: what is said first."""

    path: str = ""
    host: str = "localhost"
    port: int = 6379
    tls: ssl.SSLContext | None = None
    greeting: tuple[Command, ...] = ()

    @classmethod
    def of(cls, given: Mapping[str, Any], tls: ssl.SSLContext | None) -> Address:
        """`given`: the arguments of a connection, as redis-py reads them out of a URL."""
        greeting: list[Command] = []
        if given.get("password") is not None:
            user = (given["username"],) if given.get("username") else ()
            greeting.append(("AUTH", *user, given["password"]))
        if given.get("db"):
            greeting.append(("SELECT", given["db"]))
        if given.get("path"):
            return cls(path=str(given["path"]), greeting=tuple(greeting))
        return cls("", given.get("host", "localhost"), given.get("port", 6379), tls, tuple(greeting))


class Wire(asyncio.Protocol):
    """One connection. Whoever gave a batch gets its replies, or one exception, in one call; errors of single commands are replies."""

    def __init__(self, speech: Speech) -> None:
        self._reader = speech.reader(_NOT_YET)
        self._pack, self._malformed = speech.pack, speech.malformed
        self._transport: asyncio.Transport | None = None
        self._landed: Landed | None = None
        self._replies: list[Any] = []
        self._awaited = 0
        self.closed = False

    def send(self, commands: Sequence[Command], landed: Landed) -> None:
        """Sends a batch; `landed` is called once. TypeError when a command holds what Redis does not know; then nothing was sent."""
        assert self._landed is None and self._transport is not None
        data = b"".join([self._pack(command) for command in commands])
        self._landed, self._awaited = landed, len(commands)
        self._transport.write(data)

    def drop(self, fault: Exception) -> None:
        """Closes at once: replies that come late belong to nobody."""
        self.closed = True
        if self._transport is not None:
            self._transport.abort()
        self._land(None, fault)

    # -- called by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are none of asyncio's own classes

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not _NOT_YET:
                self._replies.append(reply)
        except self._malformed as fault:
            self.drop(WireLost(f"Redis answered with what is no reply: {fault}"))
            return
        if len(self._replies) >= self._awaited:
            if self._landed is None or len(self._replies) > self._awaited:
                self.drop(WireLost("Redis answered what nobody asked"))
                return
            replies, self._replies = self._replies, []
            self._land(replies, None)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._land(None, WireLost(f"the connection to Redis was lost: {exc or 'closed by the server'}"))

    def _land(self, replies: list[Any] | None, fault: Exception | None) -> None:
        landed, self._landed = self._landed, None
        if landed is not None:
            landed(replies, fault)


async def dial(address: Address, speech: Speech, timeout: float) -> Wire:
    """A connection, authenticated, on its database. Raises OSError, TimeoutError, WireLost."""
    loop = asyncio.get_running_loop()

    def make() -> Wire:
        return Wire(speech)

    async with asyncio.timeout(timeout):
        if address.path:
            _, wire = await loop.create_unix_connection(make, address.path)
        else:
            transport, wire = await loop.create_connection(make, address.host, address.port, ssl=address.tls)
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        try:
            for reply in await _ask(wire, address.greeting) if address.greeting else ():
                if isinstance(reply, Exception):
                    raise WireLost(f"Redis refused the connection: {reply}")
        except BaseException:
            wire.drop(WireLost("never greeted"))
            raise
    return wire


async def _ask(wire: Wire, commands: Sequence[Command]) -> list[Any]:
    answer: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()

    def landed(replies: list[Any] | None, fault: Exception | None) -> None:
        if answer.done():
            return
        if replies is None:
            answer.set_exception(fault or WireLost("no answer"))
        else:
            answer.set_result(replies)

    wire.send(commands, landed)
    return await answer
