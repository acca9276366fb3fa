"""What an operator that starts reads off the pods it finds: old revisions go on as they are."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from moorage_api import names, tokens
from moorage_api.built import Built
from moorage_api.kinds import parse
from moorage_api.ledger.records import Descriptor, SessionIdentity
from moorage_api.provider.base import MakeFailed, Revision
from moorage_operator import marks, objects, shim_config
from moorage_operator.kube import KubeError
from moorage_operator.machine import PodMachine, _address, _Known
from moorage_operator.observed import Observed
from moorage_sandbox.config import ShimConfig
from unit.operating.test_objects import GIVEN, OWNER, revision, settings

pytestmark = pytest.mark.unit

BUILT = Built("d" * 64, "host.py", "moorage", "c" * 40)
OLD = "reg.example/sandbox:0"


def pod(**spec: Any) -> dict[str, Any]:
    document = {
        "apiVersion": "moorage.dev/v1alpha1", "kind": "HostedAgent", "metadata": {"name": "a"}, "spec": spec,
    }  # fmt: skip
    image = spec.get("image", OLD)
    program = objects.Program("agents", image, OWNER, None if "image" in spec else BUILT)
    who = tokens.Identity("sb-1", "t", "a", "r1", "ws-1")
    shim = {"token": tokens.sign(who, GIVEN["MOORAGE_TOKEN_KEY"]), "contract": "moorage"}
    made = objects.pod(
        Revision("t", "a", "r1", parse(document).spec, "moorage", program), "sb-1", "ws-1", shim, settings()
    )
    ready = {"phase": "Running", "podIP": "192.0.2.1", "conditions": [{"type": "Ready", "status": "True"}]}
    return made | {"status": ready}


@pytest.mark.parametrize(
    ("spec", "image", "built"),
    [
        ({"source": {"git": {"url": "https://git.example/a.git"}}}, OLD, BUILT),
        ({"image": "reg.example/a:1"}, "reg.example/a:1", None),
    ],
)
async def test_an_old_revision_runs_on_in_its_own_image_whatever_is_known_of_the_agent_yet(
    spec: dict[str, Any], image: str, built: Built | None
) -> None:
    observed = Observed()
    observed.pods.put(pod(**spec))
    for known in (objects.Program("agents", "", OWNER), objects.Program("agents", "reg.example/sandbox:9", OWNER)):
        machine = PodMachine(
            None,  # type: ignore[arg-type]
            observed,
            settings(),
            tenants={"agents": "t"},
            place=lambda tenant, agent, known=known: known,  # type: ignore[misc]
            ledger=lambda: "",
            now=lambda: 0.0,
            wall=lambda: 0.0,
        )
        ((revision, _),) = await machine.adopted()
        assert revision.program == objects.Program("agents", image, OWNER, built)


@pytest.mark.parametrize(
    "spoilt",
    [
        {"labels": {marks.AGENT: "b"}},
        {"labels": {marks.SANDBOX: "sb-2"}},
        {"namespace": "other"},
        {"annotations": {marks.SHIM: json.dumps({"token": "sb-1.forged"})}},
        {"annotations": {marks.SPEC: "{}"}},
    ],
    ids=["agent", "sandbox", "tenant", "token", "spec"],
)
async def test_a_pod_whose_marks_are_not_what_its_operator_signed_is_no_sandbox(spoilt: dict[str, Any]) -> None:
    observed, body = Observed(), pod(image="reg.example/a:1")
    machine = machine_of(observed)
    observed.pods.put(body)
    assert [one.sandbox for _, one in await machine.adopted()] == ["sb-1"]
    for part, found in spoilt.items():
        body["metadata"][part] = found if isinstance(found, str) else body["metadata"][part] | found
    observed = Observed()
    observed.pods.put(body)
    assert await machine_of(observed).adopted() == []


def machine_of(observed: Observed) -> PodMachine:
    """One without a cluster."""
    nothing: Any = None
    return PodMachine(
        nothing,
        observed,
        settings(),
        tenants={"agents": "t"},
        place=lambda tenant, agent: None,
        ledger=lambda: "one",
        now=lambda: 0.0,
        wall=lambda: 0.0,
    )


def test_of_a_claim_is_known_for_which_sandbox_and_under_which_ledger_it_was_made() -> None:
    observed = Observed()
    body = objects.claim(revision(), "sb-1", "ws-1", settings(), ledger="one")
    observed.claims.put(body)
    assert machine_of(observed).origin("t", "a", "ws-1") == ("sb-1", "one")


def test_a_pod_that_went_is_dead_at_the_next_look_and_hundreds_are_not_looked_for_otherwise() -> None:
    observed = Observed()
    machine, woken = machine_of(observed), list[bool]()
    machine.watch(lambda: woken.append(True))
    body = {"metadata": {"name": "sb-1", "namespace": "agents", "uid": "u", "labels": {marks.SANDBOX: "sb-1"}}}
    observed.pods.put(body)
    machine._known["sb-1"] = _Known("agents", "a")
    assert machine.dead() == []
    observed.pods.drop(body)
    assert woken == [True]
    assert [one.sandbox for one in machine.dead()] == ["sb-1"]


class Cluster:
    """Pods and claims by name: the uid of each. Limits: nothing but deleting."""

    def __init__(self, **uids: str) -> None:
        self.uids = uids

    async def delete(self, kind: Any, namespace: str, name: str, *, uid: str = "", grace: int | None = None) -> None:
        if uid and self.uids[name] != uid:
            raise KubeError(409, "Conflict", "the uid in the precondition is another one")
        del self.uids[name]


async def test_an_old_look_ends_no_other_pod_and_no_other_claim_of_the_name() -> None:
    observed = Observed()
    labels = marks.labels("a", **{marks.SANDBOX: "sb-1"})
    for shelf, name in ((observed.pods, "sb-1"), (observed.claims, "ws-1")):
        shelf.put({"metadata": {"name": name, "namespace": "agents", "uid": "old", "labels": labels}})
    machine, cluster = machine_of(observed), Cluster(**{"sb-1": "new", "ws-1": "new"})
    machine._kube = cluster  # type: ignore[assignment]
    with pytest.raises(KubeError, match="precondition"):
        await machine.destroy("sb-1", "a test asked")
    with pytest.raises(KubeError, match="precondition"):
        await machine.remove_volume("t", "a", "ws-1")
    assert cluster.uids == {"sb-1": "new", "ws-1": "new"}


@pytest.mark.parametrize("labels", [{marks.AGENT: None}, {marks.AGENT: "b"}, {marks.OURS: "me"}, {marks.SANDBOX: None}])
async def test_a_sandbox_whose_labels_were_edited_is_to_be_replaced(labels: dict[str, str | None]) -> None:
    observed, body = Observed(), pod(image="reg.example/a:1")
    observed.pods.put(body)
    machine = machine_of(observed)
    assert len(await machine.adopted()) == 1 and await machine.unfit() == []
    held = {name: text for name, text in (body["metadata"]["labels"] | labels).items() if text is not None}
    observed.pods.put(body | {"metadata": body["metadata"] | {"labels": held}})
    ((sandbox, why),) = await machine.unfit()
    assert sandbox == "sb-1" and next(iter(labels)) in why
    assert machine.dead() == [], "it runs"


class Holding(Cluster):
    """And these very objects can be read, by whoever asks for their names."""

    def __init__(self, observed: Observed, *bodies: dict[str, Any]) -> None:
        super().__init__(**{one["metadata"]["name"]: one["metadata"]["uid"] for one in bodies})
        self._observed = observed
        self._bodies = {(one["metadata"]["namespace"], one["metadata"]["name"]): one for one in bodies}

    async def get(self, kind: Any, namespace: str, name: str) -> dict[str, Any] | None:
        return self._bodies.get((namespace, name))

    async def delete(self, kind: Any, namespace: str, name: str, *, uid: str = "", grace: int | None = None) -> None:
        await super().delete(kind, namespace, name, uid=uid, grace=grace)
        self._observed.pods.drop(self._bodies.pop((namespace, name)))


@pytest.mark.parametrize("adopted", [True, False], ids=["known", "met after a restart"])
async def test_a_pod_that_is_no_longer_marked_as_ours_is_ended_before_it_counts_as_dead(adopted: bool) -> None:
    observed, body = Observed(), pod(image="reg.example/a:1")
    body["metadata"]["uid"] = "u"
    stripped = body | {"metadata": body["metadata"] | {"labels": {}}}
    machine = machine_of(observed)
    if adopted:
        observed.pods.put(body)
        assert len(await machine.adopted()) == 1
        observed.pods.put(stripped)
    cluster = Holding(observed, stripped)
    machine._kube = cluster  # type: ignore[assignment]
    await machine.destroy("sb-1", "a test asked")
    assert cluster.uids == {}


def test_a_session_keeps_its_claim_though_a_label_of_it_was_taken_off() -> None:
    whose = SessionIdentity("t", "a", "ann", "s-1", names.partition("t", "a", "ann", "s-1"), "r1")
    body = objects.claim(revision(), "sb-1", "ws-1", settings(), ledger="one")
    body["metadata"]["annotations"] |= marks.noted(names.session_key("t", whose.partition), 3, whose)
    for label in (marks.AGENT, marks.OURS):
        observed = Observed()
        held = {name: text for name, text in body["metadata"]["labels"].items() if name != label}
        observed.claims.put(body | {"metadata": body["metadata"] | {"labels": held}})
        machine = machine_of(observed)
        assert machine.has_volume("t", "a", "ws-1") and not machine.has_volume("t", "b", "ws-1")


def test_a_shim_reads_what_it_is_told_and_has_time_for_a_checkpoint_within_its_pods_grace() -> None:
    told = shim_config.told(revision(), "sb-1", "ws-1", settings())
    config = ShimConfig.from_dict(dict(told))
    grace = objects.pod(revision(), "sb-1", "ws-1", told, settings())["spec"]["terminationGracePeriodSeconds"]
    assert 0 < config.notice <= grace - 10, "the rest is for processes that hang"


class Merging:
    """Claims that can be changed: the labels of each. Limits: nothing else of a patch is taken."""

    def __init__(self, *bodies: dict[str, Any]) -> None:
        self.bodies = {one["metadata"]["name"]: one for one in bodies}

    async def merge(self, kind: Any, namespace: str, name: str, body: dict[str, Any]) -> dict[str, Any]:
        meta = self.bodies[name]["metadata"]
        return self.bodies[name] | {"metadata": meta | {"labels": meta["labels"] | body["metadata"]["labels"]}}


@pytest.mark.parametrize(("tenant", "mended"), [("t", True), ("rival", False)])
async def test_labels_of_a_claim_are_put_back_by_a_note_of_its_own_tenant_alone(tenant: str, mended: bool) -> None:
    whose = SessionIdentity(tenant, "a", "ann", "s-1", names.partition(tenant, "a", "ann", "s-1"), "r1")
    body = objects.claim(revision(), "sb-1", "ws-1", settings(), ledger="one")
    body["metadata"]["annotations"] |= marks.noted(names.session_key(tenant, whose.partition), 3, whose)
    body["metadata"]["labels"] = {marks.SANDBOX: "sb-1"}
    observed = Observed()
    observed.claims.put(body)
    machine = machine_of(observed)
    machine._kube = Merging(body)  # type: ignore[assignment]
    assert observed.stripped == {("agents", "ws-1")}
    await machine.mend()
    assert (observed.stripped == set()) is mended
    assert (machine.bound("t", "a", "ws-1") is not None) is mended


class Creating:
    """Takes what is made and gives it back. Limits: nothing becomes of it, and nobody asks for anything else."""

    def __init__(self) -> None:
        self.made: dict[str, dict[str, Any]] = {}

    async def create(self, kind: Any, body: dict[str, Any]) -> dict[str, Any]:
        self.made[body["kind"]] = body
        return body


async def making(machine: PodMachine, cluster: Creating) -> asyncio.Task[Descriptor]:
    """A sandbox whose pod has been asked for."""
    task = asyncio.create_task(machine.make(revision(), "sb-1", "ws-1"))
    async with asyncio.timeout(10):
        while "Pod" not in cluster.made:
            await asyncio.sleep(0)
    return task


async def test_a_sandbox_that_a_gateway_heard_of_need_not_wait_for_its_pods_condition() -> None:
    cluster, observed = Creating(), Observed()
    machine = machine_of(observed)
    machine._kube = cluster  # type: ignore[assignment]
    machine.served("sb-1", "http://192.0.2.9:8090")
    task = await making(machine, cluster)
    machine.served("sb-2", "http://192.0.2.8:8090")
    for nowhere in ("nowhere", "http://[", "http://evil.example:1", "http://:8090"):
        machine.served("sb-1", nowhere)
    for _ in range(20):
        await asyncio.sleep(0)
    assert not task.done(), "what was said before it was made, of another one, or of no place, is no news"
    machine.served("sb-1", "http://192.0.2.1:8090")
    async with asyncio.timeout(10):
        assert (await task).endpoint == "http://192.0.2.1:8090"
    observed.pods.put(pod(image="reg.example/a:1"))
    assert machine._serving == {}


async def test_only_a_session_that_ran_on_its_claim_before_waits_for_no_container() -> None:
    for bound, first in ((False, ["folders"]), (True, [])):
        cluster, observed = Creating(), Observed()
        body = objects.claim(revision(), "sb-0", "ws-1", settings(), ledger="one")
        if bound:
            whose = SessionIdentity("t", "a", "ann", "s-1", names.partition("t", "a", "ann", "s-1"), "r1")
            body["metadata"]["annotations"] |= marks.noted(names.session_key("t", whose.partition), 1, whose)
        observed.claims.put(body)
        machine = machine_of(observed)
        machine._kube = cluster  # type: ignore[assignment]
        task = await making(machine, cluster)
        machine.served("sb-1", "http://192.0.2.1:8090")
        await task
        assert [one["name"] for one in cluster.made["Pod"]["spec"]["initContainers"]] == first


class Answering:
    """One pod, as the API server has it; None: it is gone. Limits: reading alone."""

    def __init__(self, body: dict[str, Any] | None) -> None:
        self.body, self.away, self.asked = body, False, 0

    async def get(self, kind: Any, namespace: str, name: str) -> dict[str, Any] | None:
        self.asked += 1
        if self.away:
            raise KubeError(0, "Unreachable", "no answer")
        return self.body


def ending(observed: Observed, cluster: Any) -> Callable[[float], Awaitable[list[str]]]:
    """A machine with a pod that was told to end: what is out of reach so many seconds later."""
    body = pod(image="reg.example/a:1")
    body["metadata"] |= {"uid": "u", "deletionTimestamp": "2026-01-01T00:00:30Z", "deletionGracePeriodSeconds": 30}
    observed.pods.put(body)
    at = [0.0]
    told = settings(MOORAGE_LOST_AFTER_SECONDS="300")
    machine = PodMachine(
        cluster, observed, told, tenants={"agents": "t"}, place=lambda tenant, agent: None, ledger=lambda: "one",
        now=lambda: at[0], wall=lambda: 0.0,
    )  # fmt: skip

    async def later(seconds: float) -> list[str]:
        until = at[0] + seconds
        while at[0] < until:
            at[0] += 5
            found = await machine.out_of_reach()
        return [one.sandbox for one in found]

    return later


async def test_a_pod_that_a_lost_watch_still_shows_is_asked_for_before_it_counts_as_out_of_reach() -> None:
    observed, cluster = Observed(), Answering(None)
    later = ending(observed, cluster)
    assert await later(325) == [] and cluster.asked == 0
    assert await later(10) == [] and cluster.asked == 1
    assert len(observed.pods) == 0


async def test_while_the_api_server_is_away_nothing_is_out_of_reach_and_what_is_there_is_asked_for_once() -> None:
    observed, cluster = Observed(), Answering(None)
    later = ending(observed, cluster)
    cluster.away = True
    assert await later(400) == []
    cluster.away, cluster.body, cluster.asked = False, next(iter(observed.pods)), 0  # type: ignore[assignment]
    assert await later(5) == ["sb-1"] and await later(100) == ["sb-1"]
    assert cluster.asked == 1


class Away:
    """An API server that answers nothing."""

    async def create(self, kind: Any, body: dict[str, Any]) -> dict[str, Any]:
        raise KubeError(0, "Unreachable", "no answer")

    async def delete(self, kind: Any, namespace: str, name: str, *, uid: str = "", grace: int | None = None) -> None:
        raise KubeError(0, "Unreachable", "no answer")


async def test_a_try_that_the_api_server_did_not_answer_has_the_time_of_its_volume_begin_anew() -> None:
    observed, name = Observed(), ("agents", "sb-0")
    whose = SessionIdentity("t", "a", "ann", "s-1", names.partition("t", "a", "ann", "s-1"), "r1")
    claim = objects.claim(revision(), "sb-0", "ws-1", settings(), ledger="one")
    claim["metadata"]["annotations"] |= marks.noted(names.session_key("t", whose.partition), 1, whose)
    observed.claims.put(claim)
    message = "0/1 nodes are available: 1 node(s) didn't match PersistentVolume's node affinity."
    unplaced = {"type": "PodScheduled", "status": "False", "message": message}
    observed.pods.put({"metadata": {"namespace": "agents", "name": "sb-0"}, "status": {"conditions": [unplaced]}})
    machine = machine_of(observed)
    machine._kube = Away()  # type: ignore[assignment]
    machine.reach.coming(name, "ws-1")
    machine.reach.missed(name)
    assert machine.reach._away
    with pytest.raises(MakeFailed, match="no answer"):
        await machine.make(revision(), "sb-1", "ws-1")
    assert not machine.reach._away


def test_the_address_of_a_pod_is_read_as_its_shim_writes_it() -> None:
    written = ("http://192.0.2.1:8090", "http://fd00::1:8090", "http://[fd00::1]:8090")
    assert [_address(each) for each in written] == ["192.0.2.1", "fd00::1", "fd00::1"]
