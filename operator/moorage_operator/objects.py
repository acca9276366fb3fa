"""The objects of an agent: account, policy, workspace claim, and the pod of one sandbox. Layer: pure.

Settings and names in, plain dicts out. The pod passes restricted Pod Security. Its two containers share an address and a folder with one
socket; only the shim sees the volume's root, its own configuration and the pod's token. Nothing here is secret: the shim is told the hash
of what a gateway shows it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from moorage_api.kinds.agent import HostedAgentSpec
from moorage_api.provider.base import Revision
from moorage_operator import marks
from moorage_operator.kube import Object
from moorage_operator.settings import Settings

SHIM_PORT = 8090
USER = 10001  # of the stock image
LAUNCHER = "/moorage/launcher"
SOCKET = "/run/moorage/init.sock"
TOKEN_FILE = "/etc/moorage/token"
AUDIENCE = "moorage"
TOKEN_SECONDS = 3600
GRACE_SECONDS = 30
# Of the image's own: where its folders are when the volume is empty (design.md §6: seeded from the image).
FOLDERS = """
import os, shutil, sys
for name, own in (("workspace", sys.argv[1]), ("home", "/home/agent")):
    place = os.path.join("/volume", name)
    if os.path.isdir(place):
        continue
    fresh = place + ".new"
    shutil.rmtree(fresh, ignore_errors=True)
    if os.path.isdir(own):
        shutil.copytree(own, fresh, symlinks=True, ignore_dangling_symlinks=True)
    else:
        os.makedirs(fresh)
    os.rename(fresh, place)
"""


@dataclass(frozen=True)
class Program:
    """What a revision runs in a cluster. `owner`: the HostedAgent's reference, so that the cluster ends its objects with it."""

    namespace: str
    image: str
    owner: Mapping[str, Any]

    @staticmethod
    def of(revision: Revision) -> Program:
        """The program of a revision of a cluster's. Raises TypeError for one of another kind."""
        if not isinstance(revision.program, Program):
            raise TypeError(f"{revision.key} was not made for a cluster")
        return revision.program


def account_name(agent: str) -> str:
    """Service account, and policy, of an agent's sandboxes."""
    return f"moorage-{agent}"


def account(agent: str, namespace: str, owner: Mapping[str, Any]) -> Object:
    """The identity of an agent's sandboxes. It has no rights; nobody gets its token but the shim."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": _meta(account_name(agent), namespace, marks.labels(agent), owner),
        "automountServiceAccountToken": False,
    }


def policy(agent: str, namespace: str, owner: Mapping[str, Any], settings: Settings) -> Object:
    """Default deny both ways: in, the gateway to the shim; out, to the gateways' sandbox and egress ports. No DNS leaves a sandbox."""
    peer = _gateways(settings)
    ports = [urlsplit(url).port or 80 for url in (settings.sandbox_url, settings.egress_url) if url is not None]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _meta(account_name(agent), namespace, marks.labels(agent), owner),
        "spec": {
            "podSelector": {"matchLabels": {marks.OURS: marks.MANAGER, marks.AGENT: agent}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [peer], "ports": [{"protocol": "TCP", "port": SHIM_PORT}]}],
            "egress": [{"to": [peer], "ports": [{"protocol": "TCP", "port": port} for port in ports]}],
        },
    }


def claim(revision: Revision, sandbox: str, volume: str, settings: Settings) -> Object:
    """The workspace of one session, made for that sandbox. It outlives pod and HostedAgent: files go when the session is deleted."""
    workspace = revision.spec.workspace
    labels = marks.labels(revision.agent, **{marks.SANDBOX: sandbox})
    spec: Object = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": workspace.size}},
    }
    storage = workspace.storage_class_name or settings.storage_class
    if storage is not None:
        spec["storageClassName"] = storage
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": _meta(volume, Program.of(revision).namespace, labels, None),
        "spec": spec,
    }


