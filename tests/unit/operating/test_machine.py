"""What an operator that starts reads off the pods it finds: old revisions go on as they are."""

from __future__ import annotations

import json
from typing import Any

import pytest

from moorage_api import tokens
from moorage_api.built import Built
from moorage_api.kinds import parse
from moorage_api.provider.base import Revision
from moorage_operator import marks, objects
from moorage_operator.kube import KubeError
from moorage_operator.machine import PodMachine
from moorage_operator.observed import Observed
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
        nothing, observed, settings(), tenants={"agents": "t"}, place=lambda tenant, agent: None, ledger=lambda: "one"
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
    machine._known["sb-1"] = ("agents", "")
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
