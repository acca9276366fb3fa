"""The services of a gateway, made once and wired together. Layer: gateway, composition; called by `app.py` only.

Redis ── LedgerClient ─┬─ SessionLedger ── Sessions, Activation, Lifecycle
                       ├─ TurnLedger ───── Engine ── Keeper ── Turns (with Readers, Archive)
                       └─ Catalog, KeyService, AuditLog, Neighbours
object store ── SessionRecords, Archive, KeyService, AuditLog
"""

from __future__ import annotations

import functools
import logging
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import redis.asyncio as aioredis

from moorage_api.kinds import quantities
from moorage_api.ledger import keys as ledger_keys
from moorage_api.ledger.agent_calls import AgentCallLedger
from moorage_api.ledger.approvals import ApprovalLedger
from moorage_api.ledger.consents import ConsentLedger
from moorage_api.ledger.journal import JournalLedger
from moorage_api.ledger.records import TurnRecord
from moorage_api.ledger.routines import RoutineLedger
from moorage_api.ledger.run_leases import RunLeases
from moorage_api.ledger.sessions import SessionLedger
from moorage_api.ledger.tool_sessions import ToolSessionLedger
from moorage_api.ledger.turns import TurnLedger
from moorage_api.wire.hop import HopPool
from moorage_gateway import outer
from moorage_gateway.activation import Activation
from moorage_gateway.agent_calls import AgentCalls
from moorage_gateway.approvals import Approvals, may_ask
from moorage_gateway.approvals import asked as asked_items
from moorage_gateway.audit import AuditLog, new_writer
from moorage_gateway.auth import Anonymous, Authenticator
from moorage_gateway.call_counts import CallCounts
from moorage_gateway.catalog import Catalog
from moorage_gateway.checkpoints import Checkpoints
from moorage_gateway.clock import Clock
from moorage_gateway.consents.flow import Consents
from moorage_gateway.consents.shapes import may_ask as may_ask_consent
from moorage_gateway.files import Files
from moorage_gateway.hints import Hints
from moorage_gateway.journal.carrying import Carrying
from moorage_gateway.journal.exporting import Exporting
from moorage_gateway.journal.journaling import Journaling
from moorage_gateway.journal.journaling import Limits as CallLimits
from moorage_gateway.journal.kinds import Kinds
from moorage_gateway.journal.spilling import Spill
from moorage_gateway.keys import KeyService
from moorage_gateway.ledger_client import LedgerClient
from moorage_gateway.lifecycle import Lifecycle
from moorage_gateway.models.asking import Upstreams
from moorage_gateway.models.kind import Models
from moorage_gateway.observing import CallSpans, Observers, SpanObserver
from moorage_gateway.outer import Outside
from moorage_gateway.reach import Neighbours
from moorage_gateway.recovery import Recovery
from moorage_gateway.routes.reaching import Reaching, RelayLimits
from moorage_gateway.routines.alerting import Alerts
from moorage_gateway.routines.choosing import Choosing
from moorage_gateway.routines.desk import Desk
from moorage_gateway.routines.history import History as RunHistory
from moorage_gateway.routines.holds import Holds
from moorage_gateway.routines.invocations import Invocations
from moorage_gateway.routines.invoking import Invoking
from moorage_gateway.routines.running import Running
from moorage_gateway.routines.scheduling import Scheduler
from moorage_gateway.routines.sending import MOST_BODY
from moorage_gateway.routing import RouteTable
from moorage_gateway.session_control import SessionControl
from moorage_gateway.session_files import SessionFiles
from moorage_gateway.session_records import SessionRecords
from moorage_gateway.sessions import Sessions
from moorage_gateway.settings import Settings, is_loopback
from moorage_gateway.steps import Steps
from moorage_gateway.store import Store
from moorage_gateway.telemetry import Telemetry
from moorage_gateway.tools.kind import People, Toolboxes
from moorage_gateway.tools.making import OfUsers
from moorage_gateway.tools.per_user import users_of
from moorage_gateway.tools.sessions import Sessions as ToolSessions
from moorage_gateway.tools.stdio import Programs
from moorage_gateway.tools.trying import Trials
from moorage_gateway.turns import rules
from moorage_gateway.turns.archive import Archive
from moorage_gateway.turns.engine import Engine
from moorage_gateway.turns.held import Held
from moorage_gateway.turns.history import History, Link
from moorage_gateway.turns.keeper import Keeper
from moorage_gateway.turns.lost import LostSweep
from moorage_gateway.turns.readers import LogHints, Readers
from moorage_gateway.turns.service import Turns
from moorage_gateway.turns.steps import Ports
from moorage_gateway.upstream import HttpShims

