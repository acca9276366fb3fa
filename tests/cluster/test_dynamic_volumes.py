"""A claim gets a volume from the node itself, keeps what pods write to it, and takes it away with it (docs/cluster-tests.md)."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.node import volumes
from cluster.node.node import Node
from cluster.plain_pod import USER, PlainPods
from fakes.platform import poll

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


@pytest.fixture
def pods(node: Node, base_image: str) -> Iterator[PlainPods]:
    with PlainPods.opened(node, base_image, f"volumes-{secrets.token_hex(4)}") as opened:
        yield opened


def claim(pods: PlainPods, name: str, **spec: Any) -> None:
    size = {"resources": {"requests": {"storage": "64Mi"}}}
    document = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}}
    pods.apply({**document, "spec": {"accessModes": ["ReadWriteOnce"], **size, **spec}})


def bound(pods: PlainPods, name: str) -> str:
    """The name of the claim's volume, once it is bound."""

    def now() -> str:
        found = json.loads(pods.kubectl("get", "persistentvolumeclaim", name, "-o", "json"))
        return str(found["spec"]["volumeName"]) if found["status"].get("phase") == "Bound" else ""

    return str(poll("the claim is bound", now, within=30))


def folder(node: Node, volume: str) -> Path:
    return Path(json.loads(node.kubectl("get", "persistentvolume", volume, "-o", "json"))["spec"]["hostPath"]["path"])


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def is_gone(node: Node, volume: str, where: Path) -> bool:
    return not where.exists() and not node.kubectl("get", "persistentvolume", volume, "--ignore-not-found")


def test_what_one_pod_writes_the_next_reads_and_the_folder_goes_with_the_claim(node: Node, pods: PlainPods) -> None:
    claim(pods, "workspace")
    volume = bound(pods, "workspace")
    where = folder(node, volume)
    pods.run("writer", "open('/data/notes.txt', 'w').write('kept')", claim="workspace")
    written = where / "notes.txt"
    assert (written.read_text(), written.stat().st_uid) == ("kept", USER)
    assert pods.run("reader", "print(open('/data/notes.txt').read())", claim="workspace") == "kept"

    pods.kubectl("delete", "pod", "writer", "reader", "--wait=true", "--timeout=60s")
    pods.kubectl("delete", "persistentvolumeclaim", "workspace", "--wait=true", "--timeout=60s")
    poll("volume and folder are gone", lambda: is_gone(node, volume, where), within=30)


def test_a_claim_that_is_deleted_under_a_pod_keeps_its_files_until_the_pod_ends(node: Node, pods: PlainPods) -> None:
    claim(pods, "workspace")
    volume = bound(pods, "workspace")
    where = folder(node, volume)
    pods.start("holder", "import time; open('/data/notes.txt', 'w').write('kept'); time.sleep(600)", claim="workspace")
    poll("the pod has written", lambda: _text(where / "notes.txt") == "kept", within=60)
    pods.kubectl("delete", "persistentvolumeclaim", "workspace", "--wait=false")

    # A second claim is served meanwhile: so the translator has seen the first one's deletion, and let it be.
    claim(pods, "another")
    bound(pods, "another")
    assert _text(where / "notes.txt") == "kept"
    pods.kubectl("delete", "pod", "holder", "--grace-period=0", "--force")
    poll("volume and folder are gone", lambda: is_gone(node, volume, where), within=60)


def test_a_volume_that_is_to_be_retained_outlives_its_claim(node: Node, pods: PlainPods) -> None:
    claim(pods, "workspace", storageClassName=volumes.CLASS)
    volume = bound(pods, "workspace")
    where = folder(node, volume)
    retain = json.dumps({"spec": {"persistentVolumeReclaimPolicy": "Retain"}})
    node.kubectl("patch", "persistentvolume", volume, "--patch", retain)
    pods.kubectl("delete", "persistentvolumeclaim", "workspace", "--wait=true", "--timeout=60s")

    def is_released() -> bool:
        status = json.loads(node.kubectl("get", "persistentvolume", volume, "-o", "json"))["status"]
        return bool(status["phase"] == "Released")

    poll("the volume is released", is_released, within=30)
    claim(pods, "another")
    bound(pods, "another")  # the translator has looked since
    assert where.is_dir()
    delete = json.dumps({"spec": {"persistentVolumeReclaimPolicy": "Delete"}})
    node.kubectl("patch", "persistentvolume", volume, "--patch", delete)
    poll("volume and folder are gone", lambda: is_gone(node, volume, where), within=30)
