"""HostedAgents in and status out, with failures in between. Provider, ledger and cluster are played; they keep what they are told."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage_api import conditions, names
from moorage_api.built import Built, Failed
from moorage_api.ledger.records import SessionIdentity
from moorage_api.ledger.script import Unreachable
from moorage_api.provider.base import Revision
from moorage_api.provider.fleet import Sandboxes
from moorage_operator import marks, objects
from moorage_operator.agents import MOST_ASKED, Agents
from moorage_operator.build_objects import Ask
from moorage_operator.builds import Standing, Waiting
from moorage_operator.kube import KubeError
from moorage_operator.observed import Observed
from moorage_operator.settings import Settings

pytestmark = pytest.mark.unit


class Builds:
    """Plays builds: `known` by agent, and those that are swept."""

    def __init__(self) -> None:
        self.known: dict[str, Standing] = {}
        self.faults: dict[str, Exception] = {}
        self.swept: list[str] = []

    async def sweep(self, namespace: str, agent: str) -> None:
        self.swept.append(agent)

    async def standing(self, ask: Ask) -> Standing:
        if ask.agent in self.faults:
            raise self.faults[ask.agent]
        return self.known.get(ask.agent, Waiting("The source is being built."))


class Provider:
    def __init__(self) -> None:
        self.deployed: list[str] = []
        self.revisions: list[Revision] = []
        self.resolved: list[str] = []
        self.reported: list[str] = []
        self.withdrawn: list[str] = []
        self.failing = 0
        self.fleet = SimpleNamespace(agents={}, sandboxes=Sandboxes())

    def deploy(self, revision: Any, *, generation: int, resolved: str = "") -> None:
        self.deployed.append(f"{revision.key}")
        self.revisions.append(revision)
        self.resolved.append(resolved)

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
        self.settings = Settings(
            redis_url="redis://none", token_key="ab" * 32, namespace="moorage", namespaces=("one", "two"),
            sandbox_image="s", sandbox_url="http://h:1", gateway_cidr="10.0.0.1/32",
        )  # fmt: skip
        self.observed, self.provider, self.cluster, self.builds = Observed(), Provider(), Cluster(), Builds()
        self.agents = Agents(
            self.cluster,  # type: ignore[arg-type]
            self.observed,
            self.settings,
            self.builds,  # type: ignore[arg-type]
            now=lambda: 1000.0,
            tenants={"one": "acme", "two": "acme"},
        )

    async def look(self) -> None:
        await self.agents.look(self.provider)  # type: ignore[arg-type]

    async def report(self) -> None:
        await self.agents.report(self.provider, Busy())  # type: ignore[arg-type]


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
    world.builds.known["a"] = Failed("SourceRefused", "no such repository")
    await world.look()
    await world.look()
    assert world.provider.reported == ["acme/a: SourceRefused"]
    assert isinstance(world.agents.place("acme", "a"), objects.Program)
    world.observed.agents.drop(agent("a"))
    await world.look()
    assert world.provider.withdrawn == ["acme/a"]


async def test_a_source_runs_once_it_is_built_and_what_ran_goes_on_until_then(world: World) -> None:
    first, later = Built("a" * 64, "host.py", "moorage", "c" * 40), Built("b" * 64, "host.py", "foundry", "d" * 40)
    source = {"source": {"git": {"url": "https://git.example/a.git"}}}
    world.observed.agents.put(agent("a", spec=source))
    for _ in range(2):
        await world.look()
    assert world.provider.reported == ["acme/a: Resolving"] and not world.provider.deployed
    world.builds.known["a"] = first
    for _ in range(2):
        await world.look()
    assert len(world.provider.deployed) == 1 and "commit " + "c" * 40 in world.provider.resolved[0]
    world.builds.known["a"] = Waiting("again")
    await world.look()
    place = world.agents.place("acme", "a")
    assert place is not None and (place.built, place.image) == (first, "s")
    world.builds.known["a"] = later
    await world.look()
    place = world.agents.place("acme", "a")
    assert place is not None and place.built == later and len(set(world.provider.deployed)) == 2


BAD = {"image": "x", "env": [{"name": "PORT", "value": "1"}]}
SOURCE = {"source": {"git": {"url": "https://git.example/a.git"}}}
BUILT = Built("a" * 64, "host.py", "moorage", "c" * 40)


class Machine:
    """Guards anything, unless it `refuses`; `policy` is what the cluster holds."""

    def __init__(self) -> None:
        self.policy, self.guards, self.refuses = "as made", 0, False

    async def guard(self, agent: str, program: objects.Program) -> None:
        self.guards += 1
        if self.refuses:
            raise KubeError(403, "Forbidden", "a test asked")
        self.policy = "as made"

    def guarded(self, agent: str, program: objects.Program) -> tuple[object, ...]:
        return (program, self.policy)


async def test_what_guards_an_agent_is_compared_again_when_it_or_its_program_changed_and_after_a_refusal(
    world: World,
) -> None:
    machine: Any = Machine()

    async def guards() -> int:
        machine.guards = 0
        await world.agents.guard(machine)
        return int(machine.guards)

    world.observed.agents.put(agent("a"))
    await world.look()
    assert [await guards(), await guards()] == [1, 0]
    machine.policy, machine.refuses = "edited", True
    assert [await guards(), await guards()] == [1, 1]
    machine.refuses = False
    assert [await guards(), await guards()] == [1, 0]
    world.observed.agents.put(agent("a", generation=2, spec={"image": "reg.example/a:2"}))
    await world.look()
    assert [await guards(), await guards()] == [1, 0]


async def test_a_spec_that_is_refused_keeps_what_was_built_for_the_one_before(world: World) -> None:
    world.observed.agents.put(agent("a", spec=SOURCE))
    world.builds.known["a"] = BUILT
    await world.look()
    world.observed.agents.put(agent("a", spec=BAD, generation=2))
    await world.look()
    world.builds.known["a"] = Built("b" * 64, "host.py", "moorage", "d" * 40)
    await world.look()
    await world.agents.guard(Machine())  # type: ignore[arg-type]
    assert world.provider.reported == ["acme/a: SpecRefused"] and not world.builds.swept
    assert len(world.provider.deployed) == 1, "a build for the spec before is not what this one asks for"
    world.provider.fleet.agents = {("acme", "a"): state(2)}
    await world.report()
    assert world.cluster.written["a"]["source"] == "c" * 40
    world.observed.agents.put(agent("a", generation=3))
    await world.look()
    await world.agents.guard(Machine())  # type: ignore[arg-type]
    assert world.builds.swept == ["a"], "an agent with an image has no use for them"


async def test_what_nobody_foresaw_of_one_agent_is_said_there_and_stops_no_other(world: World) -> None:
    for name in ("a", "b"):
        world.observed.agents.put(agent(name, spec=SOURCE))
    world.builds.faults["a"] = ValueError("no number: x")
    world.builds.known["b"] = BUILT
    for _ in range(2):
        await world.look()
    await world.report()
    assert len(world.provider.deployed) == 1 and world.provider.reported == ["acme/a: SpecRefused"]
    assert "no number: x" in str(world.cluster.written["a"]["conditions"])


async def test_an_operator_that_starts_keeps_the_revision_shown_while_its_source_is_built_anew(world: World) -> None:
    shown = {"revision": "r-old", "source": "c" * 40}
    world.observed.agents.put(agent("a", spec=SOURCE, status=shown))
    await world.look()
    world.provider.fleet.agents = {("acme", "a"): state(1)}
    await world.report()
    assert {name: world.cluster.written["a"][name] for name in shown} == shown


def state(generation: int) -> Any:
    return SimpleNamespace(published=True, conditions=conditions.begin(generation))


async def test_one_status_that_is_refused_holds_up_no_other(world: World) -> None:
    for name in ("a", "b"):
        world.observed.agents.put(agent(name, spec=BAD))
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
    assert removed == ["acme/b", "other/c"], "a namespace that went took with it whose it was"


class Busy:
    """A ledger that knows which sandboxes' sessions run a turn, and how often it was asked."""

    def __init__(self, *at_work: str) -> None:
        self._at_work = set(at_work)
        self.asked: list[list[str]] = []

    async def at_work(self, sandboxes: list[str]) -> int:
        self.asked.append(sandboxes)
        return len(self._at_work & set(sandboxes))