HELD_TURNS = 2_000  # turns one gateway drives; more stay due and another gateway takes them
LONGEST_RUN_S = 1440 * 60 + 120.0  # an invocation's own time ends it before
LOG_BYTES = 64 * 1024 * 1024  # of one turn's log

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Core:
    """Everything a gateway's listeners serve from."""

    clock: Clock
    redis: aioredis.Redis
    client: LedgerClient
    runner: LedgerClient
    recovery: Recovery
    store: Store
    archive: Archive
    checkpoints: Checkpoints
    hop: HopPool
    catalog: Catalog
    hints: Hints
    neighbours: Neighbours
    session_ledger: SessionLedger
    turn_ledger: TurnLedger
    records: SessionRecords
    sessions: Sessions
    session_control: SessionControl
    session_files: SessionFiles
    activation: Activation
    keeper: Keeper
    turns: Turns
    keys: KeyService
    authenticator: Authenticator
    audit: AuditLog
    lifecycle: Lifecycle
    sweep: LostSweep
    journaling: Journaling
    exporting: Exporting
    approvals: Approvals
    consents: Consents
    call_counts: CallCounts
    kinds: Kinds
    upstreams: Upstreams
    programs: Programs
    trials: Trials
    tool_sessions: ToolSessions
    routines: Desk
    scheduler: Scheduler
    invoking: Invoking


@dataclass(frozen=True)
class _Base:
    """What turns and sessions are both made of."""

    settings: Settings
    clock: Clock
    client: LedgerClient
    runner: LedgerClient
    archive: Archive
    recovery: Recovery
    session_ledger: SessionLedger
    turn_ledger: TurnLedger
    catalog: Catalog
    logs: LogHints

    def limits_of(self, tenant: str, agent: str) -> rules.Limits:
        """What a turn of this agent may use; the defaults when it is not published (any more)."""
        entry = self.catalog.get(tenant, agent)
        spec = entry.spec if entry is not None else {}
        return rules.limits(spec, acquire_s=self.settings.acquire_seconds, log_bytes=LOG_BYTES)

    def limits_of_record(self, record: TurnRecord) -> rules.Limits:
        """The same, of a stored turn."""
        return self.limits_of(str(record.meta["tenant"]), str(record.meta["agent"]))

    def calm(self) -> float:
        """Seconds until leases may be taken and attempts begun."""
        return self.client.calm(self.clock.now_ms())

    def generation(self) -> int:
        """The ledger's generation as this process knows it."""
        return self.client.identity.generation

    async def stored_events(self, tenant: str, response_id: str) -> list[dict[str, Any]] | None:
        """The events of a stored turn, None when it is not stored."""
        document = await self.archive.document(tenant, response_id)
        return document.events if document is not None else None


