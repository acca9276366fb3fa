"""The operator as one process, put together. Layer: roof of the operator; everything is made here and nowhere else.

Every replica watches; the one with the Lease works. A replica that loses it ends, and the cluster starts it again: nothing of the loop has
to be undone, since pods, claims and ledger hold all there is.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from typing import TypeVar
from urllib.request import getproxies

import kopf
from kubernetes.aio import config
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration

from moorage_api import names
from moorage_api.ledger.provider import ProviderLedger
from moorage_api.ledger.script import LedgerError
from moorage_api.pod_tokens import PodTokens
from moorage_api.provider.loop import Provider, ProviderSettings
from moorage_operator import handlers, ledger, marks
from moorage_operator.agents import Agents
from moorage_operator.applies import Applies
from moorage_operator.builds import Builds
from moorage_operator.direct import Direct
from moorage_operator.endpoints import Endpoints
from moorage_operator.following import follow
from moorage_operator.health import Health
from moorage_operator.hints import listen
from moorage_operator.kube import NAMESPACES, Kind, Kube, KubeError
from moorage_operator.lease import Lease
from moorage_operator.machine import PodMachine
from moorage_operator.observed import Observed
from moorage_operator.parts import AUDIENCE
from moorage_operator.relisting import relist
from moorage_operator.settings import Settings

log = logging.getLogger(__name__)
K = TypeVar("K", bound=Kube)

TICK_SECONDS = 0.5
LOOK_SECONDS = 1.0
QUOTA_SECONDS = 5.0  # between two looks at what is unfit or out of reach
GATHER_SECONDS = 0.02  # from the first news to a look between: what comes meanwhile is seen by it
FRESH_SECONDS = 5.0  # a look at everything that is no older, with watches since, need not be taken again
STALL_SECONDS = 60.0  # a loop that did not move for so long is stuck
AWAY_SECONDS = 2.0
CANCEL_SECONDS = 5.0  # for a task to end before it is cancelled once more


class Operator:
    """One replica. `run` works until it is cancelled or the lease is lost.

    `ledger_at`: the ledger at a URL, for a writer of that name.
    `serves` is called once this replica knows everything there is and begins to work.
    """

    def __init__(
        self,
        settings: Settings,
        kube: Kube,
        *,
        ledger_at: Callable[[str, str], ledger.LedgerRunner] = ledger.at,
        serves: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._serves = serves
        self._kube = kube
        self._ledger_at = ledger_at
        self._observed = Observed()
        self._whole = asyncio.Event()
        self._whole_at = float("-inf")
        self._news = asyncio.Event()
        self._observed.news = self._news.set
        self._moved = time.monotonic()
        self._leads = False
        self._tenants: dict[str, str] = {}
        builds = Builds(kube, self._observed, settings, now=time.monotonic)
        self._agents = Agents(kube, self._observed, settings, builds, now=time.time, tenants=self._tenants)
        self._machine = PodMachine(
            kube,
            self._observed,
            settings,
            tenants=self._tenants,
            place=self._agents.place,
            ledger=self._ledger,
            now=time.monotonic,
            wall=time.time,
        )
        self._runner: ledger.LedgerRunner | None = None
        self._pod_tokens: PodTokens | None = None
        self._provider: Provider | None = None

    async def run(self) -> None:
        """Watches, waits for the lease, works. Returns when the lease is lost."""
        settings, me = self._settings, f"operator-{names.new_secret()[:12]}"
        health = Health(ready=self._whole.is_set, alive=self._alive, numbers=self._numbers)
        await health.start(settings.health_host, settings.health_port)
        lease = Lease(self._kube, settings.namespace, settings.lease_name, me, now=time.monotonic, wall=time.time)
        stop = asyncio.Event()
        watching = asyncio.create_task(self._watch(stop), name="watch")
        try:
            await _first(
                watching,
                asyncio.create_task(self._follow(), name="follow"),
                asyncio.create_task(self._lead(lease, me), name="lead"),
            )
        finally:
            stop.set()
            await _end(watching)
            await lease.release()
            await health.close()

    async def _watch(self, stop: asyncio.Event) -> None:
        await kopf.operator(
            registry=handlers.registry(self._observed, self._settings),
            settings=handlers.configuration(),
            namespaces=self._settings.namespaces,
            standalone=True,
            stop_flag=stop,
        )

    async def _follow(self) -> None:
        """Every replica's, from its first look at everything."""
        await follow(self._kube, self._observed, await self._until_whole())

    async def _lead(self, lease: Lease, me: str) -> None:
        await self._whole.wait()
        await lease.held()
        log.info("%s holds the lease", me)
        self._moved, self._leads = time.monotonic(), True
        working = asyncio.create_task(self._work(me), name="work")
        try:
            await _first(working, asyncio.create_task(lease.lost(), name="renew"))
        finally:
            self._leads = False
            await _end(working)

    async def _until_whole(self) -> dict[tuple[Kind, str], str]:
        while True:
            try:
                versions = await relist(self._kube, self._observed, self._settings.namespaces)
            except KubeError as fault:
                log.warning("waiting for the cluster: %s", fault)
                await asyncio.sleep(AWAY_SECONDS)
            else:
                self._whole.set()
                self._whole_at = time.monotonic()
                return versions

    async def _until_read(self) -> None:
        """To whom namespaces belong, and what tokens are verified with: a server that is busy just then costs no operator."""
        while True:
            try:
                await self._belongings()
                await self._read_keys()
                return
            except KubeError as fault:
                log.warning("waiting for the cluster: %s", fault)
                await asyncio.sleep(AWAY_SECONDS)

    async def _work(self, me: str) -> None:
        settings = self._settings
        runner = self._ledger_at(settings.redis_url.get_secret_value(), me)
        self._runner = runner
        try:
            doors = ProviderLedger(runner)
            if time.monotonic() - self._whole_at > FRESH_SECONDS:
                await self._until_whole()  # what a watch has missed while another replica worked
            await _until_found(runner)
            await self._until_read()

            async def found() -> None:
                """Before the provider's own key: see set_pod_tokens. No API server is needed, which may be away as well."""
                await runner.found()
                await self._publish_keys(doors)

            await found()
            provider = self._provider = Provider(
                doors,
                self._machine,
                now=time.time,
                found=found,
                token_key=settings.token_key.get_secret_value(),
                settings=ProviderSettings(
                    tick=TICK_SECONDS, quota_every=min(QUOTA_SECONDS, settings.lost_after_seconds / 2)
                ),
            )
            await self._agents.look(provider)
            self._serves()
            applies = Applies(doors, self._kube, self._tenants)
            endpoints = Endpoints(self._kube, settings, now=time.time, tenants=self._tenants)
            hints = ledger.connect(settings.redis_url.get_secret_value())
            await _first(
                asyncio.create_task(provider.run(), name="provider"),
                asyncio.create_task(self._look(provider, doors), name="agents"),
                asyncio.create_task(applies.run(), name="applies"),
                asyncio.create_task(endpoints.run(doors), name="endpoints"),
                asyncio.create_task(listen(hints, provider.wake, self._machine.served), name="hints"),
            )
        finally:
            await runner.aclose()

    async def _look(self, provider: Provider, doors: ProviderLedger) -> None:
        """Brings what people want to the provider, and what is so back to them: all of it once a second, what is new at once."""
        fresh: set[tuple[str, str]] = set()
        look_at, relist_at, tidy = 0.0, time.monotonic() + self._settings.resync_seconds, True

        def changed(tenant: str, agent: str) -> None:
            fresh.add((tenant, agent))
            self._news.set()

        provider.changed = changed
        while True:
            now = time.monotonic()
            only = None if now >= look_at else frozenset(fresh)
            fresh.clear()
            try:
                await self._agents.look(provider)
                if only is None:
                    look_at = now + LOOK_SECONDS
                    await self._agents.guard(self._machine)
                    await self._machine.mend()
                await self._agents.report(provider, doors, only)
                if now >= relist_at:
                    relist_at, tidy = now + self._settings.resync_seconds, True
                    await relist(self._kube, self._observed, self._settings.namespaces)
                    await self._belongings()
                    await self._read_keys()
                    await self._publish_keys(doors)
                if tidy:
                    await self._agents.tidy(provider, doors)
                    tidy = False
            except (KubeError, LedgerError) as fault:
                log.warning("looking again: %s", fault)
                await asyncio.sleep(LOOK_SECONDS)
            self._moved = time.monotonic()
            await self._until_news(look_at)

    async def _until_news(self, at: float) -> None:
        """Waits for news, or until `at` (time.monotonic); a moment at least."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, at - time.monotonic())):
                await self._news.wait()
        await asyncio.sleep(GATHER_SECONDS)
        self._news.clear()

    async def _publish_keys(self, doors: ProviderLedger) -> None:
        """Tells gateways how to verify the tokens of our pods."""
        assert self._pod_tokens is not None
        await doors.set_pod_tokens(self._pod_tokens)

    async def _read_keys(self) -> None:
        issuer, keys = await self._kube.issuer(), await self._kube.public_keys()
        self._pod_tokens = PodTokens(issuer, AUDIENCE, keys, dict(self._tenants))

    async def _belongings(self) -> None:
        """To whom each namespace belongs: its label, else its own name."""
        for name in self._settings.namespaces:
            body = await self._kube.get(NAMESPACES, None, name)
            tenant = marks.text(body, "labels", marks.TENANT) if body is not None else ""
            self._tenants[name] = tenant or name

    def _ledger(self) -> str:
        return self._runner.ledger if self._runner is not None else ""

    def _alive(self) -> bool:
        return not self._leads or time.monotonic() - self._moved < STALL_SECONDS

    def _numbers(self) -> dict[str, float]:
        sandboxes = len(self._provider.fleet.sandboxes) if self._provider is not None else 0
        return {
            "moorage_operator_leader": float(self._leads),
            "moorage_operator_sandboxes": float(sandboxes),
            "moorage_operator_out_of_reach": float(self._machine.reach.out),
            "moorage_operator_volumes_left_total": float(self._machine.reach.left),
            "moorage_operator_api_calls_total": float(self._kube.calls),
            "moorage_operator_api_writes_total": float(self._kube.writes),
        }


@contextlib.asynccontextmanager
async def connected() -> AsyncIterator[Kube]:
    """The API server of the cluster this process runs in, else of KUBECONFIG."""
    configuration = Configuration()
    try:
        config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    except config.ConfigException:
        await config.load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    async with talking(configuration, Kube) as kube:
        yield kube


@contextlib.asynccontextmanager
async def talking(configuration: Configuration, kind: type[K]) -> AsyncIterator[K]:
    """The API server that `configuration` names. Where a proxy is in between, over the client's own connections alone."""
    proxied = bool(getproxies() or configuration.proxy)
    if not proxied:  # else the client looks for one at every request, in a thread
        configuration.client_session_kwargs = {"trust_env": False}

    async def token() -> str | None:
        return await configuration.get_api_key_with_prefix("BearerToken", alias="authorization")

    async with ApiClient(configuration=configuration) as api:
        tls, name = api.rest_client.ssl_context, configuration.tls_server_name
        direct = Direct(configuration.host, tls=tls, server_name=name, token=token)
        try:
            yield kind(api, None if proxied else direct)
        finally:
            await direct.close()


async def _until_found(runner: ledger.LedgerRunner) -> None:
    while True:
        try:
            await runner.found()
            return
        except LedgerError as fault:
            log.warning("waiting for the ledger: %s", fault)
            await asyncio.sleep(AWAY_SECONDS)


async def _first(*tasks: asyncio.Task[None]) -> None:
    """Waits for the first of them to end, ends the others, and raises what it raised."""
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await _end(*tasks)
    for task in done:
        task.result()


async def _end(*tasks: asyncio.Task[None]) -> None:
    """Cancels until they have ended: a library under them may swallow one cancellation, and who lost the lease must not go on."""
    left, cancelled = set(tasks), False
    while left:
        for task in left:
            task.cancel()
        until = time.monotonic() + CANCEL_SECONDS
        while left and (rest := until - time.monotonic()) > 0:
            try:
                _, left = await asyncio.wait(left, timeout=rest)
            except asyncio.CancelledError:  # by its own owner, for the same reason: they end first
                left, cancelled = {task for task in left if not task.done()}, True
    await asyncio.gather(*tasks, return_exceptions=True)  # read, so that nothing warns
    if cancelled:
        raise asyncio.CancelledError
