"""A listener inside a running event loop: one ASGI app on a port, a unix socket or an inherited socket. Layer: gateway, transport.

`app.py` makes one per port. No signals, no lifespan and no process of its own, because the gateway also runs inside the local
platform's process. Draining: stop accepting, close idle connections, let running answers end, then cancel what is left.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any

from uvicorn import Config
from uvicorn.server import ServerState

from moorage_api.errors import Kind
from moorage_gateway.connection import Connection

BACKLOG = 2048
SWEEP_SECONDS = 1.0
CANCEL_SECONDS = 5.0

Asgi = Callable[[Any, Any, Any], Awaitable[None]]


@dataclass(frozen=True)
class ConnectionLimits:
    """Bounds of every connection of a listener; the units and reasons stand in `settings.py` under the same names."""

    header_bytes: int = 32 * 1024
    header_count: int = 100
    header_seconds: float = 10.0
    body_floor: int = 1024
    body_grace: float = 10.0
    keep_alive_seconds: float = 75.0
    slow_reader_seconds: float = 60.0
    stream_buffer: int = 256 * 1024
    max_connections: int = 10_000
    client_connections: int = 4_096


class Listener:
    """Serves `app`. `start` binds and accepts; `drain` ends gracefully; `close` at once. Belongs to one event loop."""

    def __init__(
        self,
        app: Asgi,
        limits: ConnectionLimits,
        *,
        name: str,
        on_refused: Callable[[Kind], None] | None = None,
        sweep_seconds: float = SWEEP_SECONDS,
    ) -> None:
        self.name = name
        self.limits = limits
        self.config = Config(
            app,
            interface="asgi3",
            http=Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
        )
        self.config.load()
        self.state = ServerState()
        self._on_refused = on_refused
        self._sweep_seconds = sweep_seconds
        self._by_client: Counter[str] = Counter()
        self._server: asyncio.Server | None = None
        self._port = 0
        self._sweeper: asyncio.Task[None] | None = None
        self._released = asyncio.Event()

    async def start(
        self, *, host: str | None = None, port: int = 0, path: str | None = None, fd: int | None = None
    ) -> None:
        """Binds and accepts. One of (host, port), a unix socket `path`, or the `fd` of a bound socket. Raises OSError."""
        loop = asyncio.get_running_loop()

        def connect() -> Connection:
            return Connection(self, loop)

        self._refresh_date()
        if path is not None:
            self._server = await loop.create_unix_server(connect, path=path, backlog=BACKLOG)
        elif fd is not None:
            self._server = await loop.create_server(connect, sock=socket.socket(fileno=fd), backlog=BACKLOG)
        else:
            self._server = await loop.create_server(connect, host=host, port=port, backlog=BACKLOG)
        if path is None:
            self._port = int(self._server.sockets[0].getsockname()[1])
        self._sweeper = loop.create_task(self._sweep(), name=f"sweep-{self.name}")

    @property
    def port(self) -> int:
        """The bound TCP port; still told after the listener closed, to whoever makes its last calls."""
        return self._port

    @property
    def connections(self) -> int:
        """Open connections."""
        return len(self.state.connections)

    def admit(self, client: tuple[str, int] | None) -> bool:
        """Counts a new connection in; False when it is one too many."""
        limits = self.limits
        if client is not None:
            self._by_client[client[0]] += 1
            if limits.client_connections and self._by_client[client[0]] > limits.client_connections:
                return False
        return len(self.state.connections) <= limits.max_connections

    def release(self, client: tuple[str, int] | None) -> None:
        """Counts a connection out."""
        self._released.set()
        if client is not None:
            self._by_client[client[0]] -= 1
            if self._by_client[client[0]] <= 0:
                del self._by_client[client[0]]

    def refused(self, kind: Kind) -> None:
        """A request was answered below the app."""
        if self._on_refused is not None:
            self._on_refused(kind)

    async def drain(self, grace: float) -> None:
        """Stops accepting, then waits up to `grace` seconds for running answers; what is left after it is cancelled."""
        self._stop_accepting()
        for connection in list(self.state.connections):
            connection.shutdown()
        await self._until_quiet(grace)
        await self.close()

    async def close(self) -> None:
        """Ends everything now. Safe to call twice."""
        self._stop_accepting()
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.wait([self._sweeper])
            self._sweeper = None
        for connection in list(self.state.connections):
            if (transport := getattr(connection, "transport", None)) is not None:
                transport.abort()
        tasks = [task for task in self.state.tasks if not task.done()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=CANCEL_SECONDS)
        await self._until_quiet(1.0)

    def _stop_accepting(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _until_quiet(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                while self.state.connections:
                    self._released.clear()
                    await self._released.wait()
                if self.state.tasks:
                    await asyncio.wait(self.state.tasks)
        except TimeoutError:
            return

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        last = loop.time()
        while True:
            await asyncio.sleep(self._sweep_seconds)
            now = loop.time()
            self._refresh_date()
            for connection in list(self.state.connections):
                if isinstance(connection, Connection):
                    connection.sweep(now, now - last)
            last = now

    def _refresh_date(self) -> None:
        self.state.default_headers = [(b"date", formatdate(time.time(), usegmt=True).encode())]
