"""One gateway: settings → clients → services → layers in order → listeners, and the way back. Layer: gateway, composition.

`create_gateway` is the composition function, of the process (`__main__.py`) and of the local platform alike. Nothing is made at
import, nothing is sent before `Gateway.start`. Listeners: public, sandbox port, egress proxy, control (metrics and health).
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

import redis.asyncio as aioredis
from prometheus_client import CollectorRegistry
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from moorage_api.kinds import quantities
from moorage_api.ledger.progress import ProgressLedger
from moorage_api.ledger.script import LedgerError
from moorage_gateway import layers, package_index, telemetry
from moorage_gateway.access_log import AccessLog
from moorage_gateway.auth import Principal
from moorage_gateway.boundary.announce import SandboxPort
from moorage_gateway.boundary.builds import BuildPort
from moorage_gateway.boundary.calls import CallPort
from moorage_gateway.boundary.checkpoint_port import CheckpointPort
from moorage_gateway.boundary.proofs import Proofs
from moorage_gateway.bundles import Bundles, UploadLimits
from moorage_gateway.clock import Clock, SystemClock
from moorage_gateway.core import Core, background, build
from moorage_gateway.deploy import Deployer
from moorage_gateway.egress.budgets import Bounds
from moorage_gateway.egress.proxy import EgressLimits, EgressProxy, Own
from moorage_gateway.egress.rules import Target, parse_authority
from moorage_gateway.logs import LogSource, PodLogs
from moorage_gateway.metrics import Metrics
from moorage_gateway.middleware.drain import Draining
from moorage_gateway.outer import Outside
from moorage_gateway.routes.consent_pages import ConsentPages
from moorage_gateway.routes.control import Services, create_control_app
from moorage_gateway.routes.health import Health
from moorage_gateway.server import Asgi, Listener
from moorage_gateway.settings import Settings, is_loopback
from moorage_gateway.store import FolderStore, Store

TASK_SECONDS = 5.0  # for a background loop to end once it is cancelled

log = logging.getLogger(__name__)


class Gateway:
    """A composed gateway. `start` serves; `drain` ends gracefully; `stop` at once. `failed` is set when a loop died."""

    def __init__(
        self,
        settings: Settings,
        core: Core,
        *,
        access_log: AccessLog,
        traces: telemetry.Telemetry,
        logs: LogSource | None,
        named_hosts: Mapping[str, frozenset[Target]],
        index: package_index.Offer | None,
        owns_store: bool,
    ) -> None:
        self.settings = settings
        self.core = core
        self.failed = asyncio.Event()
        self.metrics = Metrics(CollectorRegistry())
        self._access_log = access_log
        self._traces = traces
        self._owns_store = owns_store
        self._draining = Draining()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._watch()
        probes: dict[str, Callable[[], Awaitable[object]]] = {
            "redis": lambda: core.client.read("PING"),
            "store": core.store.ping,
        }
        monotonic = core.clock.monotonic
        parts = layers.Parts(
            turns=core.turns,
            sessions=core.sessions,
            activation=core.activation,
            hop=core.hop,
            door=core.authenticator,
            audit=core.audit,
            journal=core.exporting,
            approvals=core.approvals,
            consents=ConsentPages(core.consents, core.audit),
            control=create_control_app(self._services(logs or PodLogs(core.catalog))),
            health=Health(probes, self._draining, monotonic),
            clock=core.clock,
            draining=self._draining,
            access_log=access_log,
            telemetry=traces,
            metrics=self.metrics,
        )
        self.public = self._listener("public", layers.public_app(settings, parts))
        proofs = Proofs(core.catalog, core.clock)
        builds = BuildPort(
            core.store,
            proofs,
            index.found if index is not None else None,
            room=quantities.octets(settings.scratch) // 2,
        )
        kept = CheckpointPort(core.checkpoints, core.session_ledger, core.runner)
        called = CallPort(
            core.catalog, core.kinds, core.journaling, ProgressLedger(core.runner), most=settings.sandbox_calls
        )
        sandbox_port = SandboxPort(
            core.session_ledger, core.recovery, proofs, core.neighbours.urls, builds, kept, called
        )
        self.sandbox = self._listener("sandbox", sandbox_port)
        self.control = self._listener("control", Health(probes, self._draining, monotonic, self.metrics))
        self.egress = EgressProxy(
            core.catalog,
            proofs,
            core.clock,
            named=named_hosts if index is None else index.named,
            own=Own(
                None if index is None else _looking(index),
                frozenset(map(parse_authority, settings.build_hosts)),
                self._record_egress,
            ),
            limits=EgressLimits(session=_egress_bounds(settings)),
        )
        self.metrics.registry.register(self.egress.counts)
        self.egress_port = 0

    def _services(self, logs: LogSource) -> Services:
        core = self.core
        limits = UploadLimits(size=self.settings.upload_bytes)
        bundles = Bundles(core.store, core.clock, limits)
        return Services(
            sessions=core.sessions,
            session_control=core.session_control,
            session_files=core.session_files,
            keys=core.keys,
            audit=core.audit,
            bundles=bundles,
            deployer=Deployer(core.runner, bundles, core.clock),
            logs=logs,
            trials=core.trials,
            consents=core.consents,
            routines=core.routines,
            store=core.store,
            commands=core.runner,
            clock=core.clock,
            public_url=lambda: self.public_url,
        )

    def _listener(self, name: str, app: Asgi) -> Listener:
        return Listener(app, layers.connection_limits(self.settings), name=name, on_refused=self.metrics.refused)

    def _watch(self) -> None:
        core, watch = self.core, self.metrics.watch
        self.metrics.registry.register(core.call_counts)
        watch(
            "moorage_egress_connections",
            "Connections of sandboxes and builds that are open.",
            lambda: self.egress.connections,
        )
        watch("moorage_connections", "Open public connections.", lambda: self.public.connections)
        watch("moorage_redis_commands", "Commands sent to Redis, a script counts one.", lambda: core.client.commands)
        watch("moorage_turns_held", "Turns this gateway drives.", lambda: core.keeper.count)
        watch("moorage_calls", "Calls past the boundary that are being made.", lambda: core.journaling.flights)
        watch("moorage_calls_made", "Calls past the boundary that were made here.", lambda: core.journaling.made)
        watch("moorage_calls_replayed", "Calls answered from a journal.", lambda: core.journaling.replayed)
        watch("moorage_ledger_losses", "Times Redis had lost writes.", lambda: core.recovery.losses)
        watch("moorage_spans_dropped", "Spans lost to a full queue or a failed export.", lambda: self._traces.dropped)
        watch("moorage_access_lines_dropped", "Access lines lost to a slow sink.", lambda: self._access_log.dropped)

    def _record_egress(self, tenant: str, agent: str, target: str, why: str) -> None:
        """An agent has no principal of its own: the record names it as what it is."""
        self.core.audit.record(Principal(tenant, f"agent/{agent}"), "egress.refuse", f"host/{target}", why)

    # Addresses, once started

    @property
    def public_url(self) -> str:
        """The base URL callers use."""
        return self.settings.public_url or _url(self.settings.public_host, self.public.port)

    @property
    def sandbox_url(self) -> str:
        """The URL shims announce themselves at."""
        return self.settings.sandbox_url or _url(self.settings.sandbox_host, self.sandbox.port)

    # Life

    async def start(self) -> None:
        """Adopts the ledger, listens, runs the loops. Raises LedgerError, StoreError, UnsafePolicy or OSError; then call `stop`."""
        core, settings = self.core, self.settings
        await core.client.check_policy(relaxed=settings.durability == "relaxed")
        await core.client.found(stored_generation=await core.archive.generation())
        core.recovery.adopted()
        await core.archive.put_generation(core.client.identity.generation)
        await core.catalog.load()
        await self.sandbox.start(host=settings.sandbox_host, port=settings.sandbox_port)
        core.neighbours.serve(self.sandbox_url)
        await core.neighbours.beat()
        for name, loop in background(core).items():
            self._tasks[name] = asyncio.create_task(self._run(name, loop), name=name)
        self.egress_port = await self.egress.start(settings.egress_host, settings.egress_port)
        await self.control.start(host=settings.control_host, port=settings.control_port)
        # Last: whoever reaches the public port finds everything behind it running.
        await self.public.start(host=settings.public_host, port=settings.public_port)
        if settings.public_url is None and is_loopback(settings.public_host):
            core.consents.serve(self.public_url)
        log.info("gateway %s serves %s", settings.gateway_id, self.public_url)

    async def drain(self) -> None:
        """Readiness fails first; then no new request; running ones end or, at the deadline, their turns are released."""
        settings = self.settings
        self._draining.notify()
        await asyncio.sleep(settings.drain_notice_seconds)
        self._draining.close()
        await asyncio.gather(
            self.core.keeper.drain(settings.drain_seconds),
            self.public.drain(settings.drain_seconds),
            self.core.journaling.drain(settings.drain_seconds),
            self.core.invoking.drain(settings.drain_seconds),
        )
        await self.stop()

    async def stop(self) -> None:
        """Ends everything: listeners, loops, then what they wrote is flushed. Safe after a failed start, and twice."""
        core = self.core
        for listener in (self.public, self.control, self.sandbox):
            await listener.close()
        await self.egress.aclose()
        await core.journaling.drain(0)
        await core.invoking.aclose()
        await core.consents.holding.aclose()
        await core.tool_sessions.close(others=len(core.neighbours.urls()) > 1)
        await core.upstreams.aclose()
        await core.programs.aclose()
        await core.keeper.drain(0)
        await core.turns.aclose()
        await core.activation.aclose()
        await core.records.aclose()
        await core.audit.aclose()
        try:
            await core.neighbours.leave()
        except LedgerError:
            log.info("Redis does not answer; this gateway's beat runs out by itself")
        for task in self._tasks.values():
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=TASK_SECONDS)
        self._tasks = {}
        await core.hop.close()
        await core.client.aclose()
        if self._owns_store:
            await core.store.aclose()
        await asyncio.to_thread(self._traces.close)
        await self._access_log.aclose()

    async def _run(self, name: str, loop: Callable[[], Awaitable[None]]) -> None:
        """The outermost frame of a loop: one that dies makes the gateway fail, and its process is started anew."""
        try:
            await loop()
        except Exception:  # whatever it was: told, and the process ends
            log.exception("the loop %s died; this gateway can serve no longer", name)
            self._draining.notify()
            self.failed.set()


async def create_gateway(
    settings: Settings,
    *,
    clock: Clock | None = None,
    store: Store | None = None,
    access_sink: Callable[[bytes], object] | None = None,
    logs: LogSource | None = None,
    named_hosts: Mapping[str, frozenset[Target]] | None = None,
    index: package_index.Offer | None = None,
    outside: Outside | None = None,
) -> Gateway:
    """The composition. Must be called in the event loop that will serve. A given `store` stays its giver's to close.

    `access_sink` takes batches of access lines (called in a thread); by default they go where `access_log` says. `logs` is where
    agents' lines can be read (None: in their cluster), `named_hosts` the platform's sets of egress hosts; the local platform knows both.
    `index` is the package index of a gateway that is a process of its own: the set `package-index`, and what builds use. `outside` is
    what models are reached with, where that is not the settings' to say.
    """
    clock = clock or SystemClock()
    exporter = telemetry.otlp_exporter(settings.otlp_endpoint) if settings.otlp_endpoint else None
    traces = telemetry.Telemetry(
        exporter, queue=settings.otlp_queue, gateway_id=settings.gateway_id, version=version("moorage")
    )
    return Gateway(
        settings,
        build(settings, clock, store or open_store(settings), connect(settings), traces, outside or Outside()),
        access_log=AccessLog(access_sink or _sink(settings)),
        traces=traces,
        logs=logs,
        named_hosts={} if named_hosts is None else named_hosts,
        index=index,
        owns_store=store is None,
    )


def _looking(index: package_index.Offer) -> Callable[[], Awaitable[None]]:
    async def look() -> None:
        try:
            await index.found()
        except package_index.IndexRefused as why:
            log.warning("package-index: %s", why)

    return look


def _egress_bounds(settings: Settings) -> Bounds:
    return Bounds(
        settings.egress_connections,
        settings.egress_requests,
        quantities.octets(settings.egress_sent),
        quantities.octets(settings.egress_received),
    )


def connect(settings: Settings) -> aioredis.Redis:
    """The Redis client. It never repeats a command by itself: who sends knows whether and when."""
    url = settings.redis_url.get_secret_value()
    only_tcp = {} if url.startswith("unix:") else {"socket_keepalive": True}
    client: aioredis.Redis = aioredis.Redis.from_url(
        url,
        socket_connect_timeout=settings.redis_seconds,
        **only_tcp,
        health_check_interval=0,
        retry=Retry(NoBackoff(), 0),
    )
    return client


def open_store(settings: Settings) -> Store:
    """The object store that the settings name."""
    if not settings.store.startswith("s3://"):
        return FolderStore(Path(settings.store), deadline=settings.store_seconds)
    from moorage_gateway.store import S3Settings, S3Store

    assert settings.s3_endpoint and settings.s3_access_key and settings.s3_secret_key  # checked by the settings
    place = urlsplit(settings.store)
    return S3Store(
        S3Settings(
            endpoint=settings.s3_endpoint,
            bucket=place.netloc,
            prefix=place.path.strip("/"),
            region=settings.s3_region,
            access_key=settings.s3_access_key.get_secret_value(),
            secret_key=settings.s3_secret_key.get_secret_value(),
        ),
        deadline=settings.store_seconds,
    )


def _sink(settings: Settings) -> Callable[[bytes], object] | None:
    if settings.access_log == "none":
        return None
    stream = (sys.stdout if settings.access_log == "stdout" else sys.stderr).buffer

    def write(lines: bytes) -> None:
        stream.write(lines)
        stream.flush()

    return write


def _url(host: str, port: int) -> str:
    shown = f"[{host}]" if ":" in host else host
    return f"http://{'127.0.0.1' if shown in ('0.0.0.0', '[::]') else shown}:{port}"
