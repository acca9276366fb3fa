"""The nodes of a stand-in: two in each namespace, of which one may go silent, lose its pods, and come back. Layer: I/O rim.

Volumes are local: a claim is where its first pod ran, and no pod on it runs elsewhere. There are no Node objects: what a cluster does to
the pods of one that is not heard of, or was deleted, is done here to the pods themselves.
"""

from __future__ import annotations

import threading
from contextlib import suppress

from cluster.node.api import Api, Object, Refused

NODE, OTHER = "stand-in", "stand-in-2"
AFFINITY = (
    "0/2 nodes are available: 1 node(s) had untolerated taint(s), 1 node(s) didn't match PersistentVolume's node affinity. "
    "preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."
)
AT = "2026-01-01T00:00:00Z"
GRACE_SECONDS = 1  # of an eviction: a test need not wait for half a minute

Place = tuple[str, str]  # namespace, node


class Nodes:
    """Which of them are lost, and what lies where."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._lock = threading.Lock()  # tests ask, the stand-in's thread serves
        self._lost: set[Place] = set()
        self._homes: dict[tuple[str, str], str] = {}  # namespace, claim → node

    def node_for(self, pod: Object) -> str:
        """Where a pod that has no node yet is to run; "" where its volume is on a node that is lost."""
        namespace = pod["metadata"]["namespace"]
        claims = [(namespace, name) for name in _claims(pod)]
        with self._lock:
            home = next((self._homes[claim] for claim in claims if claim in self._homes), None)
            left = [node for node in (NODE, OTHER) if (namespace, node) not in self._lost]
            node = home if home in left else "" if home is not None or not left else left[0]
            if node:
                self._homes.update((claim, node) for claim in claims)
        return node

    def answers(self, pod: Object) -> bool:
        """Whether the node of a pod is there to do anything for it."""
        with self._lock:
            return (pod["metadata"]["namespace"], pod["spec"].get("nodeName", "")) not in self._lost

    def silence(self, namespace: str, node: str = NODE) -> None:
        """A node is not heard of any more: its pods are said not to be ready, and nothing that is asked of them happens."""
        with self._lock:
            self._lost.add((namespace, node))
        for pod in self._of(namespace, node):
            self._api.merge(f"{_path(pod)}/status", {"status": {"conditions": _ready("False")}})

    def evict(self, namespace: str, node: str = NODE) -> None:
        """Its pods are told to end, as after five minutes; nobody there hears of it."""
        for pod in self._of(namespace, node):
            self._end(pod, GRACE_SECONDS)

    def remove(self, namespace: str, node: str = NODE) -> None:
        """Its Node is deleted, and with it the objects of its pods, whatever still runs there."""
        with self._lock:
            self._lost.add((namespace, node))
        for pod in self._of(namespace, node):
            self._end(pod, 0)

    def back(self, namespace: str, node: str = NODE) -> None:
        """It is heard of again: what was told to end meanwhile ends now, the rest runs on."""
        with self._lock:
            self._lost.discard((namespace, node))
        for pod in self._of(namespace, node):
            with suppress(Refused):  # the stand-in was quicker
                self._api.merge(f"{_path(pod)}/status", {"status": {"conditions": _ready("True")}})

    def _of(self, namespace: str, node: str) -> list[Object]:
        found: list[Object] = self._api.get(f"/api/v1/namespaces/{namespace}/pods")["items"]
        return [pod for pod in found if pod["spec"].get("nodeName") == node]

    def _end(self, pod: Object, grace: int) -> None:
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": grace}
        self._api.delete(_path(pod), options)


def unplaced() -> Object:
    """The status of a pod that no node takes, because of its volume."""
    why = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": AFFINITY}
    return {"phase": "Pending", "conditions": [why | {"lastTransitionTime": AT}]}


def _ready(status: str) -> list[Object]:
    """A node takes and gives both; who does not hear of it, takes the first one only."""
    held = {"Ready": status, "ContainersReady": "True"}
    return [{"type": kind, "status": said, "lastTransitionTime": AT} for kind, said in held.items()]


def _path(pod: Object) -> str:
    meta = pod["metadata"]
    return f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"


def _claims(pod: Object) -> list[str]:
    volumes = pod["spec"].get("volumes") or ()
    return [one["persistentVolumeClaim"]["claimName"] for one in volumes if "persistentVolumeClaim" in one]
