"""The egress proxy: the only way from a sandbox to the outside. Layer: gateway, border to the internet.

One connection: read the head, identify the sandbox, decide by the manifest, resolve, check the addresses, connect to one
of exactly those, pass bytes both ways. Every wait has a deadline, every buffer a bound; a slow side slows the other one down.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from moorage_api import addresses
from moorage_api.catalog import AgentEntry
from moorage_gateway.boundary.pod_tokens import NotProven
from moorage_gateway.boundary.proofs import NotReady, Proofs
from moorage_gateway.clock import Clock
from moorage_gateway.egress import requests, rules
from moorage_gateway.egress.budgets import Account, Bounds, Budgets, Spent, Way
from moorage_gateway.egress.connecting import Connector, Resolver, Streams, SystemConnector, SystemResolver
from moorage_gateway.egress.counts import ANSWERED, EgressCounts, Why
from moorage_gateway.egress.passing import Cut, Passing

log = logging.getLogger("moorage.egress")


class CatalogDoor(Protocol):
    """What the proxy needs of the catalog."""

    def get(self, tenant: str, agent: str) -> AgentEntry | None:
        """One agent."""


@dataclass(frozen=True)
class EgressLimits:
    """Bounds of the proxy. Times in seconds."""

    head: float = 10.0
    resolve: float = 5.0
    connect: float = 10.0
    idle: float = 600.0
    lifetime: float = 8 * 3600.0
    total: int = 4096  # connections at a time
    buffer: int = 64 * 1024
    addresses_tried: int = 4
    session: Bounds = field(default_factory=Bounds)


class _Answer(Exception):
    """Ends a request with this status and this line; `wait`: seconds until another one makes sense."""

    def __init__(self, status: int, why: Why, reason: str, *, wait: float | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.why: Why = why
        self.reason = reason
        self.wait = wait


@dataclass(frozen=True)
class Caller:
    """Who asks, and what it may reach. `name` is a sandbox or a build, `purse` what its budget hangs on; `trusted` hosts may have private
    addresses."""

    name: str
    purse: str
    tenant: str
    agent: str
    entries: tuple[str, ...]
    trusted: frozenset[rules.Target] = frozenset()
    build: bool = False


Record = Callable[[str, str, str, str], None]
"""Tells the audit log of a refusal: tenant, agent, target, why."""


@dataclass(frozen=True)
class Own:
    """More of the platform's own settings. `look` is awaited before one of the named sets is read, and brings them up to date;
    `build_hosts` may have private addresses when a build reaches them; `record` is told of refusals."""

    look: Callable[[], Awaitable[None]] | None = None
    build_hosts: frozenset[rules.Target] = frozenset()
    record: Record | None = None


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
        self.counts = EgressCounts()
        self.budgets = Budgets(self._limits.session)
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
            self.counts.refuse(answer.why)
            await self._refuse(writer, answer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # one of the two ends is gone: there is nobody to tell
        finally:
            writer.transport.abort()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._tasks) > self._limits.total:
            raise _Answer(503, "capacity", "the egress proxy has too many connections: try again later")
        request = await self._head(reader)
        caller = self._identify(request)
        with self._charged(caller, request.target) as account:
            trusted = await self._decide(caller, account, request.target)
            streams = await self._reach(caller, account, request.target, trusted)
            try:
                await self._pass_on(caller, account, request, (reader, writer), streams)
            finally:
                streams[1].transport.abort()

    async def _head(self, reader: asyncio.StreamReader) -> requests.Request:
        try:
            async with asyncio.timeout(self._limits.head):
                head = await reader.readuntil(b"\r\n\r\n")
            return requests.parse(head)
        except asyncio.LimitOverrunError:
            raise _Answer(431, "malformed", "the head of the request is too large") from None
        except TimeoutError:
            raise _Answer(408, "malformed", "the head of the request did not come in time") from None
        except requests.Malformed as error:
            raise _Answer(400, "malformed", str(error)) from None
        except rules.Refused as error:
            log.info("egress refused: %s", error)
            raise _Answer(403, "malformed", str(error)) from None

    def _identify(self, request: requests.Request) -> Caller:
        try:
            if request.token and self._proofs.is_build(request.token):
                build = self._proofs.identify_build(request.token, request.pod_token)
                return Caller(
                    build.job, build.job, build.tenant, build.agent, build.reach, self._own.build_hosts, build=True
                )
            one = self._proofs.identify(request.token, request.pod_token)
        except NotReady as not_yet:
            raise _Answer(503, "not_proven", str(not_yet)) from None
        except NotProven as why:
            raise _Answer(407, "not_proven", f"only sandboxes of this platform may use this proxy: {why}") from None
        entry = self._catalog.get(one.tenant, one.agent)
        entries = (entry.spec.get("egress") or ()) if entry is not None else ()
        # A volume is one session's for good, and sandboxes come and go: who ends its own has no new budget.
        return Caller(one.sandbox, f"{one.tenant}/{one.volume or one.sandbox}", one.tenant, one.agent, tuple(entries))

    @contextlib.contextmanager
    def _charged(self, caller: Caller, target: rules.Target) -> Iterator[Account]:
        """The account of whoever asks, with this request in it."""
        now = self._clock.monotonic()
        account = self.budgets.account(caller.purse, now)
        spent = self.budgets.open(account)
        if spent is not None:
            raise self._over(caller, account, target, spent)
        try:
            spent = self.budgets.ask(account, now)
            if spent is not None:
                raise self._over(caller, account, target, spent)
            yield account
        finally:
            self.budgets.close(account)

    def _over(self, caller: Caller, account: Account, target: rules.Target, spent: Spent) -> _Answer:
        self._refused(caller, account, target, "budget", spent.message)
        return _Answer(429, "budget", spent.message, wait=spent.wait)

    async def _decide(self, caller: Caller, account: Account, target: rules.Target) -> bool:
        """Whether the allowed target is of the platform's own settings."""
        if self._own.look is not None and any(entry in self._named for entry in caller.entries):
            await self._own.look()
        decision = rules.decide(caller.entries, self._named, target, caller.agent)
        if not decision.allowed:
            self._refused(caller, account, target, "not_listed", "not listed")
            builds = f"{target} is neither the host of spec.source.git nor the package index: builds reach nothing else"
            raise _Answer(403, "not_listed", builds if caller.build else decision.reason)
        return decision.trusted or target in caller.trusted

    async def _reach(self, caller: Caller, account: Account, target: rules.Target, trusted: bool) -> Streams:
        """A connection to an address that was judged: the name is looked up once, and what is connected to is that literal."""
        try:
            async with asyncio.timeout(self._limits.resolve):
                found = await self._resolver.resolve(target.host)
        except (OSError, UnicodeError, TimeoutError):
            raise _Answer(502, "unresolved", f"{target.host} cannot be resolved") from None
        usable, why = addresses.usable(found, trusted=trusted)
        if not usable:
            self._refused(caller, account, target, "address", f"resolves to {why}")
            raise _Answer(
                403, "address", f"{target.host} resolves to {why or 'nothing'}, which sandboxes may not reach"
            )
        for address in usable[: self._limits.addresses_tried]:
            try:
                async with asyncio.timeout(self._limits.connect):
                    return await self._connector.connect(address, target.port)
            except (OSError, TimeoutError):
                continue
        raise _Answer(502, "unreachable", f"{target} does not answer")

    async def _pass_on(
        self, caller: Caller, account: Account, request: requests.Request, inside: Streams, outside: Streams
    ) -> None:
        self.counts.passed += 1
        outside[1].transport.set_write_buffer_limits(high=self._limits.buffer)

        def moved(way: Way, count: int) -> bool:
            may = self.budgets.move(account, way, count, self._clock.monotonic())
            self.counts.bytes[way] += count if may else 0
            return may

        limits = self._limits
        passing = Passing(request.target, limits.head, limits.idle, limits.buffer, moved)
        try:
            if request.body is None:
                inside[1].write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            elif not moved("sent", len(request.upstream)):
                raise Cut("budget", "no more bytes may be sent in this hour")
            else:
                outside[1].write(request.upstream)
            await passing.both(inside, outside, request.body)
        except Cut as cut:
            self.counts.refuse(cut.why)
            self._refused(caller, account, request.target, cut.why, str(cut))
            await self._say(inside[1], cut.told)

    async def _refuse(self, writer: asyncio.StreamWriter, answer: _Answer) -> None:
        # The reason is in the status line too: that is all that most clients show of a refused CONNECT.
        reason = answer.reason.encode("ascii", "replace").replace(b"\r", b" ").replace(b"\n", b" ")
        challenge = b"Proxy-Authenticate: Bearer\r\n" if answer.status == 407 else b""
        body = reason + b"\n"
        if answer.wait is not None:
            challenge += b"Retry-After: %d\r\n" % (answer.wait + 0.999)
        await self._say(
            writer,
            b"HTTP/1.1 %d %b\r\nContent-Type: text/plain; charset=us-ascii\r\nContent-Length: %d\r\n%b"
            b"Connection: close\r\n\r\n%b" % (answer.status, reason, len(body), challenge, body),
        )

    async def _say(self, writer: asyncio.StreamWriter, last: bytes) -> None:
        """The last words to a client."""
        with contextlib.suppress(OSError, TimeoutError):
            writer.write(last)
            async with asyncio.timeout(self._limits.head):
                await writer.drain()
                writer.close()
                await writer.wait_closed()

    def _refused(self, caller: Caller, account: Account, target: rules.Target, why: Why, words: str) -> None:
        """A line for people, and, of each kind the first in an hour, a record in the audit log."""
        log.info(
            "egress refused: agent %s/%s, %s %s, %s: %s",
            caller.tenant, caller.agent, "build" if caller.build else "sandbox", caller.name, target, words,
        )  # fmt: skip
        if self._own.record is not None and why not in ANSWERED and self.budgets.tell(account, f"{why} {target}"):
            self._own.record(caller.tenant, caller.agent, str(target), why)
