"""The egress proxy: the only way from a sandbox to the outside. Layer: gateway, border to the internet.

One connection: read the head, identify the sandbox, decide by the manifest, resolve, check the addresses, connect to one
of exactly those, pass bytes both ways. Every wait has a deadline, every buffer a bound; a slow side slows the other one down.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from moorage_api.catalog import AgentEntry
from moorage_gateway.boundary.pod_tokens import NotProven
from moorage_gateway.boundary.proofs import NotReady, Proofs
from moorage_gateway.clock import Clock
from moorage_gateway.egress import addresses, requests, rules

log = logging.getLogger("moorage.egress")

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class CatalogDoor(Protocol):
    """What the proxy needs of the catalog."""

    def get(self, tenant: str, agent: str) -> AgentEntry | None:
        """One agent."""


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


@dataclass(frozen=True)
class EgressLimits:
    """Bounds of the proxy. Times in seconds."""

    head: float = 10.0
    resolve: float = 5.0
    connect: float = 10.0
    idle: float = 600.0
    lifetime: float = 8 * 3600.0
    per_sandbox: int = 128  # connections at a time
    total: int = 4096
    resolutions: int = 600  # a sandbox and minute: under a wildcard, names could carry data out
    buffer: int = 64 * 1024
    addresses_tried: int = 4


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


class _Answer(Exception):
    """Ends a request with this status and this line."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


@dataclass(frozen=True)
class Caller:
    """Who asks, and what it may reach. `name` is a sandbox or a build; `trusted` hosts may have private addresses."""

    name: str
    tenant: str
    agent: str
    entries: tuple[str, ...]
    trusted: frozenset[rules.Target] = frozenset()
    build: bool = False


@dataclass(frozen=True)
class Own:
    """More of the platform's own settings. `look` is awaited before one of the named sets is read, and brings them up to date;
    `build_hosts` may have private addresses when a build reaches them."""

    look: Callable[[], Awaitable[None]] | None = None
    build_hosts: frozenset[rules.Target] = frozenset()