def build(
    settings: Settings, clock: Clock, store: Store, redis: aioredis.Redis, traces: Telemetry, outside: Outside
) -> Core:
    """The services, wired; nothing is sent yet. `Gateway.start` adopts the ledger and runs the tasks."""
    who = f"{settings.gateway_id}-{secrets.token_hex(4)}"  # of this process alone: leases are told apart by it
    client = LedgerClient(redis, who=who, call_timeout=settings.redis_seconds)
    runner = client
    archive = Archive(store)
    base = _Base(
        settings=settings,
        clock=clock,
        client=client,
        runner=runner,
        archive=archive,
        recovery=Recovery(client, stored_generation=archive.generation),
        session_ledger=SessionLedger(runner),
        turn_ledger=TurnLedger(runner),
        catalog=Catalog(runner, clock),
        logs=LogHints(),
    )
    checkpoints = Checkpoints(store, clock, lambda: base.catalog.token_key)
    neighbours, table, hop = Neighbours(runner, clock), RouteTable(clock), HopPool()
    shims = HttpShims(hop)
    files = Files(checkpoints, shims, base.session_ledger, base.catalog.get)
    activation = Activation(base.session_ledger, shims, table, clock, base.recovery, neighbours.urls, files)
    models = outer.models(settings, base.catalog.endpoint, base.clock, outside)
    consents = outer.consents(settings, base.catalog.toolbox, store, models, ConsentLedger(base.runner))
    keeper, turns = _turns(base, activation, shims, traces, consents)
    records = SessionRecords(store, clock)
    sessions = Sessions(base.catalog, base.session_ledger, records, base.recovery, clock)
    key_service = KeyService(store, runner, now=lambda: clock.now_ms() / 1000, monotonic=clock.monotonic)
    control = SessionControl(sessions, store, runner, turns, checkpoints, clock)
    counts, spill = CallCounts(), Spill(store, clock)
    carrying = _carrying(base, spill, store)
    journaling = Journaling(
        JournalLedger(runner), base.recovery, spill, clock, calm=base.calm, carrying=carrying,
        limits=CallLimits(flights=settings.call_requests, room=quantities.octets(settings.call_room)),
        observer=Observers((CallSpans(traces), counts)),
    )  # fmt: skip
    approvals = Approvals(ApprovalLedger(runner), sessions)
    asks = AgentCalls(turns, sessions, AgentCallLedger(runner), clock)
    programs = Programs(base.catalog.programs, lambda: base.catalog.token_key)
    of_users = OfUsers(consents, users_of(turns.known))
    toolboxes = _toolboxes(base, models, People(asks, approvals, programs, of_users, ToolSessionLedger(runner)))
    routines, runs, invoking = RoutineLedger(runner), RunHistory(store), _invoking(base, store, activation, sessions)
    scheduler = Scheduler(
        routines,
        Choosing(Running(turns, sessions, carrying, clock), invoking),
        runs,
        Holds(store),
        Alerts(models.upstreams, models.credentials, clock.now_ms, settings.public_url or ""),
        base.recovery,
        clock,
    )
    return Core(
        clock=clock,
        redis=redis,
        client=client,
        runner=runner,
        recovery=base.recovery,
        store=store,
        archive=archive,
        checkpoints=checkpoints,
        hop=hop,
        catalog=base.catalog,
        hints=_hints(redis, base, keeper, table, scheduler),
        neighbours=neighbours,
        session_ledger=base.session_ledger,
        turn_ledger=base.turn_ledger,
        records=records,
        sessions=sessions,
        session_control=control,
        session_files=SessionFiles(
            control, sessions, checkpoints, activation, shims, clock, settings.acquire_seconds
        ),  # fmt: skip
        activation=activation,
        keeper=keeper,
        turns=turns,
        keys=key_service,
        authenticator=Authenticator(key_service, Anonymous(settings.anonymous, is_loopback(settings.public_host))),
        audit=AuditLog(store, runner, clock, writer=new_writer(settings.gateway_id)),
        lifecycle=Lifecycle(
            base.session_ledger,
            shims,
            base.catalog,
            clock,
            base.recovery,
            control.remove,
            files,
            int(settings.archive_seconds * 1000),
        ),  # fmt: skip
        sweep=LostSweep(base.turn_ledger, archive, clock, keeper.get),
        journaling=journaling,
        exporting=_exporting(base, spill, turns),
        approvals=approvals,
        consents=consents,
        call_counts=counts,
        kinds=Kinds([models, toolboxes, Steps()]),
        upstreams=models.upstreams,
        programs=programs,
        trials=Trials(toolboxes, base.catalog.toolbox, base.catalog.toolboxes),
        tool_sessions=toolboxes.sessions,
        routines=Desk(routines, runs, clock),
        scheduler=scheduler,
        invoking=invoking,
    )


def background(core: Core) -> dict[str, Callable[[], Awaitable[None]]]:
    """The loops that run for as long as the gateway does, by name."""
    return {
        "hints": core.hints.run,
        "catalog": core.catalog.run,
        "neighbours": core.neighbours.run,
        "keys": core.keys.run,
        "audit": core.audit.run,
        "turns": core.keeper.run,
        "sessions": core.session_control.run,
        "lifecycle": core.lifecycle.run,
        "calls": core.journaling.run,
        "tool-sessions": core.tool_sessions.run,
        "routines": core.scheduler.run,
        "lost-turns": lambda: core.sweep.run(core.recovery),
    }


