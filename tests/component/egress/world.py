"""An egress proxy over real sockets, with the names and the wire behind it played: every public address is the local echo server."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from moorage_api import tokens
from moorage_api.catalog import AgentEntry
from moorage_api.pod_tokens import PodTokens
from moorage_gateway.boundary.proofs import Proofs
from moorage_gateway.clock import SystemClock
from moorage_gateway.egress import connecting, proxy
from moorage_gateway.egress.budgets import Bounds
from moorage_gateway.egress.rules import Target

KEY = "ab" * 32
TOKEN = tokens.sign(tokens.Identity("sb-1", "acme", "hello", "rev1", "vol-1"), KEY)
EGRESS = ["echo.example", "*.wild.example", "ported.example:9443", "package-index", "rebind.example", "mixed.example"]


class Catalog:
    token_key: str | None = KEY
    pod_tokens: PodTokens | None = None

    def get(self, tenant: str, agent: str) -> AgentEntry | None:
        if (tenant, agent) != ("acme", "hello"):
            return None
        return AgentEntry(tenant, agent, (), frozenset(), "moorage", {"egress": EGRESS})


class Names:
    def __init__(self) -> None:
        self.asked: list[str] = []
        self.known: dict[str, list[str]] = {}

    async def resolve(self, host: str) -> list[str]:
        self.asked.append(host)
        if host not in self.known:
            raise OSError("no such name")
        return self.known[host]

    def close(self) -> None:
        """Nothing is held."""


class Wire:
    """Connects every public address to the local echo server, and notes which address was asked for."""

    def __init__(self) -> None:
        self.port = 0
        self.asked: list[tuple[str, int]] = []
        self.dead: set[str] = set()

    async def connect(self, address: str, port: int) -> connecting.Streams:
        self.asked.append((address, port))
        if address in self.dead:
            raise ConnectionRefusedError
        return await asyncio.open_connection("127.0.0.1", self.port)


class World:
    def __init__(self, *, session: Bounds | None = None, **limits: Any) -> None:
        self.recorded: list[tuple[str, str, str, str]] = []
        self.catalog, self.names, self.wire = Catalog(), Names(), Wire()
        self.proxy = proxy.EgressProxy(
            self.catalog,
            Proofs(self.catalog, SystemClock()),
            SystemClock(),
            named={"package-index": frozenset({Target("index.example", 443)})},
            own=proxy.Own(
                self._look, frozenset({Target("git.example", 443)}), lambda *said: self.recorded.append(said)
            ),
            resolver=self.names,
            connector=self.wire,
            limits=proxy.EgressLimits(**{"head": 2.0, "session": session or Bounds(), **limits}),
        )
        self.received = b""
        self.first = b""
        self.looked = 0
        self.port = 0
        self._server: asyncio.Server | None = None

    async def _look(self) -> None:
        self.looked += 1

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._echo, "127.0.0.1", 0)
        self.wire.port = self._server.sockets[0].getsockname()[1]
        self.port = await self.proxy.start("127.0.0.1", 0)
        for host in ("echo.example", "a.wild.example", "ported.example"):
            self.names.known[host] = ["93.184.215.14"]

    async def _echo(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            writer.write(self.first)
            while data := await reader.read(65536):
                self.received += data
                writer.write(data)
                await writer.drain()
            writer.write(b"<end>")
            writer.close()

    async def open(self) -> connecting.Streams:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def say(self, head: bytes) -> bytes:
        reader, writer = await self.open()
        writer.write(head)
        writer.write_eof()
        async with asyncio.timeout(10):
            answer = await reader.read()
        writer.close()
        return answer

    async def connect(self, target: str, token: str | None = TOKEN) -> bytes:
        authorization = f"Proxy-Authorization: Bearer {token}\r\n" if token else ""
        return await self.say(f"CONNECT {target} HTTP/1.1\r\n{authorization}\r\n".encode())

    async def tunnel(self, target: str = "ported.example:9443") -> connecting.Streams:
        reader, writer = await self.open()
        writer.write(f"CONNECT {target} HTTP/1.1\r\nProxy-Authorization: Bearer {TOKEN}\r\n\r\n".encode())
        async with asyncio.timeout(5):
            assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
        return reader, writer

    async def aclose(self) -> None:
        await self.proxy.aclose()
        assert self._server is not None
        self._server.close()


async def until(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)
