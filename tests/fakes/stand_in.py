"""In place of the kubelet and of who runs Jobs: pods of sandboxes become Ready, and go when asked to; builds are made. Layer: I/O rim.

Limits: no container runs and no volume is mounted; a pod is bound and Ready a moment after it was made, and its end takes no longer. Nobody
answers at a pod's address, unless `addresses` are given at which somebody does: each pod then has one of its own. A pod whose agent has the
image `broken` never gets Ready, and says the word that a kubelet says; one with the image `unmounted` waits for its volume for ever, in the
scheduler's words. A pod whose node is lost (`stand_in_nodes`) is left alone. A Job has one pod and is complete at once; a ref without
a commit is always the same one, and the bundle is named by source and commit.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from cluster.node.api import Api, Object, Refused
from cluster.node.mirror import Follower, Held, Mirror
from fakes.stand_in_nodes import Nodes, unplaced
from moorage_api import built
from moorage_operator import marks
from moorage_operator.build_objects import CONTAINER
from moorage_operator.builds import JOB_OF

ADDRESS = "192.0.2.1"  # of the range for examples: nobody's
BROKEN = "registry.example/broken:1"
UNMOUNTED = "registry.example/unmounted:1"
UNBOUND = "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims."
PODS = (
    f"/api/v1/pods?labelSelector={marks.SANDBOX}"  # a kubelet reads no label: who takes one off is served all the same
)
JOBS = f"/apis/batch/v1/jobs?labelSelector={marks.OURS}%3D{marks.MANAGER}"
COMMIT = "c" * 40
AT = "2026-01-01T00:00:00Z"
GATHER_SECONDS = 0.005  # of a stand-in that takes its time: it looks at all pods at each change


class StandIn:
    """Serves every pod and Job of the operator's from `start` to `stop`. `log`: for failures.

    `addresses`: one a pod, in order; they must suffice. `delay`: seconds from when a pod was first seen until it is served. `served` has
    for each pod the seconds from then until it was said to be Ready.
    """

    def __init__(
        self, api: Api, log: Path, *, addresses: Iterable[str] = itertools.repeat(ADDRESS), delay: float = 0.0
    ) -> None:
        self._api = api
        self._addresses = iter(addresses)
        self._delay = delay
        self._since: dict[str, float] = {}
        self._bound: set[str] = set()
        self._told: set[str] = set()
        self._waits: set[str] = set()
        self.nodes = Nodes(api)
        self.served: list[float] = []
        pause = GATHER_SECONDS if delay else 0.0
        self._follower = Follower(Mirror(api, {"pods": PODS, "jobs": JOBS}), self._act, log, pause=pause)

    def start(self) -> None:
        """From here pods are served."""
        self._follower.start()

    def stop(self) -> None:
        """Ends the serving."""
        self._follower.stop()

    def _act(self, held: Held) -> float | None:
        soonest, now = None, time.monotonic()
        for pod in held["pods"]:
            left = self._since.setdefault(pod["metadata"]["uid"], now) + self._delay - now
            if left > 0:
                soonest = left if soonest is None else min(left, soonest)
                continue
            with suppress(Refused):  # it changed or went meanwhile: the next look sees it
                self._serve(pod)
        for job in held["jobs"]:
            with suppress(Refused):
                self._build(job)
        there = {one["metadata"]["uid"] for kind in ("pods", "jobs") for one in held[kind]}
        self._bound &= there
        self._told &= there
        self._waits &= there
        self._since = {uid: at for uid, at in self._since.items() if uid in there}
        return soonest

    def _serve(self, pod: Object) -> None:
        meta = pod["metadata"]
        path, uid = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}", meta["uid"]
        if not self.nodes.answers(pod):
            return
        if "deletionTimestamp" in meta:
            now = {"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0, "preconditions": {"uid": uid}}
            self._api.delete(path, now)
            return
        waits = any(one["image"] == UNMOUNTED for one in pod["spec"]["containers"])
        if uid not in self._bound and not waits and not pod["spec"].get("nodeName"):
            node = self.nodes.node_for(pod)
            if not node:
                self._leave_waiting(path, uid)
                return
            target = {"apiVersion": "v1", "kind": "Node", "name": node}
            binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": meta["name"]}, "target": target}
            self._api.create(f"{path}/binding", binding)
        self._bound.add(uid)
        if uid not in self._told:
            self._api.merge(f"{path}/status", {"status": _status(pod, next(self._addresses))})
            self._told.add(uid)
            self.served.append(time.monotonic() - self._since[uid])

    def _leave_waiting(self, path: str, uid: str) -> None:
        if uid not in self._waits:
            self._api.merge(f"{path}/status", {"status": unplaced()})
            self._waits.add(uid)

    def _build(self, job: Object) -> None:
        meta = job["metadata"]
        if meta["uid"] in self._told or "deletionTimestamp" in meta:
            return
        pods, name = f"/api/v1/namespaces/{meta['namespace']}/pods", f"{meta['name']}-{meta['uid'][:5]}"
        try:
            self._api.create(pods, _pod(job, name))
        except Refused as fault:
            if fault.status != 409:  # made at the last look, which went no further
                raise
        self._api.merge(f"{pods}/{name}/status", {"status": _ended(job)})
        held = [
            {"type": kind, "status": "True", "lastTransitionTime": AT} for kind in ("SuccessCriteriaMet", "Complete")
        ]
        over = {"succeeded": 1, "startTime": AT, "completionTime": AT, "conditions": held}
        self._api.merge(f"/apis/batch/v1/namespaces/{meta['namespace']}/jobs/{meta['name']}/status", {"status": over})
        self._told.add(meta["uid"])


def _pod(job: Object, name: str) -> Object:
    meta, template = job["metadata"], job["spec"]["template"]
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": meta["name"], "uid": meta["uid"], "controller": True}
    labels = {**template["metadata"].get("labels", {}), JOB_OF: meta["name"]}
    own = {
        "name": name,
        "labels": labels,
        "annotations": template["metadata"]["annotations"],
        "ownerReferences": [owner],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": own, "spec": template["spec"]}


def _ended(job: Object) -> Object:
    """The last status of a build's pod."""
    asked = json.loads(job["spec"]["template"]["metadata"]["annotations"][marks.CONFIG])
    commit = asked["commit"] or COMMIT
    digest = hashlib.sha256(json.dumps([asked["source"], commit], sort_keys=True).encode()).hexdigest()
    said = built.told(built.Built(digest, "host.py", "moorage", commit))
    ended = {"exitCode": 0, "message": said, "startedAt": AT, "finishedAt": AT}
    one = {
        "name": CONTAINER,
        "ready": False,
        "restartCount": 0,
        "image": "",
        "imageID": "",
        "state": {"terminated": ended},
    }
    return {"phase": "Succeeded", "containerStatuses": [one]}


def _status(pod: Object, address: str) -> Object:
    images = {one["name"]: one["image"] for one in pod["spec"]["containers"]}
    if images["agent"] == BROKEN:
        waiting = {"reason": "ErrImagePull", "message": f"failed to pull image {BROKEN}: not found"}
        stuck = {
            "name": "agent",
            "ready": False,
            "restartCount": 0,
            "image": BROKEN,
            "imageID": "",
            "state": {"waiting": waiting},
        }
        return {"phase": "Pending", "containerStatuses": [stuck]}
    if images["agent"] == UNMOUNTED:
        why = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": UNBOUND}
        return {"phase": "Pending", "conditions": [why | {"lastTransitionTime": AT}]}
    runs = {"running": {"startedAt": AT}}
    return {
        "phase": "Running",
        "podIP": address,
        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": AT}],
        "containerStatuses": [
            {"name": name, "ready": True, "restartCount": 0, "image": image, "imageID": "", "state": runs}
            for name, image in images.items()
        ],
    }
