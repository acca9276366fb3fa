"""The checkpoint calls of a gateway's sandbox port in memory, with faults at a chosen call. Limits: one session, nobody is identified;
every announcement is fine, and is not counted.

It serves in the test's own loop: the work of a shim's child is forked from here, and a thread of ours would not be there, nor let go of its
locks.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from moorage_api.wire import checkpoints as wire
from moorage_api.wire.checkpoints import Checkpoint, Offered

Fault = Callable[[int, str, str], "int | None | Awaitable[int | None]"]
"""(number of the call, method, path) → a status to answer instead, 0 to cut the connection, None to serve."""


class CheckpointGateway:
    """`calls` are those that came, `blobs` what is stored, `made` the checkpoints in order. Enter it to serve."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.made: list[Checkpoint] = []
        self.calls: list[tuple[str, str]] = []
        self.fault: Fault = lambda number, method, path: None
        self.url = ""
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> CheckpointGateway:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *about: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def puts(self) -> list[str]:
        """Names of the packs that were put."""
        return [path.rpartition("/")[2] for method, path in self.calls if method == "PUT" and "/packs/" in path]

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while await self._serve(reader, writer):
                continue
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            return
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; False when the connection is to be cut."""
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
        method, path, _ = first.split(" ")
        length = next((int(line.partition(":")[2]) for line in lines if line.lower().startswith("content-length:")), 0)
        body = await reader.readexactly(length)
        if path == "/sandbox/v1/announce":
            await _send(writer, 200, b'{"ok":true,"epoch":0,"gateways":[]}')
            return True
        self.calls.append((method, path))
        found = self.fault(len(self.calls), method, path)
        fault = await found if inspect.isawaitable(found) else found
        if fault == 0:
            return False
        await _send(writer, *((fault, b"{}") if fault is not None else self._answer(method, path, body)))
        return True

    def _answer(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        name = path.removeprefix(wire.PATH + "/")
        if method == "PUT":
            assert wire.digest(body) == name.rpartition("/")[2]
            self.blobs[name] = body
            return 200, b"{}"
        if method == "POST":
            offer = Offered.model_validate_json(body)
            needed = [f"packs/{pack.name}" for pack in offer.packs] + [f"manifests/{offer.manifest.name}"]
            if any(one not in self.blobs for one in needed):
                return 409, b"{}"
            self.made.append(Checkpoint(**offer.model_dump(), created=1))
            return 200, self.made[-1].model_dump_json().encode()
        if re.match(r"(packs|manifests)/", name):
            return (200, self.blobs[name]) if name in self.blobs else (404, b"{}")
        turn = name.removeprefix(wire.BEFORE)
        found = [one for one in self.made if one.id == name or (turn != name and one.before == turn)]
        return (200, found[-1].model_dump_json().encode()) if found else (404, json.dumps({"error": "none"}).encode())


async def _send(writer: asyncio.StreamWriter, status: int, data: bytes) -> None:
    writer.write(b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%b" % (status, len(data), data))
    await writer.drain()


@pytest.fixture
async def gateway() -> AsyncIterator[CheckpointGateway]:
    """One that serves."""
    async with CheckpointGateway() as made:
        yield made
