"""Dynamic volumes of the test node: which claims get one, and which volumes are left over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cluster.node.volumes import CLASS, MADE_BY, PROVISIONER, decide

pytestmark = pytest.mark.unit
BELOW = Path("/node/volumes")
UID = "5c7d"


def claim(*, phase: str | None = "Pending", meta: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    wanted = {
        "storageClassName": CLASS, "accessModes": ["ReadWriteOnce"], "volumeMode": "Filesystem",
        "resources": {"requests": {"storage": "64Mi"}},
    }  # fmt: skip
    named = {"namespace": "agents", "name": "workspace", "uid": UID}
    status = {"phase": phase} if phase else {}
    return {"metadata": {**named, **(meta or {})}, "spec": {**wanted, **spec}, "status": status}


def volume(
    *, phase: str = "Bound", by: str = PROVISIONER, policy: str = "Delete", path: str = f"{BELOW}/pvc-{UID}"
) -> dict[str, Any]:
    return {
        "metadata": {"name": f"pvc-{UID}", "annotations": {MADE_BY: by}},
        "spec": {"persistentVolumeReclaimPolicy": policy, "hostPath": {"path": path}},
        "status": {"phase": phase},
    }


def test_a_claim_gets_a_volume_of_its_own_size_bound_to_it_and_to_no_namesake() -> None:
    (made,) = decide([claim()], [], BELOW).make
    assert made["metadata"] == {"name": f"pvc-{UID}", "annotations": {MADE_BY: PROVISIONER}}
    spec = made["spec"]
    assert (spec["capacity"], spec["accessModes"]) == ({"storage": "64Mi"}, ["ReadWriteOnce"])
    assert (spec["storageClassName"], spec["persistentVolumeReclaimPolicy"]) == (CLASS, "Delete")
    assert spec["hostPath"] == {"path": f"{BELOW}/pvc-{UID}", "type": "Directory"}
    assert {key: spec["claimRef"][key] for key in ("namespace", "name", "uid")} == {
        "namespace": "agents", "name": "workspace", "uid": UID,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "served"),
    [
        (claim(), True),
        (claim(phase=None), True),
        (claim(phase="Bound", volumeName="pvc-other"), False),
        (claim(phase="Lost"), False),
        (claim(volumeName="by-hand"), False),
        (claim(storageClassName="other"), False),
        (claim(storageClassName=""), False),
        (claim(storageClassName=None), False),
        (claim(volumeMode="Block"), False),
        (claim(selector={"matchLabels": {"disk": "fast"}}), False),
        (claim(dataSource={"kind": "PersistentVolumeClaim", "name": "copied"}), False),
        (claim(dataSourceRef={"kind": "Anything", "name": "copied"}), False),
        (claim(meta={"deletionTimestamp": "2026-01-01T00:00:00Z"}), False),
    ],
)
def test_only_a_plain_waiting_claim_of_the_class_is_served(asked: dict[str, Any], served: bool) -> None:
    assert bool(decide([asked], [], BELOW).make) is served


def test_a_claim_whose_volume_is_there_gets_no_second() -> None:
    assert decide([claim()], [volume(phase="Available")], BELOW).make == []


@pytest.mark.parametrize(
    ("left", "removed"),
    [
        (volume(phase="Released"), True),
        (volume(phase="Bound"), False),
        (volume(phase="Available"), False),
        (volume(phase="Failed"), False),
        (volume(phase="Released", policy="Retain"), False),
        (volume(phase="Released", by="somebody.else"), False),
        (volume(phase="Released", path="/etc"), False),
        (volume(phase="Released", path=f"{BELOW}/pvc-another"), False),
    ],
)
def test_only_a_released_volume_of_ours_in_its_own_folder_is_removed(left: dict[str, Any], removed: bool) -> None:
    assert decide([], [left], BELOW).remove == ([f"pvc-{UID}"] if removed else [])


def test_a_volume_that_is_nobodys_own_is_left_alone() -> None:
    by_hand = {
        "metadata": {"name": "by-hand"},
        "spec": {"hostPath": {"path": "/data"}},
        "status": {"phase": "Released"},
    }
    assert decide([], [by_hand], BELOW).remove == []