def _toolboxes(base: _Base, models: Models, people: People) -> Toolboxes:
    """Tools are reached as models are: by the same connections, under the same rule of addresses, with keys from the same place."""
    return Toolboxes(
        base.catalog.toolbox, models.upstreams, models.credentials, base.clock,
        identity=models.identity, people=people, version=metadata.version("moorage"),
    )  # fmt: skip


def _invoking(base: _Base, store: Store, activation: Activation, sessions: Sessions) -> Invoking:
    # Over connections of its own that are never kept: what is sent once must not meet one that is dying.
    waits = RelayLimits(
        body_bytes=MOST_BODY,
        acquire_seconds=base.settings.acquire_seconds,
        connect_seconds=base.settings.connect_seconds,
        head_seconds=LONGEST_RUN_S,
        idle_seconds=LONGEST_RUN_S,
    )
    reaching = Reaching(activation, HopPool(max_idle=0), base.clock, waits)
    leases = RunLeases(base.runner)
    return Invoking(reaching, sessions, leases, Invocations(store), base.recovery, base.clock, base.calm)


def _carrying(base: _Base, spill: Spill, store: Store) -> Carrying:
    async def carries(response: str) -> bool:
        record = await base.turn_ledger.turn(response)
        return record is None or bool(record.meta.get("carries"))

    return Carrying(JournalLedger(base.runner), spill, store, carries)


def _exporting(base: _Base, spill: Spill, turns: Turns) -> Exporting:
    def spec(tenant: str, agent: str) -> dict[str, Any]:
        entry = base.catalog.get(tenant, agent)
        return entry.spec if entry is not None else {}

    return Exporting(JournalLedger(base.runner), spill, turns.asked, spec, base.catalog.endpoint)


def _turns(
    base: _Base, activation: Activation, shims: HttpShims, traces: Telemetry, consents: Consents
) -> tuple[Keeper, Turns]:
    histories: dict[str, History] = {}

    async def history(held: Held) -> list[dict[str, Any]]:
        tenant = held.identity.tenant

        async def link(response_id: str) -> Link | None:
            return await turns.link(response_id, tenant)

        chain = histories.setdefault(tenant, History(link))
        return await chain.before(held.template.body.get("previous_response_id"))

    ledger = ApprovalLedger(base.runner)

    async def asked(held: Held) -> list[dict[str, Any]]:
        who = held.identity
        entry = base.catalog.get(who.tenant, who.agent)
        if entry is None:
            return []
        find, found = functools.partial(base.catalog.toolbox, who.tenant), []
        if may_ask(entry.spec, find):
            found += await asked_items(ledger, held.record.session, held.response)
        if may_ask_consent(entry.spec, find):
            found += await consents.asked(held.response)
        return found

    ports = Ports(
        ledger=base.turn_ledger,
        activation=activation,
        shims=shims,
        archive=base.archive,
        clock=base.clock,
        recovery=base.recovery,
        observer=SpanObserver(traces),
        history=history,
        generation=base.generation,
        calm=base.calm,
        calls=JournalLedger(base.runner).progress,
        asked=asked,
    )
    keeper = Keeper(
        engine=Engine(ports),
        ledger=base.turn_ledger,
        store=base.archive,
        clock=base.clock,
        recovery=base.recovery,
        limits=base.limits_of_record,
        generation=base.generation,
        calm=base.calm,
        capacity=HELD_TURNS,
    )
    turns = Turns(
        ledger=base.turn_ledger,
        keeper=keeper,
        readers=Readers(base.turn_ledger, base.clock, base.logs, keeper.get, base.stored_events),
        store=base.archive,
        clock=base.clock,
        recovery=base.recovery,
        limits_of=base.limits_of,
        generation=base.generation,
    )
    return keeper, turns


def _hints(redis: aioredis.Redis, base: _Base, keeper: Keeper, table: RouteTable, scheduler: Scheduler) -> Hints:
    hints = Hints(redis, base.client, base.clock)
    hints.on(ledger_keys.HINT_CATALOG, base.catalog.hint)
    hints.on(ledger_keys.HINT_TURNS, keeper.hint)
    hints.on(ledger_keys.HINT_ROUTINES, scheduler.hint)
    hints.on(ledger_keys.HINT_LOG, base.logs.hint)
    hints.on(ledger_keys.HINT_ROUTES, table.hint)
    hints.on_silence(table.silent)
    return hints