def held(agent: str, sandbox: str, *, claimed: bool = False, session: str = "", ending: bool = False) -> Any:
    descriptor = SimpleNamespace(tenant="acme", agent=agent, sandbox=sandbox, volume=f"ws-{sandbox}")
    return SimpleNamespace(descriptor=descriptor, revision="r", claimed=claimed, session=session, ending=ending)


def claim(volume: str, agent: str) -> dict[str, Any]:
    partition = names.partition("acme", agent, "ann", volume)
    whose = SessionIdentity("acme", agent, "ann", volume, partition)
    meta = {"name": volume, "namespace": "one", "uid": volume, "labels": marks.labels(agent)}
    return {"metadata": {**meta, "annotations": marks.noted(names.session_key("acme", partition), 1, whose)}}


async def test_a_status_counts_the_sandboxes_of_its_agent_by_one_question_to_the_ledger(world: World) -> None:
    for name in ("a", "b"):
        world.observed.agents.put(agent(name))
        shown = SimpleNamespace(conditions=conditions.begin(1), published="yes")
        world.provider.fleet.agents[("acme", name)] = shown
    everything = [
        held("a", "warm"),
        held("a", "given-up", ending=True),
        held("a", "idle", claimed=True),
        held("a", "woken", session="acme:p"),
        held("b", "other", claimed=True),
    ]
    world.provider.fleet.sandboxes.update({one.descriptor.sandbox: one for one in everything})
    world.observed.claims.put(claim("ws-idle", "a"))
    world.observed.claims.put(claim("ws-asleep", "a"))
    ledger = Busy("woken", "other")
    await world.look()
    await world.agents.report(world.provider, ledger)  # type: ignore[arg-type]
    assert world.cluster.written["a"]["sessions"] == {"warm": 1, "active": 1, "idle": 1, "hibernated": 1}
    assert world.cluster.written["b"]["sessions"] == {"warm": 0, "active": 1, "idle": 0, "hibernated": 0}
    assert ledger.asked == [["idle", "woken"], ["other"]]


