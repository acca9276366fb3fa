"""The public app: routes and layers in order. Layer: gateway, composition; `app.py` calls it with real services, tests with fakes.

From the outside in:

    Access      ids, trace, access line: every answer below is counted and carries its ids
    Errors      what is raised below becomes an answer of the one table
    Hosts       a foreign Host learns nothing, not even that a key is wrong
    Drain       a stopping gateway takes nothing on
    Crowd       a flood costs a comparison, before any look-up
    Identity    who calls
    KeyLimits   what this caller may take
    Dispatch    classified on the decoded path: data routes raw, all else to the control API
"""

from __future__ import annotations

from dataclasses import dataclass

from moorage_api.wire.hop import HopPool
from moorage_gateway.access_log import AccessLog
from moorage_gateway.clock import Clock
from moorage_gateway.metrics import Metrics
from moorage_gateway.middleware.access import Access
from moorage_gateway.middleware.drain import Drain, Draining
from moorage_gateway.middleware.errors import Errors
from moorage_gateway.middleware.hosts import Hosts
from moorage_gateway.middleware.identity import Door, Identity
from moorage_gateway.middleware.limits import Crowd, KeyLimits
from moorage_gateway.request import JsonLimits
from moorage_gateway.routes import consent_pages, health
from moorage_gateway.routes.dispatch import Dispatch, Open
from moorage_gateway.routes.doors import ActivationDoor, ApprovalDoor, AuditDoor, JournalDoor, SessionDoor, TurnsDoor
from moorage_gateway.routes.health import Health
from moorage_gateway.routes.invocations import Invocations
from moorage_gateway.routes.reaching import RelayLimits
from moorage_gateway.routes.responses import Responses
from moorage_gateway.server import Asgi, ConnectionLimits
from moorage_gateway.settings import Settings
from moorage_gateway.telemetry import Telemetry


@dataclass(frozen=True)
class Parts:
    """What the public app is made of."""

    turns: TurnsDoor
    sessions: SessionDoor
    activation: ActivationDoor
    hop: HopPool
    door: Door
    audit: AuditDoor
    journal: JournalDoor
    approvals: ApprovalDoor
    consents: Asgi
    control: Asgi
    health: Health
    clock: Clock
    draining: Draining
    access_log: AccessLog
    telemetry: Telemetry
    metrics: Metrics


def public_app(settings: Settings, parts: Parts) -> Asgi:
    """The ASGI app of the public listener."""
    responses = Responses(
        parts.turns,
        parts.sessions,
        parts.audit,
        parts.journal,
        parts.approvals,
        parts.clock,
        json_limits=json_limits(settings),
        comment_seconds=settings.comment_seconds,
    )
    invocations = Invocations(parts.activation, parts.sessions, parts.hop, parts.clock, relay_limits(settings))
    app: Asgi = Dispatch(responses, invocations, parts.control, Open(parts.health, parts.consents))
    app = KeyLimits(
        app,
        parts.metrics,
        parts.clock.monotonic,
        concurrency=settings.key_concurrency,
        rate=settings.key_rate,
        burst=settings.key_burst,
    )
    app = Identity(app, parts.door, health.PATHS | consent_pages.PATHS)
    app = Crowd(app, settings.max_requests, parts.metrics)
    app = Drain(app, parts.draining)
    app = Hosts(app, settings.allowed_hosts)
    app = Errors(app)
    return Access(app, parts.access_log, parts.telemetry, parts.metrics)


def json_limits(settings: Settings) -> JsonLimits:
    """Bounds of a JSON body."""
    return JsonLimits(settings.input_bytes, settings.json_depth, settings.json_containers)


def relay_limits(settings: Settings) -> RelayLimits:
    """Bounds of a relayed call."""
    return RelayLimits(
        body_bytes=settings.body_bytes,
        acquire_seconds=settings.acquire_seconds,
        connect_seconds=settings.connect_seconds,
        head_seconds=settings.head_seconds,
        idle_seconds=settings.idle_seconds,
    )


def connection_limits(settings: Settings) -> ConnectionLimits:
    """Bounds of every connection."""
    return ConnectionLimits(
        header_bytes=settings.header_bytes,
        header_count=settings.header_count,
        header_seconds=settings.header_seconds,
        body_floor=settings.body_floor,
        body_grace=settings.body_grace,
        keep_alive_seconds=settings.keep_alive_seconds,
        slow_reader_seconds=settings.slow_reader_seconds,
        stream_buffer=settings.stream_buffer,
        max_connections=settings.max_connections,
        client_connections=settings.client_connections,
    )
