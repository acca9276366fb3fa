"""HostedAgents in and status out, with failures in between. Provider, ledger and cluster are played; they keep what they are told."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from moorage_api.ledger.script import Unreachable
from moorage_operator import objects
from moorage_operator.agents import Agents
from moorage_operator.kube import KubeError
from moorage_operator.observed import Observed
from moorage_operator.settings import Settings

pytestmark = pytest.mark.unit


class Provider:
    def __init__(self) -> None:
        self.deployed: list[str] = []
        self.reported: list[str] = []
        self.withdrawn: list[str] = []
        self.failing = 0
        self.fleet = SimpleNamespace(agents={}, sandboxes={})

    def deploy(self, revision: Any, *, generation: int) -> None:
        self.deployed.append(f"{revision.key}")

    def report(self, tenant: str, agent: str, spec: Any, *, generation: int, reason: str, message: str) -> None:
        self.reported.append(f"{tenant}/{agent}: {reason}")

    async def withdraw(self, tenant: str, agent: str) -> None:
        if self.failing:
            self.failing -= 1
            raise Unreachable("a test asked")
        self.withdrawn.append(f"{tenant}/{agent}")


class Cluster:
    """Refuses the status of those named in `refuses`."""

    def __init__(self) -> None:
        self.refuses: set[str] = set()
        self.written: dict[str, Any] = {}

    async def merge(self, kind: Any, namespace: str, name: str, body: Any, *, part: str) -> dict[str, Any]:
        if name in self.refuses:
            raise KubeError(422, "Invalid", "a test asked")
        self.written[name] = body["status"]
        return agent(name, namespace, status=body["status"])


def agent(name: str, namespace: str = "one", **more: Any) -> dict[str, Any]:
    meta = {"name": name, "namespace": namespace, "uid": f"{namespace}-{name}", "generation": more.pop("generation", 1)}
    meta |= {"creationTimestamp": more.pop("born", "2026-01-01T00:00:00Z"), "resourceVersion": "1"}
    spec = more.pop("spec", {"image": "reg.example/a:1"})
    return {"apiVersion": "moorage.dev/v1alpha1", "kind": "HostedAgent", "metadata": meta, "spec": spec, **more}


class World:
    def __init__(self) -> None:
        settings = Settings(
            redis_url="redis://none", token_key="ab" * 32, namespace="moorage", namespaces=("one", "two"),
            sandbox_image="s", sandbox_url="http://h:1", gateway_cidr="10.0.0.1/32",
        )  # fmt: skip
        self.observed, self.provider, self.cluster = Observed(), Provider(), Cluster()
        self.agents = Agents(
            self.cluster,  # type: ignore[arg-type]
            self.observed,
            settings,
            now=lambda: 1000.0,
            tenants={"one": "acme", "two": "acme"},
        )

    async def look(self) -> None:
        await self.agents.look(self.provider)  # type: ignore[arg-type]

    async def report(self) -> None:
        await self.agents.report(self.provider, None)  # type: ignore[arg-type]


@pytest.fixture
def world() -> World:
    return World()


async def test_an_unchanged_agent_is_taken_in_once(world: World) -> None:
    world.observed.agents.put(agent("a"))
    await world.look()
    await world.look()
    assert len(world.provider.deployed) == 1


async def test_an_agent_that_went_is_taken_out_though_the_ledger_failed_at_first(world: World) -> None:
    world.observed.agents.put(agent("a"))
    await world.look()
    world.observed.agents.drop(agent("a"))
    world.provider.failing = 1
    with pytest.raises(Unreachable):
        await world.look()
    await world.look()
    await world.look()
    assert world.provider.withdrawn == ["acme/a"]


async def test_the_elder_has_the_name_and_the_other_gets_it_when_it_goes(world: World) -> None:
    elder, other = agent("a", "two"), agent("a", "one", born="2026-02-01T00:00:00Z")
    world.observed.agents.put(elder)
    world.observed.agents.put(other)
    await world.look()
    await world.report()
    assert len(world.provider.deployed) == 1 and "namespace two" in str(world.cluster.written["a"])
    place = world.agents.place("acme", "a")
    assert place is not None and place.namespace == "two"
    world.observed.agents.drop(elder)
    await world.look()
    assert world.provider.withdrawn == ["acme/a"] and len(world.provider.deployed) == 2
    place = world.agents.place("acme", "a")
    assert place is not None and place.namespace == "one"


async def test_a_spec_that_an_operator_meets_refused_leaves_old_sandboxes_their_place(world: World) -> None:
    """An operator that starts knows no former spec; what runs is found by its pods, and its sessions must wake."""
    world.observed.agents.put(agent("a", spec={"source": {"git": {"url": "https://git.example/a.git"}}}))
    await world.look()
    assert world.provider.reported == ["acme/a: ImageNotSupportedHere"]
    assert isinstance(world.agents.place("acme", "a"), objects.Program)
    world.observed.agents.drop(agent("a"))
    await world.look()
    assert world.provider.withdrawn == ["acme/a"]


async def test_one_status_that_is_refused_holds_up_no_other(world: World) -> None:
    for name in ("a", "b"):
        world.observed.agents.put(agent(name, spec={"image": "x", "env": [{"name": "PORT", "value": "1"}]}))
    world.cluster.refuses = {"a"}
    await world.look()
    await world.report()
    assert list(world.cluster.written) == ["b"] and "PORT" in str(world.cluster.written["b"])


async def test_the_catalog_forgets_whose_agent_went_unseen(world: World) -> None:
    entries = [
        SimpleNamespace(tenant=tenant, agent=name) for tenant, name in (("acme", "a"), ("acme", "b"), ("other", "c"))
    ]
    world.provider.fleet.agents = {("acme", "a"): object()}
    removed: list[str] = []

    class Ledger:
        async def catalog(self) -> list[Any]:
            return entries

        async def unpublish(self, tenant: str, name: str) -> None:
            removed.append(f"{tenant}/{name}")

    await world.agents.tidy(world.provider, Ledger())  # type: ignore[arg-type]
    assert removed == ["acme/b"], "other tenants are not this operator's"
