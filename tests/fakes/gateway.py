"""A gateway's public side on a real socket with fake services behind it: two tenants, three callers, one shim of choice.

Limits: no Redis, no store; every session exists as soon as it is named; keys are the table `CALLERS`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry

from fakes.turns import FakeTurns
from moorage_api import names
from moorage_api.catalog import AgentEntry, RevisionEntry
from moorage_api.errors import ApiError, Kind
from moorage_api.wire.hop import HopPool
from moorage_gateway import layers
from moorage_gateway.access_log import AccessLog
from moorage_gateway.activation import Wanted
from moorage_gateway.audit import Entry, Origin
from moorage_gateway.auth import INVOKE, Principal, credential
from moorage_gateway.clock import SystemClock
from moorage_gateway.metrics import Metrics
from moorage_gateway.middleware.drain import Draining
from moorage_gateway.routes.health import Health
from moorage_gateway.server import Listener
from moorage_gateway.sessions import Place
from moorage_gateway.settings import Settings
from moorage_gateway.telemetry import Telemetry
from moorage_gateway.upstream import Route

CALLERS = {
    "key-ada": Principal("acme", "ada", "k1", None, frozenset({INVOKE})),
    "key-bob": Principal("acme", "bob", "k2", None, frozenset({INVOKE})),
    "key-eve": Principal("other", "eve", "k3", None, frozenset({INVOKE})),
    "key-narrow": Principal("acme", "ada", "k4", frozenset({"second"}), frozenset({INVOKE})),
    "key-mute": Principal("acme", "ada", "k5", None, frozenset()),
}


def entry(tenant: str, agent: str) -> AgentEntry:
    """A published agent that serves both protocols."""
    return AgentEntry(
        tenant, agent, (RevisionEntry("r1"),), frozenset({"responses", "invocations"}), "moorage", {"access": {}}
    )


class FakeSessions:
    """Agents `hello` and `second` in each tenant; a session is whatever is named, else a fresh one."""

    def __init__(self) -> None:
        self.agents = ("hello", "second")

    async def resolve(
        self,
        caller: Principal,
        agent: str,
        *,
        session_id: str | None,
        previous_response_id: str | None,
        conversation: str | None,
    ) -> Place:
        if agent not in self.agents or not caller.may_use(agent):
            raise ApiError(Kind.NOT_FOUND, f"There is no agent named '{agent[:64]}'.", param="agent")
        caller.require(INVOKE)
        session = session_id or (f"conv-{conversation}-12345678" if conversation else names.new_session_id())
        partition = names.partition(caller.tenant, agent, caller.user, session)
        if previous_response_id is not None:
            partition = names.partition_of(previous_response_id) or partition
        return Place(
            caller.tenant,
            agent,
            caller.user,
            session,
            partition,
            names.session_key(caller.tenant, partition),
            "r1",
            entry(caller.tenant, agent),
            session_id is None,
        )


@dataclass
class FakeActivation:
    """Hands out `routes` in order, the last one for ever, from when `made` is set on; notes what was forgotten and lost."""

    routes: list[Route] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    lost_routes: list[tuple[Route, str]] = field(default_factory=list)
    wanted: list[Wanted] = field(default_factory=list)
    error: ApiError | None = None
    made: asyncio.Event | None = None

    async def acquire(self, wanted: Wanted, *, deadline: float) -> Route:
        self.wanted.append(wanted)
        if self.made is not None:
            await self.made.wait()
        if self.error is not None:
            raise self.error
        return self.routes.pop(0) if len(self.routes) > 1 else self.routes[0]

    def forget(self, key: str) -> None:
        self.forgotten.append(key)

    async def lost(self, route: Route, reason: str) -> None:
        self.lost_routes.append((route, reason))


class NoJournals:
    """Every journal is gone."""

    async def document(self, tenant: str, response: str) -> dict[str, Any] | None:
        return None


class NoApprovals:
    """Nothing waits for a person."""

    async def answered(self, session: str, items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        return list(items)


class KeyTable:
    """The door of `CALLERS`."""

    async def identify(self, headers: list[tuple[bytes, bytes]], peer: str | None) -> Principal:
        text = credential(headers)
        if text is None or text not in CALLERS:
            raise ApiError(Kind.UNAUTHENTICATED, "Incorrect API key provided.")
        return CALLERS[text]


@dataclass
class FakeGateway:
    """The running public side. `url` is its base, `lines` its access log, `audited` what was audited."""

    turns: FakeTurns
    activation: FakeActivation
    settings: Settings
    draining: Draining = field(default_factory=Draining)
    metrics: Metrics = field(default_factory=lambda: Metrics(CollectorRegistry()))
    lines: list[bytes] = field(default_factory=list)
    audited: list[tuple[str, str, str]] = field(default_factory=list)
    probes: dict[str, Any] = field(default_factory=dict)

    async def start(self, **limits: Any) -> None:
        """Listens on a free port of loopback."""
        clock = SystemClock()
        self.hop = HopPool()
        self.access_log = AccessLog(self.lines.append)
        parts = layers.Parts(
            turns=self.turns,
            sessions=FakeSessions(),
            activation=self.activation,
            hop=self.hop,
            door=KeyTable(),
            journal=NoJournals(),
            approvals=NoApprovals(),
            audit=self,
            consents=_control,
            control=_control,
            health=Health(self.probes, self.draining, clock.monotonic),
            clock=clock,
            draining=self.draining,
            access_log=self.access_log,
            telemetry=Telemetry(None, queue=64, gateway_id="gw-test", version="0"),
            metrics=self.metrics,
        )
        self.listener = Listener(
            layers.public_app(self.settings, parts),
            layers.connection_limits(self.settings),
            name="public",
            on_refused=self.metrics.refused,
            **limits,
        )
        await self.listener.start(host="127.0.0.1", port=0)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.listener.port}"

    async def stop(self) -> None:
        """Ends everything."""
        await self.listener.close()
        await self.turns.aclose()
        await self.hop.close()
        await self.access_log.aclose()

    @asynccontextmanager
    async def recording(
        self, caller: Principal, action: str, object: str, origin: Origin | None = None
    ) -> AsyncIterator[Entry]:
        """The audit log's face."""
        entry = Entry(object)
        yield entry
        self.audited.append((action, object, entry.outcome))


async def _control(scope: Any, receive: Any, send: Any) -> None:
    if scope["path"] == "/v1/explode":
        raise ZeroDivisionError("a secret 4711")
    raise ApiError(Kind.NOT_FOUND, "Nothing is served under this path.")
