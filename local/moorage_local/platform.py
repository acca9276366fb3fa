"""The composition behind `moorage dev`: Valkey, gateway, provider and deployments in one process, each ended by who began it.

Layer: local, the roof. Order: state folder → Valkey → gateway (ports are known) → machine and provider (sandboxes announce themselves
at those ports) → deployments → watching. The way back is the reverse: the gateway drains first, while sandboxes still run.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from redis.asyncio import Redis

from moorage_api import platform_wheel
from moorage_api.ledger import keys as ledger_keys
from moorage_api.ledger.provider import ProviderLedger
from moorage_api.provider.fleet import AgentState
from moorage_api.provider.loop import Provider
from moorage_gateway import package_index
from moorage_gateway.app import Gateway, create_gateway
from moorage_gateway.auth import SCOPES
from moorage_gateway.clock import SystemClock
from moorage_gateway.egress.rules import Target
from moorage_gateway.hints import Hints
from moorage_gateway.keys import new_text
from moorage_gateway.ledger_client import LedgerClient
from moorage_gateway.outer import Outside
from moorage_gateway.settings import Settings
from moorage_local import agent_logs, blueprint, machine, manifests, probe, watch
from moorage_local.applies import Applies
from moorage_local.deployments import Deployments, Refused
from moorage_local.endpoints import Endpoints
from moorage_local.environments import BuildSettings, Environments
from moorage_local.isolation import Isolation
from moorage_local.machine import Machine, MachineSettings
from moorage_local.programs import Around, Programs
from moorage_local.programs import of_platform as programs_of
from moorage_local.state import State, hold, write_atomically
from moorage_local.tasks import Tasks
from moorage_local.valkey import EndedAtStart, Fsync, Valkey, ValkeyError, ValkeySettings

log = logging.getLogger(__name__)

TENANT = "dev"
USER = "dev"
LOOPBACK = "127.0.0.1"
_STOP_WITHIN = 20.0  # seconds for one part to end
_RESTARTS = 5  # of Valkey within a minute; then something is wrong that a restart does not cure


@dataclass(frozen=True)
class PlatformSettings:
    """What `moorage dev` was asked for. `state`: None is a temporary folder, forgotten at the end."""

    folder: Path | None
    state: Path | None
    host: str = LOOPBACK
    port: int = 8080
    fsync: Fsync = "always"
    plain: bool = False
    otlp_endpoint: str | None = None
    archive_seconds: float = 86_400.0
    credentials: Path | None = None
    watch: bool = True
    settle_within: float = 600.0


@dataclass
class Platform:
    """A platform that serves."""

    settings: PlatformSettings
    state: State
    gateway: Gateway
    provider: Provider
    deployments: Deployments
    applies: Applies
    endpoints: Endpoints
    programs: Programs
    isolation: Isolation
    api_key: str
    failed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        """The base URL callers use."""
        return self.gateway.public_url

    def agents(self) -> list[dict[str, Any]]:
        """The deployed agents with their URLs and, where one is not ready, why."""
        found = []
        for tenant, name in self.deployments.names():
            if tenant != TENANT:
                continue
            state = self.provider.fleet.agents.get((tenant, name))
            ready = state is not None and state.newest is not None and state.newest.proven
            base = f"{self.url}/v1/agents/{name}"
            one = {"name": name, "responses_url": f"{base}/responses", "invocations_url": f"{base}/invocations"}
            message = state.conditions.message if state is not None else None
            found.append({**one, "ready": ready, "message": None if ready else message})
        return found

    async def settled(self) -> None:
        """Waits until every agent serves or has said why not."""
        waits = [self._settled(tenant, name) for tenant, name in self.deployments.names()]
        await asyncio.gather(*waits)

    async def _settled(self, tenant: str, name: str) -> AgentState | None:
        return await self.provider.settled(tenant, name, revision=None, within=self.settings.settle_within)

    async def reload(self) -> list[str]:
        """Reads the folder again and deploys what changed; returns what is wrong with it."""
        folder = self.settings.folder
        if folder is None:
            return []
        reading = await asyncio.to_thread(manifests.read_folder, folder)
        errors = [str(error) for error in reading.errors]
        # What stands in a file that is broken just now is not what was removed.
        broken = {error.where.partition(",")[0] for error in reading.errors}
        errors += self.endpoints.use(reading.endpoints, broken, reading.toolboxes, reading.routines)
        self.programs.use(self.endpoints.toolboxes)
        for (tenant, name), file in list(self.applies.owned.items()):
            if name not in reading.agents and str(file) not in broken:
                del self.applies.owned[tenant, name]
                await self.deployments.withdraw(tenant, name)
        for name, found in reading.agents.items():
            self.applies.owned[TENANT, name] = found.file
            try:
                await self.deployments.deploy(TENANT, found.agent, base=found.base)
            except Refused as error:
                errors.append(f"{found.file}: {error}")
        return errors + self.endpoints.without_agent(
            {name for tenant, name in self.deployments.names() if tenant == TENANT}
        )


@contextlib.asynccontextmanager
async def running(
    settings: PlatformSettings, *, say: Callable[[str], None], on_line: Callable[[agent_logs.AgentLine], None]
) -> AsyncIterator[Platform]:
    """A platform for as long as the context lasts. `say` gets sentences for people, `on_line` what agents print.

    Raises StateError, ValkeyError, OSError (a taken port) when it cannot start.
    """
    async with contextlib.AsyncExitStack() as stack:
        state = stack.enter_context(hold(settings.state))
        agent_logs.prune(state.logs)
        tasks = await stack.enter_async_context(Tasks())
        want: Any = "plain" if settings.plain else "auto"
        detecting = tasks.begin(
            "detect", probe.detect(instance=_instance(state), launcher=blueprint.LAUNCHER, want=want)
        )
        wheel = asyncio.to_thread(platform_wheel.build, state.root / "wheels")
        valkey = Valkey(state, ValkeySettings(fsync=settings.fsync))
        _, built = await asyncio.gather(valkey.start(), wheel)
        stack.push_async_callback(valkey.stop)

        index = _Index()
        endpoints = Endpoints(TENANT, os.environ, settings.credentials)
        gateway = await _gateway(settings, state, valkey, index.named, endpoints)
        stack.push_async_callback(_within, _STOP_WITHIN, gateway.stop, "the gateway")
        await gateway.start()
        api_key = await _dev_key(state, gateway)

        isolation = await detecting
        if isolation.groups is not None:
            stack.push_async_callback(isolation.groups.close)
        provider, ledger, real = await _provider(stack, state, valkey, gateway, isolation, say)
        environments = Environments(state.environments, built, index.settings, BuildSettings(), variables=os.environ)
        deployments = Deployments(
            provider,
            environments,
            sources_root=state.sources,
            fetch=gateway.core.store.get_file,
            index=lambda: index.found(say),
        )
        stack.push_async_callback(deployments.close)
        applies = Applies(ledger, deployments, state.manifests, endpoints, TENANT)
        private = (state.root, *([settings.credentials] if settings.credentials is not None else []))
        around = Around(TENANT, real.token_key, endpoints.key_of, real.user_of, private)
        programs = programs_of(
            state, isolation, environments, around, instance=_instance(state), placed=endpoints.placed, say=say
        )
        platform = Platform(
            settings, state, gateway, provider, deployments, applies, endpoints, programs, isolation, api_key
        )

        tasks.failed = platform.failed
        tasks.keep("valkey", _keep(valkey, tasks, say))
        tasks.keep("provider", provider.run())
        # Before the machine closes and while Redis answers: else it would make anew what is being ended.
        stack.push_async_callback(_within, _STOP_WITHIN, lambda: tasks.end("provider"), "the provider")
        tasks.keep("hints", _hints(valkey, gateway, provider, applies))
        tasks.keep("agents' output", agent_logs.print_all(state.logs, on_line))
        for error in await platform.reload():
            say(error)
        await applies.restore()
        tasks.keep("applies", applies.run())
        tasks.keep("endpoints", endpoints.run(ledger))
        tasks.keep("programs", programs.run())
        if settings.watch and settings.folder is not None:
            tasks.keep("watch", watch.changes(settings.folder, lambda: _reload(platform, say)))
        stack.push_async_callback(_drain, gateway, tasks)
        yield platform


async def _drain(gateway: Gateway, tasks: Tasks) -> None:
    tasks.ending = True
    await _within(_STOP_WITHIN, gateway.drain, "the gateway")


async def _within(seconds: float, work: Callable[[], Awaitable[None]], what: str) -> None:
    """An end with a deadline: what does not end in time must not keep the rest from ending."""
    try:
        async with asyncio.timeout(seconds):
            await work()
    except TimeoutError:
        log.error("%s did not end within %g s; it is left behind", what, seconds)


async def _reload(platform: Platform, say: Callable[[str], None]) -> None:
    for error in await platform.reload():
        say(error)


async def _gateway(
    settings: PlatformSettings, state: State, valkey: Valkey, named: dict[str, frozenset[Target]], endpoints: Endpoints
) -> Gateway:
    return await create_gateway(
        Settings(
            dev=True,
            anonymous=False,
            redis_url=SecretStr(valkey.url),
            durability="always" if settings.fsync == "always" else "relaxed",
            store=str(state.objects),
            consent_keys=(SecretStr(state.secret("consent_key")),),
            public_host=settings.host,
            public_port=settings.port,
            sandbox_port=0,
            egress_port=0,
            control_port=0,
            drain_notice_seconds=0.0,
            drain_seconds=10.0,
            access_log="none",
            otlp_endpoint=settings.otlp_endpoint,
            archive_seconds=settings.archive_seconds,
        ),
        logs=agent_logs.FolderLogs(state.logs),
        named_hosts=named,
        outside=Outside(endpoints, endpoints.allowed),
    )


async def _provider(
    stack: contextlib.AsyncExitStack,
    state: State,
    valkey: Valkey,
    gateway: Gateway,
    isolation: Isolation,
    say: Callable[[str], None],
) -> tuple[Provider, ProviderLedger, Machine]:
    client = LedgerClient(Redis.from_url(valkey.url), who=f"provider-{os.getpid()}")
    stack.push_async_callback(client.aclose)
    await client.found()
    settings = MachineSettings(
        gateways=lambda: (gateway.sandbox_url,),
        egress=lambda: f"{gateway.settings.egress_host}:{gateway.egress_port}",
        on_line=lambda agent, line: say(f"{agent} | {line}"),
    )
    real = await stack.enter_async_context(machine.open_machine(state, isolation, settings))
    ledger = ProviderLedger(client)

    async def found() -> None:
        await client.found()

    return Provider(ledger, real, now=time.monotonic, found=found, token_key=real.token_key), ledger, real


async def _dev_key(state: State, gateway: Gateway) -> str:
    """The API key of this state folder: made once, kept with mode 0600, known to the gateway."""
    path = state.root / "api_key"
    try:
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        text = new_text()
    record = await gateway.core.keys.ensure(text, tenant=TENANT, user=USER, scopes=SCOPES, name="moorage dev")
    if record is None:
        text = new_text()
        await gateway.core.keys.ensure(text, tenant=TENANT, user=USER, scopes=SCOPES, name="moorage dev")
    await asyncio.to_thread(write_atomically, path, text.encode())
    return text


async def _hints(valkey: Valkey, gateway: Gateway, provider: Provider, applies: Applies) -> None:
    redis = Redis.from_url(valkey.url)
    hints = Hints(redis, gateway.core.client, SystemClock())

    def wake(_: str = "") -> None:
        provider.wake()
        applies.wake()

    hints.on(ledger_keys.HINT_PROVIDER, wake)
    hints.on_silence(wake)
    try:
        await hints.run()
    finally:
        await redis.aclose()


async def _keep(valkey: Valkey, tasks: Tasks, say: Callable[[str], None]) -> None:
    """Starts Valkey again when it ends by itself; what it had acknowledged is in its append-only file."""
    ends: list[float] = []
    code: int | None = None
    when = ""
    while True:
        if code is None:
            code, when = await valkey.wait_ended(), ""
        if tasks.ending:
            return
        now = time.monotonic()
        ends = [*(end for end in ends if now - end < 60.0), now]
        if len(ends) > _RESTARTS:
            raise ValkeyError(f"Valkey ended {len(ends)} times within a minute (last code {code})")
        say(f"Valkey ended with code {code}{when}; it is started again")
        try:
            await valkey.start()
            code = None
        except EndedAtStart as ended:
            code, when = ended.code, " as it was started"


class _Index:
    """This machine's package index, looked at once, when the first agent asks for it."""

    def __init__(self) -> None:
        self.settings = package_index.read_settings(os.environ, Path.home())
        # The gateway holds this mapping; the set is filled in when it is known.
        self.named: dict[str, frozenset[Target]] = {package_index.NAME: frozenset()}
        self._looking = asyncio.Lock()
        self._known: package_index.PackageIndex | None = None

    async def found(self, say: Callable[[str], None]) -> package_index.PackageIndex | None:
        """The index as sandboxes get it; None, with a sentence, where it cannot be offered."""
        async with self._looking:
            if self._known is None:
                try:
                    self._known = await package_index.discover(self.settings)
                except package_index.IndexRefused as error:
                    say(f"package-index: {error}")
                    return None
                self.named[package_index.NAME] = self._known.hosts
            return self._known


def _instance(state: State) -> str:
    """The name of this platform's control groups: the same for the same state folder."""
    return state.runtime.name.removeprefix("moorage-")
