"""A small world for control tests: a catalog of two tenants, real Valkey, a store in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from moorage_api.catalog import AgentEntry, RevisionEntry
from moorage_api.ledger.provider import ProviderLedger
from moorage_api.ledger.sessions import SessionLedger
from moorage_api.wire.hop import HopPool
from moorage_gateway.activation import Activation
from moorage_gateway.auth import Principal
from moorage_gateway.checkpoints import Checkpoints
from moorage_gateway.clock import SystemClock
from moorage_gateway.files import Files
from moorage_gateway.ledger_client import LedgerClient
from moorage_gateway.recovery import Recovery
from moorage_gateway.routing import RouteTable
from moorage_gateway.session_control import SessionControl
from moorage_gateway.session_files import SessionFiles
from moorage_gateway.session_records import SessionRecords
from moorage_gateway.sessions import Sessions
from moorage_gateway.store import Store
from moorage_gateway.upstream import HttpShims

ACQUIRE_S = 0.2
INVOKE = frozenset({"invoke"})
ANN = Principal("acme", "ann", "a" * 16, None, INVOKE)
BOB = Principal("acme", "bob", "b" * 16, None, INVOKE)
RIVAL = Principal("rival", "ann", "c" * 16, None, INVOKE)
OPERATOR = Principal("acme", "ann", "d" * 16, None, frozenset({"invoke", "operator"}))


def entry(tenant: str, agent: str, **spec: Any) -> AgentEntry:
    return AgentEntry(tenant, agent, (RevisionEntry("rev1"),), frozenset({"responses", "invocations"}), "moorage", spec)


class Catalog:
    def __init__(self) -> None:
        self.entries = {
            (tenant, agent): entry(tenant, agent) for tenant in ("acme", "rival") for agent in ("hello", "review-agent")
        }

    def get(self, tenant: str, agent: str) -> AgentEntry | None:
        return self.entries.get((tenant, agent))

    def list(self, tenant: str) -> list[AgentEntry]:
        return [found for (owner, _), found in sorted(self.entries.items()) if owner == tenant]


@dataclass
class Turns:
    """Remembers what it was asked; `on_cancel` may change the world."""

    cancelled: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    on_cancel: Callable[[str], Any] | None = None
    refuses: Exception | None = None

    async def cancel(self, response_id: str, *, tenant: str) -> dict[str, Any]:
        self.cancelled.append(response_id)
        if self.on_cancel is not None:
            await self.on_cancel(response_id)
        return {}

    async def delete(self, response_id: str, *, tenant: str) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.deleted.append(response_id)


class World:
    def __init__(self, ledger: LedgerClient, store: Store) -> None:
        async def generation() -> int:
            return 0

        self.client, self.store, self.catalog, self.turns = ledger, store, Catalog(), Turns()
        self.clock = SystemClock()
        self.ledger = SessionLedger(ledger)
        self.provider = ProviderLedger(ledger)
        self.recovery = Recovery(ledger, stored_generation=generation)
        self.recovery.adopted()
        self.records = SessionRecords(store, self.clock)
        self.sessions = self.replica()
        self.checkpoints = Checkpoints(store, self.clock, lambda: "ab" * 32)
        self.control = SessionControl(self.sessions, store, ledger, self.turns, self.checkpoints, self.clock)
        self.files = self._session_files()

    def _session_files(self) -> SessionFiles:
        """Real ones; no provider answers here, so a sandbox is waited for in vain."""
        shims, table = HttpShims(HopPool()), RouteTable(self.clock)
        files = Files(self.checkpoints, shims, self.ledger, self.catalog.get)
        activation = Activation(self.ledger, shims, table, self.clock, self.recovery, lambda: [], files)
        return SessionFiles(self.control, self.sessions, self.checkpoints, activation, shims, self.clock, ACQUIRE_S)

    def replica(self) -> Sessions:
        return Sessions(self.catalog, self.ledger, self.records, self.recovery, self.clock, share=lambda: 0.0)

    async def resolve(self, caller: Principal, agent: str = "hello", **named: str | None) -> Any:
        wanted = {"session_id": None, "previous_response_id": None, "conversation": None, **named}
        return await self.sessions.resolve(caller, agent, **wanted)  # type: ignore[arg-type]
