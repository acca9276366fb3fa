"""Names to addresses, and connections to those: the machine's own, behind two doors. Layer: I/O.

A name is looked up once a request; what was judged of the answer is a literal, and that very literal is connected to.
"""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Resolver(Protocol):
    """Names to addresses."""

    async def resolve(self, host: str) -> list[str]:
        """Literal addresses, best first. Raises OSError."""

    def close(self) -> None:
        """Frees what it holds."""


class Connector(Protocol):
    """Opens a connection to a literal address."""

    async def connect(self, address: str, port: int) -> Streams:
        """Raises OSError."""


class SystemResolver:
    """The machine's own resolver, on threads of its own: a name server that never answers holds up nothing else."""

    def __init__(self, *, workers: int = 8, waiting: int = 64) -> None:
        self._pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="egress-resolver")
        self._room = workers + waiting
        self._asked = 0

    async def resolve(self, host: str) -> list[str]:
        """See `Resolver`."""
        if self._asked >= self._room:
            raise OSError("too many names are being looked up")
        self._asked += 1
        future = asyncio.get_running_loop().run_in_executor(self._pool, self._look_up, host)
        future.add_done_callback(self._answered)
        return await asyncio.shield(future)

    def close(self) -> None:
        """Look-ups that still run end by themselves."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _look_up(self, host: str) -> list[str]:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        return [str(sockaddr[0]) for _, _, _, _, sockaddr in found[:32]]

    def _answered(self, future: asyncio.Future[list[str]]) -> None:
        self._asked -= 1
        if not future.cancelled():
            future.exception()  # read, so that an answer nobody waits for any more does not warn


class SystemConnector:
    """TCP from this machine."""

    def __init__(self, buffer: int = 64 * 1024) -> None:
        self._buffer = buffer

    async def connect(self, address: str, port: int) -> Streams:
        """See `Connector`. The address is a literal: nothing is resolved again."""
        return await asyncio.open_connection(address, port, limit=self._buffer, flags=socket.AI_NUMERICHOST)
