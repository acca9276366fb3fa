"""The control API over a control world: real key service, audit log, bundles and deployer, a provider that answers by rule. `kept`: where
logs are, instead of in memory."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2

from fakes.control_worlds import World
from moorage_api.errors import ApiError
from moorage_api.ledger.consents import ConsentLedger
from moorage_api.ledger.provider import ProviderLedger
from moorage_api.ledger.routines import RoutineLedger
from moorage_api.ledger.tool_sessions import ToolSessionLedger
from moorage_gateway import facts
from moorage_gateway.audit import AuditLog
from moorage_gateway.auth import Anonymous, Authenticator
from moorage_gateway.bundles import Bundles, UploadLimits
from moorage_gateway.clock import SystemClock
from moorage_gateway.consents.flow import Consents, Means
from moorage_gateway.consents.records import ConsentRecords
from moorage_gateway.consents.sealing import Sealing
from moorage_gateway.deploy import Deployer
from moorage_gateway.keys import KeyService
from moorage_gateway.logs import LogSource, MemoryLogs
from moorage_gateway.models.asking import Upstreams
from moorage_gateway.models.credentials import NoCredentials
from moorage_gateway.models.identity import WorkloadTokens
from moorage_gateway.routes import answers
from moorage_gateway.routes.control import Services, create_control_app
from moorage_gateway.routines.desk import Desk
from moorage_gateway.routines.history import History
from moorage_gateway.tools.approving import Verdict
from moorage_gateway.tools.kind import People, Toolboxes
from moorage_gateway.tools.making import OfUsers
from moorage_gateway.tools.stdio import Programs
from moorage_gateway.tools.trying import Trials

Rule = Callable[[dict[str, Any]], dict[str, Any]]


class _Nobody:
    """By hand no agent is called, and no person asked."""

    async def ask(self, *_: Any) -> dict[str, Any]:
        raise AssertionError("asked")

    async def look(self, *_: Any) -> Verdict:
        raise AssertionError("looked")


def no_consents(world: World) -> Consents:
    """Of a platform without toolboxes: what is kept is found all the same."""
    sealing = Sealing(["ab" * 32])
    means = Means(Upstreams(frozenset), NoCredentials(), lambda *_: None, sealing, world.clock)
    return Consents(means, ConsentLedger(world.client), ConsentRecords(world.store, sealing), "http://gateway.test")


def no_toolboxes(world: World, consents: Consents) -> Trials:
    """A tenant without any."""

    async def nobody(*_: str) -> str:
        return ""

    programs = Programs(frozenset, lambda: None)
    people = People(_Nobody(), _Nobody(), programs, OfUsers(consents, nobody), ToolSessionLedger(world.client))
    upstreams, clock = Upstreams(frozenset), SystemClock()
    identity = WorkloadTokens(upstreams, None, frozenset(), clock.monotonic)
    boxes = Toolboxes(lambda *_: None, upstreams, NoCredentials(), clock, identity=identity, people=people, version="0")
    return Trials(boxes, lambda *_: None, lambda _: [])


class ControlApp:
    """One gateway's control API. `provider` answers apply requests and removes files while `providing` is entered."""

    def __init__(
        self,
        world: World,
        *,
        within: float = 5.0,
        limits: UploadLimits | None = None,
        kept: LogSource | None = None,
    ) -> None:
        self.world = world
        self.keys = KeyService(world.store, world.client, now=time.time, monotonic=time.monotonic)
        self.audit = AuditLog(world.store, world.client, world.clock, writer="gw-test-0001")
        self.bundles = Bundles(world.store, world.clock, limits)
        self.logs = MemoryLogs()
        self.requests: list[dict[str, Any]] = []
        self.consents = no_consents(world)
        self.services = Services(
            sessions=world.sessions,
            session_control=world.control,
            session_files=world.files,
            keys=self.keys,
            audit=self.audit,
            bundles=self.bundles,
            deployer=Deployer(world.client, self.bundles, world.clock, within=within),
            logs=kept or self.logs,
            trials=no_toolboxes(world, self.consents),
            consents=self.consents,
            routines=Desk(RoutineLedger(world.client), History(world.store), world.clock),
            store=world.store,
            commands=world.client,
            clock=world.clock,
            public_url=lambda: "http://gateway.test",
        )
        self.control = create_control_app(self.services)
        self._door = Authenticator(self.keys, Anonymous())

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        scope[facts.KEY] = facts.Facts("req-1", "trace-1", "")
        try:
            caller = await self._door.identify(scope["headers"], "127.0.0.1")
            scope[facts.KEY].caller = caller
            scope.setdefault("state", {})["principal"] = caller
            await self.control(scope, receive, send)
        except ApiError as error:
            await answers.send_error(send, error)

    async def key(self, tenant: str = "acme", user: str = "ann", *scopes: str, agents: list[str] | None = None) -> str:
        _, text = await self.keys.create(tenant=tenant, user=user, scopes=scopes or ("admin",), agents=agents)
        return text

    def client(self, key: str | None) -> httpx2.AsyncClient:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        return httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=self), base_url="http://gateway.test", headers=headers
        )

    @contextlib.asynccontextmanager
    async def providing(self, rule: Rule) -> AsyncIterator[None]:
        ledger = ProviderLedger(self.world.client)

        async def serve() -> None:
            while True:
                for key in await self.world.client.read("ZRANGE", "deletes", 0, -1):
                    await ledger.removed(key.decode())
                request = await ledger.next_apply()
                if request is None:
                    await asyncio.sleep(0.01)
                    continue
                fields = {name: getattr(request, name) for name in ("id", "verb", "tenant", "agent", "manifest", "by")}
                self.requests.append(fields)
                await ledger.answer(request.id, rule(fields))

        task = asyncio.create_task(serve())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait({task})
