"""Configuration through the gateway: what is applied, what is refused, and in whose words.

The API server is played; limits: it keeps one object and owns no fields.
"""

from __future__ import annotations

from typing import Any

import pytest

from moorage_api.ledger.provider import ApplyRequest
from moorage_operator.applies import Applies
from moorage_operator.kube import KubeError

pytestmark = pytest.mark.unit

SPEC = {"image": "reg.example/agent:1"}


class Cluster:
    """Says what it was told to say."""

    def __init__(self, fault: KubeError | None = None, managers: tuple[str, ...] = ("moorage-api",)) -> None:
        self.fault, self.managers = fault, managers
        self.applied: list[dict[str, Any]] = []
        self.deleted: list[str] = []
        self.kinds: list[Any] = []

    async def apply(self, kind: Any, body: dict[str, Any], *, manager: str, force: bool) -> dict[str, Any]:
        assert (manager, force) == ("moorage-api", False)
        if self.fault is not None:
            raise self.fault
        self.kinds.append(kind)
        self.applied.append(body)
        return {**body, "metadata": {**body["metadata"], "generation": 1}}

    async def get(self, kind: Any, namespace: str, name: str) -> dict[str, Any] | None:
        self.kinds.append(kind)
        return {"metadata": {"uid": "u", "managedFields": [{"manager": one} for one in self.managers]}}

    async def delete(self, kind: Any, namespace: str, name: str, *, uid: str) -> None:
        self.kinds.append(kind)
        self.deleted.append(f"{namespace}/{name}")


class Desk:
    """One request in, one answer out."""

    def __init__(self, request: ApplyRequest) -> None:
        self.requests = [request]
        self.answers: list[dict[str, Any]] = []

    async def next_apply(self) -> ApplyRequest | None:
        return self.requests.pop() if self.requests else None

    async def answer(self, request_id: str, answer: dict[str, Any]) -> None:
        self.answers.append(answer)


async def answered(cluster: Cluster, verb: str = "apply", tenant: str = "acme") -> dict[str, Any]:
    desk = Desk(ApplyRequest("r", verb, tenant, "a", {"spec": SPEC}, "ann"))
    applies = Applies(desk, cluster, {"team": "acme"})  # type: ignore[arg-type]
    await applies.serve()
    return desk.answers[0]


async def test_what_is_applied_is_named_by_its_revision() -> None:
    cluster = Cluster()
    answer = await answered(cluster)
    assert answer["ok"] and len(answer["revision"]) == 12
    assert cluster.applied[0]["metadata"] == {"name": "a", "namespace": "team"} and cluster.applied[0]["spec"] == SPEC


async def test_a_field_of_somebody_else_is_a_conflict_and_a_wrong_one_is_said() -> None:
    conflict = await answered(Cluster(KubeError(409, "Conflict", 'conflict with "kubectl": .spec.image')))
    assert not conflict["ok"] and conflict["owner"] and "kubectl" in conflict["error"]
    wrong = await answered(Cluster(KubeError(422, "Invalid", "spec: give exactly one of image and source")))
    assert wrong == {"ok": False, "error": "spec: give exactly one of image and source", "field": None}
    away = await answered(Cluster(KubeError(0, "NoAnswer", "the API server does not answer: TimeoutError")))
    assert not away["ok"] and away["kind"] == "unavailable"


async def test_a_routine_is_applied_and_deleted_as_a_routine() -> None:
    cluster = Cluster()
    spec = {"agent": "a", "schedule": "@daily", "input": "x"}
    for verb in ("apply", "delete"):
        desk = Desk(ApplyRequest("r", verb, "acme", "nightly", {"spec": spec}, "ann", "Routine"))
        await Applies(desk, cluster, {"team": "acme"}).serve()  # type: ignore[arg-type]
        assert desk.answers[0]["ok"], desk.answers
    assert cluster.applied == [
        {
            "apiVersion": "moorage.dev/v1alpha1",
            "kind": "Routine",
            "metadata": {"name": "nightly", "namespace": "team"},
            "spec": spec,
        }
    ]
    assert cluster.deleted == ["team/nightly"] and {kind.plural for kind in cluster.kinds} == {"routines"}


async def test_a_tenant_without_a_namespace_is_told_which_there_are() -> None:
    answer = await answered(Cluster(), tenant="other")
    assert not answer["ok"] and "acme" in answer["error"]


async def test_what_others_manage_is_not_deleted() -> None:
    mine = Cluster()
    assert (await answered(mine, "delete"))["ok"] and mine.deleted == ["team/a"]
    others = Cluster(managers=("moorage-api", "argocd"))
    answer = await answered(others, "delete")
    assert not answer["ok"] and answer["owner"] == "argocd" and not others.deleted
