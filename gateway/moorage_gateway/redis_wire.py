"""The wire below `LedgerClient`: a few connections, each with one batch of commands in flight. Layer: I/O rim of the gateway.

Packing and reading replies is hiredis' work, addresses and credentials are read by redis-py; between the two there is no task and no
stream: a batch costs one write, its replies call back (decisions/0010 has the figures). RESP2, so a reply is bytes, int, list or None.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, cast

import hiredis
import redis.asyncio as aioredis
from redis.asyncio.connection import SSLConnection, UnixDomainSocketConnection

Command: TypeAlias = tuple[Any, ...]
Landed: TypeAlias = Callable[[list[Any] | None, Exception | None], None]

_NOT_YET = object()


class WireLost(ConnectionError):
    """The connection broke, or never came to be: whether a command was executed is not known."""


class Wire(asyncio.Protocol):
    """One connection. Whoever gave a batch gets its replies, or one exception, in one call; errors of single commands are replies."""

    def __init__(self) -> None:
        self._reader = hiredis.Reader(notEnoughData=_NOT_YET)
        self._transport: asyncio.Transport | None = None
        self._landed: Landed | None = None
        self._replies: list[Any] = []
        self._awaited = 0
        self.closed = False

    def send(self, commands: Sequence[Command], landed: Landed) -> None:
        """Sends a batch; `landed` is called once. TypeError when a command holds what Redis does not know; then nothing was sent."""
        assert self._landed is None and self._transport is not None
        data = b"".join([hiredis.pack_command(command) for command in commands])
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
        except hiredis.ProtocolError as fault:
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


async def dial(redis: aioredis.Redis, timeout: float) -> Wire:
    """A connection to where `redis` would connect, authenticated, on its database. Raises OSError, TimeoutError, WireLost."""
    pool = redis.connection_pool
    given, kind = pool.connection_kwargs, pool.connection_class
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(timeout):
        if issubclass(kind, UnixDomainSocketConnection):
            _, wire = await loop.create_unix_connection(Wire, given["path"])
        else:
            tls = kind(**given).ssl_context.get() if issubclass(kind, SSLConnection) else None
            transport, wire = await loop.create_connection(
                Wire, given.get("host", "localhost"), given.get("port", 6379), ssl=tls
            )
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        greeting = _greeting(given)
        try:
            for reply in await _ask(wire, greeting) if greeting else ():
                if isinstance(reply, Exception):
                    raise WireLost(f"Redis refused the connection: {reply}")
        except BaseException:
            wire.drop(WireLost("never greeted"))
            raise
    return wire


def _greeting(given: dict[str, Any]) -> list[Command]:
    greeting: list[Command] = []
    if given.get("password") is not None:
        user = (given["username"],) if given.get("username") else ()
        greeting.append(("AUTH", *user, given["password"]))
    if given.get("db"):
        greeting.append(("SELECT", given["db"]))
    return greeting


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
