"""Dynamic volumes of one node: a test fixture in place of a storage driver. A claim of the class gets a folder and a volume bound to it.

`decide` is pure: claims and volumes in, what to make and to remove out. `Provisioner` does it, at once when a claim comes or goes.
Quotas, block devices, snapshots and clones are beyond it: such claims stay Pending, as with a driver that has none of these.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cluster.node.api import Api, Object
from cluster.node.mirror import Follower, Held, Mirror

CLASS = "moorage-test"
PROVISIONER = "moorage.dev/test-volumes"
MADE_BY = "pv.kubernetes.io/provisioned-by"
CLAIMS = "/api/v1/persistentvolumeclaims"
VOLUMES = "/api/v1/persistentvolumes"
CLASSES = "/apis/storage.k8s.io/v1/storageclasses"

STORAGE_CLASS: Object = {
    "apiVersion": "storage.k8s.io/v1",
    "kind": "StorageClass",
    "metadata": {"name": CLASS, "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
    "provisioner": PROVISIONER,
    "volumeBindingMode": "Immediate",
    "reclaimPolicy": "Delete",
}
"""What the node starts with; claims that name no class get it."""


@dataclass(frozen=True)
class Work:
    """What is missing and what is left over. `make`: PersistentVolumes; `remove`: names of PersistentVolumes, whose folders go first."""

    make: Sequence[Object]
    remove: Sequence[str]


def decide(claims: Sequence[Object], volumes: Sequence[Object], below: Path) -> Work:
    """`below`: the folder of all volumes' folders.

    claim of our class | its volume is there | claim is being deleted | action
    -------------------|---------------------|------------------------|-------
    Pending, plain     | no                  | no                     | make
    anything else      | any                 | any                    | none

    volume made by us | phase        | reclaim policy | action
    ------------------|--------------|----------------|-------
    yes               | Released     | Delete         | remove
    anything else     |              |                | none

    Released is the word of Kubernetes' own controller that the claim is gone, so that claims seen a moment too late remove nothing.
    """
    there = {volume["metadata"]["name"] for volume in volumes}
    make = [_volume(claim, below) for claim in claims if _is_waiting(claim) and _name(claim) not in there]
    remove = [volume["metadata"]["name"] for volume in volumes if _is_left_over(volume, below)]
    return Work(make, remove)


def _name(claim: Object) -> str:
    return f"pvc-{claim['metadata']['uid']}"


def _is_waiting(claim: Object) -> bool:
    spec = claim["spec"]
    beyond = any(spec.get(field) for field in ("volumeName", "selector", "dataSource", "dataSourceRef"))
    return (
        spec.get("storageClassName") == CLASS
        and claim.get("status", {}).get("phase", "Pending") == "Pending"
        and spec.get("volumeMode", "Filesystem") == "Filesystem"
        and "deletionTimestamp" not in claim["metadata"]
        and not beyond
    )


def _is_left_over(volume: Object, below: Path) -> bool:
    spec, meta = volume["spec"], volume["metadata"]
    return bool(
        meta.get("annotations", {}).get(MADE_BY) == PROVISIONER
        and volume.get("status", {}).get("phase") == "Released"
        and spec.get("persistentVolumeReclaimPolicy") == "Delete"
        # Whoever may edit a volume may not thereby name a folder of the machine to be removed.
        and spec.get("hostPath", {}).get("path") == str(below / meta["name"])
    )


def _volume(claim: Object, below: Path) -> Object:
    meta, spec = claim["metadata"], claim["spec"]
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": _name(claim), "annotations": {MADE_BY: PROVISIONER}},
        "spec": {
            "capacity": {"storage": spec["resources"]["requests"]["storage"]},
            "accessModes": spec["accessModes"],
            "storageClassName": CLASS,
            "persistentVolumeReclaimPolicy": "Delete",
            "hostPath": {"path": str(below / _name(claim)), "type": "Directory"},
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": meta["namespace"],
                "name": meta["name"],
                "uid": meta["uid"],
            },
        },
    }


class Provisioner:
    """Does it from `start` to `stop`. `below`: the folder for the volumes' folders, which pods' users can reach; `log`: for failures."""

    def __init__(self, api: Api, below: Path, log: Path) -> None:
        self._api = api
        self._below = below
        mirror = Mirror(api, {"claims": CLAIMS, "volumes": VOLUMES})
        self._follower = Follower(mirror, self._act, log)

    def start(self) -> None:
        """Makes the class; from here claims are served. Raises Away, Refused."""
        self._api.create(CLASSES, STORAGE_CLASS)
        self._follower.start()

    def stop(self) -> None:
        """Ends the serving; the folders stay."""
        self._follower.stop()

    def _act(self, held: Held) -> None:
        work = decide(held["claims"], held["volumes"], self._below)
        for volume in work.make:
            folder = Path(volume["spec"]["hostPath"]["path"])
            folder.mkdir(exist_ok=True)
            folder.chmod(
                0o777
            )  # whatever the umask: the kubelet gives hostPath volumes no group, so everyone may write
            self._api.create(VOLUMES, volume)
        for name in work.remove:
            # First the folder: once the object is gone nobody knows of the folder any more.
            with suppress(FileNotFoundError):
                shutil.rmtree(self._below / name)
            self._api.delete(f"{VOLUMES}/{name}")