class EgressProxy:
    """The server on the egress port. `named` are the platform's own sets of hosts, such as `package-index`."""

    def __init__(
        self,
        catalog: CatalogDoor,
        proofs: Proofs,
        clock: Clock,
        *,
        named: Mapping[str, frozenset[rules.Target]],
        own: Own | None = None,
        resolver: Resolver | None = None,
        connector: Connector | None = None,
        limits: EgressLimits | None = None,
    ) -> None:
        self._catalog = catalog
        self._proofs = proofs
        self._clock = clock
        self._named = named
        self._own = own or Own()
        self._limits = limits or EgressLimits()
        self._resolver = resolver or SystemResolver()
        self._connector = connector or SystemConnector(self._limits.buffer)
        self._open: dict[str, int] = {}
        self._budgets: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> int:
        """Listens; returns the port."""
        self._server = await asyncio.start_server(self._accept, host, port, limit=requests.MAX_HEAD, backlog=512)
        return int(self._server.sockets[0].getsockname()[1])

    async def aclose(self) -> None:
        """Stops listening and cuts every connection."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)
        self._resolver.close()

    @property
    def connections(self) -> int:
        """Connections that are open now."""
        return len(self._tasks)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.set_write_buffer_limits(high=self._limits.buffer)
        try:
            async with asyncio.timeout(self._limits.lifetime):
                await self._request(reader, writer)
        except _Answer as answer:
            await self._refuse(writer, answer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # one of the two ends is gone: there is nobody to tell
        finally:
            writer.transport.abort()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._tasks) > self._limits.total:
            raise _Answer(503, "the egress proxy has too many connections: try again later")
        request = await self._head(reader)
        caller = self._identify(request)
        with self._counted(caller.name):
            trusted = await self._decide(caller, request.target)
            streams = await self._reach(caller, request.target, trusted)
            try:
                await self._pass_on(request, (reader, writer), streams)
            finally:
                streams[1].transport.abort()

    async def _head(self, reader: asyncio.StreamReader) -> requests.Request:
        try:
            async with asyncio.timeout(self._limits.head):
                head = await reader.readuntil(b"\r\n\r\n")
            return requests.parse(head)
        except asyncio.LimitOverrunError:
            raise _Answer(431, "the head of the request is too large") from None
        except TimeoutError:
            raise _Answer(408, "the head of the request did not come in time") from None
        except requests.Malformed as error:
            raise _Answer(400, str(error)) from None
        except rules.Refused as error:
            log.info("egress refused: %s", error)
            raise _Answer(403, str(error)) from None

    def _identify(self, request: requests.Request) -> Caller:
        try:
            if request.token and self._proofs.is_build(request.token):
                build = self._proofs.identify_build(request.token, request.pod_token)
                return Caller(build.job, build.tenant, build.agent, build.reach, self._own.build_hosts, build=True)
            one = self._proofs.identify(request.token, request.pod_token)
        except NotReady as not_yet:
            raise _Answer(503, str(not_yet)) from None
        except NotProven as why:
            raise _Answer(407, f"only sandboxes of this platform may use this proxy: {why}") from None
        entry = self._catalog.get(one.tenant, one.agent)
        entries = (entry.spec.get("egress") or ()) if entry is not None else ()
        return Caller(one.sandbox, one.tenant, one.agent, tuple(entries))

    @contextlib.contextmanager
    def _counted(self, sandbox: str) -> Iterator[None]:
        if self._open.get(sandbox, 0) >= self._limits.per_sandbox:
            raise _Answer(429, f"this sandbox has {self._limits.per_sandbox} connections open: close some first")
        self._open[sandbox] = self._open.get(sandbox, 0) + 1
        try:
            yield
        finally:
            self._open[sandbox] -= 1
            if not self._open[sandbox]:
                del self._open[sandbox]

    async def _decide(self, caller: Caller, target: rules.Target) -> bool:
        """Whether the allowed target is of the platform's own settings."""
        if self._own.look is not None and any(entry in self._named for entry in caller.entries):
            await self._own.look()
        decision = rules.decide(caller.entries, self._named, target, caller.agent)
        if not decision.allowed:
            self._log_refusal(caller, target, "not listed")
            builds = f"{target} is neither the host of spec.source.git nor the package index: builds reach nothing else"
            raise _Answer(403, builds if caller.build else decision.reason)
        return decision.trusted or target in caller.trusted

    async def _reach(self, caller: Caller, target: rules.Target, trusted: bool) -> Streams:
        if not self._may_resolve(caller.name):
            self._log_refusal(caller, target, "too many names looked up")
            raise _Answer(429, "this sandbox looks up too many names: wait a minute")
        try:
            async with asyncio.timeout(self._limits.resolve):
                found = await self._resolver.resolve(target.host)
        except (OSError, UnicodeError, TimeoutError):
            raise _Answer(502, f"{target.host} cannot be resolved") from None
        usable, why = addresses.usable(found, trusted=trusted)
        if not usable:
            self._log_refusal(caller, target, f"resolves to {why}")
            raise _Answer(403, f"{target.host} resolves to {why or 'nothing'}, which sandboxes may not reach")
        for address in usable[: self._limits.addresses_tried]:
            try:
                async with asyncio.timeout(self._limits.connect):
                    return await self._connector.connect(address, target.port)
            except (OSError, TimeoutError):
                continue
        raise _Answer(502, f"{target} does not answer")

    async def _pass_on(self, request: requests.Request, inside: Streams, outside: Streams) -> None:
        outside[1].transport.set_write_buffer_limits(high=self._limits.buffer)
        if request.upstream:
            outside[1].write(request.upstream)
        else:
            inside[1].write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        idle, now = self._limits.idle, asyncio.get_running_loop().time
        pumps: list[asyncio.Task[None]] = []
        try:
            async with asyncio.timeout(idle) as limit:

                def passed() -> None:
                    until = limit.when() or 0.0
                    if until - now() < idle - min(1.0, idle / 10):  # not at every byte: moving a deadline costs
                        limit.reschedule(now() + idle)

                for source, sink in ((inside[0], outside[1]), (outside[0], inside[1])):
                    pumps.append(asyncio.create_task(_pump(source, sink, passed, self._limits.buffer)))
                # Both directions to their ends: a side that has said all may still be listening.
                await asyncio.gather(*pumps)
        finally:
            for pump in pumps:
                pump.cancel()
            if pumps:
                await asyncio.wait(pumps)

    async def _refuse(self, writer: asyncio.StreamWriter, answer: _Answer) -> None:
        # The reason is in the status line too: that is all that most clients show of a refused CONNECT.
        reason = answer.reason.encode("ascii", "replace").replace(b"\r", b" ").replace(b"\n", b" ")
        challenge = b"Proxy-Authenticate: Bearer\r\n" if answer.status == 407 else b""
        body = reason + b"\n"
        with contextlib.suppress(OSError, TimeoutError):
            writer.write(
                b"HTTP/1.1 %d %b\r\nContent-Type: text/plain; charset=us-ascii\r\nContent-Length: %d\r\n%b"
                b"Connection: close\r\n\r\n%b" % (answer.status, reason, len(body), challenge, body)
            )
            async with asyncio.timeout(self._limits.head):
                await writer.drain()
                writer.close()
                await writer.wait_closed()

    def _may_resolve(self, sandbox: str) -> bool:
        now = self._clock.monotonic()
        begun, count = self._budgets.pop(sandbox, (now, 0))
        if now - begun >= 60:
            begun, count = now, 0
        self._budgets[sandbox] = (begun, count + 1)
        while len(self._budgets) > 10_000:
            self._budgets.popitem(last=False)
        return count < self._limits.resolutions

    def _log_refusal(self, caller: Caller, target: rules.Target, why: str) -> None:
        log.info(
            "egress refused: agent %s/%s, %s %s, %s: %s",
            caller.tenant, caller.agent, "build" if caller.build else "sandbox", caller.name, target, why,
        )  # fmt: skip


async def _pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, passed: Callable[[], None], size: int
) -> None:
    """Bytes one way until the end, which is passed on; `drain` holds it back while the other side is slow. Raises OSError."""
    while data := await reader.read(size):
        passed()
        writer.write(data)
        await writer.drain()
        passed()
    if writer.can_write_eof():
        writer.write_eof()