def pod(revision: Revision, sandbox: str, volume: str, shim: Mapping[str, Any], settings: Settings) -> Object:
    """The pod of one sandbox. `shim`: the shim's configuration, nothing secret in it."""
    program, spec = Program.of(revision), revision.spec
    meta = _meta(
        sandbox,
        program.namespace,
        marks.labels(revision.agent, **{marks.REVISION: revision.revision, marks.SANDBOX: sandbox}),
        program.owner,
    )
    meta["annotations"] = {
        marks.SHIM: json.dumps(shim, separators=(",", ":"), sort_keys=True),
        marks.SPEC: json.dumps(spec.model_dump(mode="json", by_alias=True), separators=(",", ":"), sort_keys=True),
    }
    inner: Object = {
        "restartPolicy": "Never",
        "serviceAccountName": account_name(revision.agent),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "dnsPolicy": "None",  # no name leaves a sandbox: the gateway resolves
        "dnsConfig": {"nameservers": ["127.0.0.1"]},
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "initContainers": [_launcher(settings), _folders(revision)],
        "containers": [_agent(revision, sandbox, settings), _shim(settings)],
        "volumes": _volumes(spec, volume),
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": inner | _placement(spec)}


def covers(held: Any, wanted: Any) -> bool:
    """Whether an object of the cluster says all that `wanted` says; what the server or others added does not count."""
    if isinstance(wanted, Mapping):
        return isinstance(held, Mapping) and all(
            name in held and covers(held[name], part) for name, part in wanted.items()
        )
    if isinstance(wanted, list):
        return isinstance(held, list) and len(held) == len(wanted) and all(map(covers, held, wanted))
    return bool(held == wanted)


def _meta(name: str, namespace: str, labels: Mapping[str, str], owner: Mapping[str, Any] | None) -> Object:
    meta: Object = {"name": name, "namespace": namespace, "labels": dict(labels)}
    if owner is not None:
        meta["ownerReferences"] = [dict(owner)]
    return meta


def _gateways(settings: Settings) -> Object:
    if settings.gateway_cidr is not None:
        return {"ipBlock": {"cidr": settings.gateway_cidr}}
    return {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": settings.namespace}},
        "podSelector": {"matchLabels": settings.gateway_pods},
    }


def _placement(spec: HostedAgentSpec) -> Object:
    found: Object = {
        "runtimeClassName": spec.runtime_class_name,
        "nodeSelector": spec.node_selector or None,
        "priorityClassName": spec.priority_class_name,
        "tolerations": [
            one.model_dump(mode="json", by_alias=True, exclude_none=True) for one in spec.tolerations
        ] or None,
        "imagePullSecrets": [{"name": name} for name in spec.image_pull_secrets] or None,
    }  # fmt: skip
    return {name: value for name, value in found.items() if value is not None}


def _volumes(spec: HostedAgentSpec, volume: str) -> list[Object]:
    kept = (
        {"persistentVolumeClaim": {"claimName": volume}}
        if spec.workspace.file_system
        else {"emptyDir": {"sizeLimit": spec.workspace.size}}
    )
    token = {"audience": AUDIENCE, "expirationSeconds": TOKEN_SECONDS, "path": "token"}
    text = {"path": "shim.json", "fieldRef": {"fieldPath": f"metadata.annotations['{marks.SHIM}']"}}
    sources = [{"downwardAPI": {"items": [text]}}, {"serviceAccountToken": token}]
    return [
        {"name": "volume", **kept},
        {"name": "control", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        {"name": "launcher", "emptyDir": {"sizeLimit": "16Mi"}},
        {"name": "tmp", "emptyDir": {"sizeLimit": spec.resources.ephemeral_storage}},
        {"name": "shim-tmp", "emptyDir": {"sizeLimit": "64Mi"}},
        {"name": "told", "projected": {"defaultMode": 0o440, "sources": sources}},
    ]


def _launcher(settings: Settings) -> Object:
    """Brings the launcher (standard library only) into whatever image the agent has."""
    source = "/opt/moorage/src/moorage_sandbox/launcher"
    command = ["python", "-c", f"import shutil; shutil.copytree({source!r}, {LAUNCHER!r}, dirs_exist_ok=True)"]
    return _container("launcher", settings.sandbox_image, command, {"launcher": "/moorage"}, settings) | {
        "resources": _resources("50m", "64Mi", "500m", "128Mi"),
    }


def _folders(revision: Revision) -> Object:
    command = ["python3", "-c", FOLDERS, revision.spec.workspace.mount]
    return _container("folders", Program.of(revision).image, command, {"volume": "/volume"}, None) | {
        "resources": _resources("50m", "64Mi", "500m", "256Mi"),
    }


def _agent(revision: Revision, sandbox: str, settings: Settings) -> Object:
    spec = revision.spec
    command = [
        "python3", LAUNCHER, "pod", "--socket", SOCKET, "--code", ".", "--sandbox", sandbox,
        "--workspace", spec.workspace.mount, "--wait", str(int(settings.ready_seconds)),
    ]  # fmt: skip
    mounts = {"control": "/run/moorage", "launcher": "/moorage", "tmp": "/tmp"}
    one = _container("agent", Program.of(revision).image, command, mounts, None)
    one["volumeMounts"] += [
        {"name": "volume", "mountPath": spec.workspace.mount, "subPath": "workspace"},
        {"name": "volume", "mountPath": "/home/agent", "subPath": "home"},
    ]
    one["volumeMounts"][1]["readOnly"] = True
    one["env"] = [{"name": name, "value": text} for name, text in sorted(revision.environment.items())]
    given = spec.resources
    one["resources"] = _resources("50m", "64Mi", given.cpu, given.memory)
    if settings.ephemeral_storage:
        one["resources"]["requests"]["ephemeral-storage"] = "64Mi"
        one["resources"]["limits"]["ephemeral-storage"] = given.ephemeral_storage
    return one


def _shim(settings: Settings) -> Object:
    command = [
        "python", "-m", "moorage_sandbox", "--config", "/etc/moorage/shim.json", "--endpoint",
        f"http://$(POD_IP):{SHIM_PORT}", "--control-socket", SOCKET,
    ]  # fmt: skip
    mounts = {
        "control": "/run/moorage",
        "told": "/etc/moorage",
        "volume": "/volume",
        "shim-tmp": "/tmp",
    }
    return _container("shim", settings.sandbox_image, command, mounts, settings) | {
        "env": [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        "readinessProbe": {"tcpSocket": {"port": SHIM_PORT}, "periodSeconds": 1, "failureThreshold": 3},
        "resources": _resources("20m", "32Mi", "500m", "128Mi"),
    }


def _resources(cpu: str, memory: str, most_cpu: str, most_memory: str) -> Object:
    return {"requests": {"cpu": cpu, "memory": memory}, "limits": {"cpu": most_cpu, "memory": most_memory}}


def _container(
    name: str, image: str, command: list[str], mounts: Mapping[str, str], settings: Settings | None
) -> Object:
    """`settings`: for a container of the stock image, how it is pulled."""
    one: Object = {
        "name": name,
        "image": image,
        "command": command,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": volume, "mountPath": path} for volume, path in mounts.items()],
    }
    if settings is not None:
        one["imagePullPolicy"] = settings.sandbox_image_pull_policy
    return one
