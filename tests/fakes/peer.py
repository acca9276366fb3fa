"""A peer of the sandbox hop on a real unix socket, whose connections follow scripts. Limit: no HTTP of its own, only what is scripted."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Peer:
    """A unix-socket server whose connections follow scripts in turn; the last script serves all later ones."""

    def __init__(self, path: str, *scripts: Script) -> None:
        self.path, self.scripts, self.connections = path, list(scripts), 0
        self.seen: list[bytes] = []
        self.tasks: set[asyncio.Task[None]] = set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        script = self.scripts[min(self.connections, len(self.scripts) - 1)]
        self.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await script(reader, writer)
        writer.close()

    async def __aenter__(self) -> Peer:
        self.server = await asyncio.start_unix_server(self._serve, self.path)
        self.endpoint = f"unix:{self.path}"
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.server.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.server.wait_closed()


async def head(reader: asyncio.StreamReader) -> bytes:
    """Reads one request's head."""
    return await reader.readuntil(b"\r\n\r\n")
