"""One operator's surroundings: a namespace or two, a ledger, and the gateway's half of it. Layer: I/O rim of the tests.

A lease whose holder was seen dead is emptied by hand, which is what its 15 seconds come to; that they run out is tried by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis.asyncio as aioredis

from api import replica
from api.points import Point
from api.processes import Nursery, Process
from fakes.stand_in_nodes import Nodes
from moorage_api import names
from moorage_api.catalog import field as catalog_field
from moorage_api.ledger import keys
from moorage_api.ledger.records import Claim, SessionIdentity, SessionRecord
from moorage_api.ledger.sessions import SessionLedger
from moorage_gateway.ledger_client import LedgerClient
from moorage_operator import marks
from moorage_operator.kube import AGENTS, CLAIMS, LEASES, NAMESPACES, PODS, Kind, Kube

WITHIN = 40.0
EVERY = 0.2
IMAGE = "registry.example/agent:1"
TOKEN_KEY = "ab" * 32
SECRETS = Kind("v1", "secrets")


async def until(what: str, look: Callable[[], Awaitable[Any]], within: float = WITHIN) -> Any:
    """The first true answer of `look`; AssertionError, with the last one, when it does not come."""
    end = time.monotonic() + within
    while True:
        found = await look()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"not within {within:g} s: {what} (last: {found!r})")
        await asyncio.sleep(EVERY)


@dataclass(frozen=True)
class Means:
    """What worlds are made of. `kube`: the administrator's; `database`: a number in the Valkey at `socket`, this world's alone; `nodes`: on
    which pods are said to run."""

    kube: Kube
    nodes: Nodes
    nursery: Nursery
    kubeconfig: Path
    socket: Path
    folder: Path


@dataclass
class World:
    """`namespace` is the operator's own and holds agents of the tenant `dev`; `more` are further watched namespaces → tenant."""

    means: Means
    namespace: str
    database: int
    more: dict[str, str]
    gateway: LedgerClient
    sessions: SessionLedger
    redis: aioredis.Redis
    operators: list[Process] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        """Logs and points of this world's operators."""
        return self.means.folder / self.namespace

    @property
    def kube(self) -> Kube:
        """The API server, as its administrator."""
        return self.means.kube

    @property
    def tenants(self) -> dict[str, str]:
        """Namespace → tenant."""
        return {self.namespace: "dev", **self.more}

    # -- the operator

    def start(self, end: Point | None = None, **settings: str) -> Process:
        """A further operator; `end`: where it dies; `settings`: more of its environment."""
        log = self.folder / f"operator-{len(self.operators)}.log"
        where = (end.number, end.side) if end is not None else None
        environment = self.told | settings
        order = replica.Order(str(self.means.kubeconfig), str(self.folder), str(log), environment, where)
        self.operators.append(self.means.nursery.start(order))
        return self.operators[-1]

    @property
    def told(self) -> dict[str, str]:
        """What an operator is told, but for its kubeconfig."""
        return {
            "MOORAGE_REDIS_URL": f"unix://{self.means.socket}?db={self.database}",
            "MOORAGE_TOKEN_KEY": TOKEN_KEY,
            "MOORAGE_NAMESPACE": self.namespace,
            "MOORAGE_NAMESPACES": ",".join(self.tenants),
            "MOORAGE_SANDBOX_IMAGE": "registry.example/sandbox:1",
            "MOORAGE_SANDBOX_URL": "http://192.0.2.2:8081",
            "MOORAGE_EGRESS_URL": "http://192.0.2.2:8082",
            "MOORAGE_GATEWAY_CIDR": "192.0.2.2/32",
            "MOORAGE_PUBLIC_URL": "http://agents.example",
            "MOORAGE_HEALTH_HOST": "127.0.0.1",
            "MOORAGE_HEALTH_PORT": "0",
            "MOORAGE_RESYNC_SECONDS": "5",
            "MOORAGE_LOST_AFTER_SECONDS": "2",
        }

    def count(self) -> None:
        """From here writes are counted."""
        replica.switch(self.folder).touch()

    def counted(self) -> list[str]:
        """The names of the writes that were counted."""
        record = replica.record(self.folder)
        return record.read_text().split("\n")[:-1] if record.exists() else []

    async def holder(self) -> str:
        """Who holds the lease; "" when nobody does."""
        body = await self.kube.get(LEASES, self.namespace, "moorage-operator")
        return str((body or {}).get("spec", {}).get("holderIdentity") or "")

    async def free_lease(self) -> None:
        """The lease of an operator that was seen dead has run out."""
        if await self.holder():
            await self.kube.merge(LEASES, self.namespace, "moorage-operator", {"spec": {"holderIdentity": ""}})

    async def replace(self, dead: Process) -> Process:
        """Another operator in place of a dead one, once it works."""
        await dead.wait()
        await self.free_lease()
        fresh = self.start()
        await until("another operator works", self.holder)
        return fresh

    # -- people

    async def apply(self, agent: str, namespace: str = "", **spec: Any) -> None:
        """A HostedAgent, as a person applies it. One with a source has no image."""
        body = {
            "apiVersion": "moorage.dev/v1alpha1", "kind": "HostedAgent",
            "metadata": {"name": agent, "namespace": namespace or self.namespace},
            "spec": {**({} if "source" in spec else {"image": IMAGE}), "pool": {"min": 2, "max": 3}, "workspace": {"size": "16Mi"}, **spec},
        }  # fmt: skip
        await self.kube.apply(AGENTS, body, manager="somebody")

    async def agent(self, agent: str, namespace: str = "") -> dict[str, Any] | None:
        """Its object."""
        return await self.kube.get(AGENTS, namespace or self.namespace, agent)

    async def until_ready(self, agent: str, namespace: str = "", **sessions: int) -> None:
        """Waits for the condition Ready of its newest spec, and for these counts."""

        async def ready() -> bool:
            body = await self.agent(agent, namespace)
            status = (body or {}).get("status") or {}
            held = {one["type"]: one["status"] for one in status.get("conditions", ())}
            counts = status.get("sessions") or {}
            fresh = body is not None and status.get("observedGeneration") == body["metadata"]["generation"]
            return fresh and held.get("Ready") == "True" and all(counts.get(name) == n for name, n in sessions.items())

        await until(f"{agent} is Ready with {sessions}", ready)

    async def pods(self, agent: str = "") -> list[dict[str, Any]]:
        """Pods of the operator's, in all watched namespaces."""
        labels = {marks.OURS: marks.MANAGER, **({marks.AGENT: agent} if agent else {})}
        return await self.all(PODS, labels)

    async def all(self, kind: Kind, labels: dict[str, str]) -> list[dict[str, Any]]:
        """Everything of a kind with these labels, in all watched namespaces."""
        return [
            body for space in self.tenants for body in [one async for one in self.kube.each(kind, space, labels=labels)]
        ]

    # -- the gateway's half

    def key(self, session: str, agent: str, tenant: str = "dev") -> str:
        """The key of a session."""
        return names.session_key(tenant, names.partition(tenant, agent, "ann", session))

    async def open(self, session: str, agent: str, tenant: str = "dev") -> str:
        """A session's record; its key."""
        partition = names.partition(tenant, agent, "ann", session)
        identity = SessionIdentity(tenant, agent, "ann", session, partition)
        assert await self.sessions.open_session(self.key(session, agent, tenant), identity) == "OK"
        return self.key(session, agent, tenant)

    async def revision(self, agent: str, tenant: str = "dev") -> str:
        """The revision that new sessions get; waits for one that is ready."""

        async def newest() -> str:
            raw = await self.redis.hget(keys.CATALOG, catalog_field(tenant, agent))  # type: ignore[misc]
            shares = json.loads(raw)["revisions"] if raw else []
            return next((str(one["revision"]) for one in shares if one["weight"]), "")

        return str(await until(f"{agent} is in the catalog", newest))

    async def claim(self, key: str, agent: str, tenant: str = "dev") -> Claim:
        """A route for the session: out of the pool, else when the operator has made one; and the shim's binding."""
        revision = await self.revision(agent, tenant)

        async def routed() -> Claim | None:
            found = await self.sessions.claim(key, revision, named=False)
            return found if found.word in ("CLAIMED", "ROUTE") else None

        claim: Claim = await until(f"{key} has a sandbox", routed)
        assert await self.sessions.bound(key, claim.epoch) == "OK"
        return claim

    async def record(self, key: str) -> SessionRecord:
        """The session as the ledger has it."""
        found = await self.sessions.session(key)
        assert found is not None
        return found

    async def hibernate(self, key: str) -> None:
        """The shim was asked, and is quiet."""
        epoch = (await self.record(key)).epoch
        assert await self.sessions.drain(key, epoch, idle_before=0) == "OK"
        assert await self.sessions.hibernated(key, epoch, "idle") == "OK"

    async def moved(self, key: str) -> None:
        """Waits until the operator has given the session's volume up, and has it begin elsewhere: its newest checkpoint was read whole."""

        async def moves() -> bool:
            record = await self.record(key)
            if record.sandbox and not record.out:  # as whoever calls it does, and has no answer
                await self.sessions.doom(record.sandbox, "no answer")
            return bool(record.out) and await self.sessions.move(key, record.epoch, record.volume, restore=True) == "OK"

        await until(f"{key} moves", moves)

    async def until_noted(self, key: str) -> None:
        """Waits for the note on the session's claim."""

        async def noted() -> bool:
            volume = (await self.record(key)).volume
            for space in self.tenants:
                body = await self.kube.get(CLAIMS, space, volume)
                if body is not None and marks.text(body, "annotations", marks.SESSION) == key:
                    return True
            return False

        await until(f"the claim of {key} bears its note", noted)

    def logs(self) -> str:
        """What the operators said last."""
        return "\n".join(
            f"-- {path.name}\n{path.read_text()[-3000:]}" for path in sorted(self.folder.glob("operator-*.log"))
        )


@contextlib.asynccontextmanager
async def world_of(means: Means, name: str, database: int, more: Sequence[str] = ()) -> AsyncIterator[World]:
    """A world without an operator yet. `more`: tenants that get a namespace each."""
    further = {f"{name}-{tenant}": tenant for tenant in more}
    (means.folder / name).mkdir(parents=True)
    for space, tenant in {name: "dev", **further}.items():
        labels = {"pod-security.kubernetes.io/enforce": "restricted", marks.TENANT: tenant}
        meta = {"name": space, "namespace": "", "labels": labels}
        await means.kube.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": meta})
    url = f"unix://{means.socket}?db={database}"
    redis = aioredis.Redis.from_url(url)
    await redis.flushdb()
    gateway = LedgerClient(aioredis.Redis.from_url(url), who="gateway")
    await gateway.found()
    world = World(means, name, database, further, gateway, SessionLedger(gateway), redis)
    try:
        yield world
    finally:
        for process in world.operators:
            await process.kill()
            process.close()
        await gateway.aclose()
        await redis.aclose()
        for space in world.tenants:
            await means.kube.delete(NAMESPACES, "", space)