async def test_more_sandboxes_than_are_asked_about_count_as_at_work(world: World) -> None:
    world.observed.agents.put(agent("a"))
    world.provider.fleet.agents[("acme", "a")] = SimpleNamespace(conditions=conditions.begin(1), published="yes")
    world.provider.fleet.sandboxes.update({str(n): held("a", str(n), claimed=True) for n in range(MOST_ASKED + 7)})
    await world.look()
    await world.agents.report(world.provider, Busy("0"))  # type: ignore[arg-type]
    assert world.cluster.written["a"]["sessions"] == {"warm": 0, "active": 8, "idle": MOST_ASKED - 1, "hibernated": 0}


async def test_a_look_between_writes_the_status_of_what_changed_alone(world: World) -> None:
    for name in ("a", "b"):
        world.observed.agents.put(agent(name, spec={"image": "x", "env": [{"name": "PORT", "value": "1"}]}))
    await world.look()
    await world.agents.report(world.provider, None, {("acme", "b")})  # type: ignore[arg-type]
    assert list(world.cluster.written) == ["b"]


OURS = [text for name, text in vars(marks).items() if name.isupper() and "/" in text]
SAID = st.dictionaries(st.sampled_from(OURS) | st.text(min_size=1), st.text())


@given(SAID, SAID)
def test_no_label_and_no_annotation_of_a_persons_reaches_what_is_made(
    labels: dict[str, str], annotations: dict[str, str]
) -> None:
    world, body = World(), agent("a")
    body["metadata"] |= {"labels": labels, "annotations": annotations}
    world.observed.agents.put(body)
    asyncio.run(world.look())
    (revision,) = world.provider.revisions
    program = objects.Program.of(revision)
    place = ("a", program.namespace, program.owner)
    made = objects.pod(revision, "sb-1", "ws-1", {"sandbox": "sb-1"}, world.settings)
    claimed = objects.claim(revision, "sb-1", "ws-1", world.settings, ledger="one")
    of_pod = {marks.REVISION: revision.revision, marks.SANDBOX: "sb-1"}
    assert made["metadata"]["labels"] == marks.labels("a", **of_pod)
    assert made["metadata"]["annotations"].keys() == {marks.SHIM, marks.SPEC}
    assert claimed["metadata"]["labels"] == marks.labels("a", **{marks.SANDBOX: "sb-1"})
    assert claimed["metadata"]["annotations"] == {marks.LEDGER: "one"}
    for other in (objects.account(*place), objects.policy(*place, world.settings)):
        assert other["metadata"]["labels"] == marks.labels("a") and "annotations" not in other["metadata"]
