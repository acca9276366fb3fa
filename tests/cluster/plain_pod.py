"""Pods that run one line of Python on the base image, in a namespace of their own that enforces restricted Pod Security."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cluster.node.node import Node
from fakes.platform import poll

USER = 10001
START_SECONDS = 60


class PlainPods:
    """Of one namespace. Names are the test's."""

    def __init__(self, node: Node, image: str, namespace: str) -> None:
        self._node = node
        self._image = image
        self.namespace = namespace

    @classmethod
    @contextmanager
    def opened(cls, node: Node, image: str, namespace: str) -> Iterator[PlainPods]:
        """The namespace; it and everything in it goes at the end."""
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}}
        node.kubectl("create", "-f", "-", given=json.dumps(made))
        try:
            yield cls(node, image, namespace)
        finally:
            node.kubectl("delete", "namespace", namespace, "--wait=true", "--timeout=60s")

    def kubectl(self, *arguments: str, given: str | None = None) -> str:
        """kubectl in this namespace. Raises RuntimeError with what it said."""
        return self._node.kubectl(*arguments, "--namespace", self.namespace, given=given)

    def apply(self, document: dict[str, Any]) -> None:
        """Applies one object of this namespace."""
        self.kubectl("apply", "-f", "-", given=json.dumps(document))

    def start(self, name: str, code: str, *, claim: str | None = None, **spec: Any) -> None:
        """A pod that runs `code`, with the claim's volume at /data. `spec`: more of the pod's."""
        volumes: list[dict[str, Any]] = []
        if claim is not None:
            volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]
        container = {
            "name": "main", "image": self._image, "imagePullPolicy": "IfNotPresent", "command": ["python3", "-c", code],
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            "volumeMounts": [{"name": "data", "mountPath": "/data"}] if claim is not None else [],
        }  # fmt: skip
        context = {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        whole = {
            "restartPolicy": "Never", "automountServiceAccountToken": False, "securityContext": context,
            "terminationGracePeriodSeconds": 1, "containers": [container], "volumes": volumes, **spec,
        }  # fmt: skip
        self.apply(
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": whole}
        )

    def run(self, name: str, code: str, *, claim: str | None = None, within: float = START_SECONDS) -> str:
        """What the code printed, without the last newline. AssertionError with it when the code failed."""
        self.start(name, code, claim=claim)
        poll(f"{name} has ended", lambda: self._phase(name) in ("Succeeded", "Failed"), within=within)
        said = self.kubectl("logs", name).strip()
        assert self._phase(name) == "Succeeded", said
        return said

    def address(self, name: str) -> str:
        """The pod's address, once it runs."""
        return str(poll(f"{name} runs", lambda: self._running_at(name), within=START_SECONDS))

    def _running_at(self, name: str) -> str:
        status = self._status(name)
        return str(status.get("podIP", "")) if status.get("phase") == "Running" else ""

    def _phase(self, name: str) -> str:
        return str(self._status(name).get("phase"))

    def _status(self, name: str) -> dict[str, Any]:
        return dict(json.loads(self.kubectl("get", "pod", name, "-o", "json"))["status"])
