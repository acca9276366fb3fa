"""The pod of one sandbox, written by hand: what the operator will make, in the shape that restricted Pod Security admits.

Two containers of the stock image: the agent (launcher as first process, nothing of the platform's) and the shim. They share the pod's
network and a folder with one socket, by which the shim is the agent's only way out and the only one that may tell init anything.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moorage_sandbox.config import ShimConfig

SHIM_PORT = 8090
USER = 10001
LAUNCHER = "/opt/moorage/src/moorage_sandbox/launcher"
SOCKET = "/run/moorage/init.sock"


@dataclass(frozen=True)
class SandboxPod:
    """What is asked for. `code`: file name → text, in the agent's folder. `claim`: the PersistentVolumeClaim of its workspace."""

    name: str
    image: str
    code: Mapping[str, str]
    entry: str
    shim: ShimConfig
    claim: str

    def objects(self, namespace: str) -> list[dict[str, Any]]:
        """Everything to apply: the code, the shim's secret configuration, the pod."""
        meta = {"name": self.name, "namespace": namespace, "labels": {"moorage.dev/sandbox": self.shim.sandbox}}
        config = base64.b64encode(self.shim.to_json().encode()).decode()
        return [
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": dict(self.code)},
            {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": {"shim.json": config}},
            {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": self._spec()},
        ]

    def _spec(self) -> dict[str, Any]:
        return {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": 30,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": USER,
                "runAsGroup": USER,
                "fsGroup": USER,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "initContainers": [
                self._container(
                    "folders",
                    ["python", "-c", "import os; [os.makedirs(f'/volume/{n}', exist_ok=True) for n in ('workspace', 'home')]"],
                    {"volume": "/volume"},
                )
            ],
            "containers": [self._agent(), self._shim()],
            "volumes": [
                {"name": "volume", "persistentVolumeClaim": {"claimName": self.claim}},
                {"name": "control", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
                {"name": "tmp", "emptyDir": {"sizeLimit": "256Mi"}},
                {"name": "code", "configMap": {"name": self.name}},
                {"name": "config", "secret": {"secretName": self.name, "defaultMode": 0o440}},
            ],
        }  # fmt: skip

    def _agent(self) -> dict[str, Any]:
        command = [
            "python", LAUNCHER, "pod", "--socket", SOCKET, "--code", "/app", "--entry", self.entry,
            "--sandbox", self.shim.sandbox,
        ]  # fmt: skip
        container = self._container("agent", command, {"control": "/run/moorage", "tmp": "/tmp", "code": "/app"})
        container["volumeMounts"] += [
            {"name": "volume", "mountPath": "/workspace", "subPath": "workspace"},
            {"name": "volume", "mountPath": "/home/agent", "subPath": "home"},
        ]
        return container

    def _shim(self) -> dict[str, Any]:
        command = [
            "python", "-m", "moorage_sandbox", "--config", "/etc/moorage/shim.json", "--endpoint",
            f"http://$(POD_IP):{SHIM_PORT}", "--control-socket", SOCKET,
        ]  # fmt: skip
        mounts = {"control": "/run/moorage", "config": "/etc/moorage", "volume": "/volume"}
        return self._container("shim", command, mounts) | {
            "env": [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
            "readinessProbe": {"tcpSocket": {"port": SHIM_PORT}, "periodSeconds": 1},
        }

    def _container(self, name: str, command: list[str], mounts: Mapping[str, str]) -> dict[str, Any]:
        return {
            "name": name,
            "image": self.image,
            "imagePullPolicy": "IfNotPresent",
            "command": command,
            # Nothing of ephemeral storage: the test node cannot measure it, and so admits no pod that asks for it.
            "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            },
            "volumeMounts": [{"name": volume, "mountPath": path} for volume, path in mounts.items()],
        }
