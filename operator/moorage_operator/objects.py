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

from moorage_api.built import CODE as CODE_IN
from moorage_api.built import CODE_AT, ENVIRONMENT, ENVIRONMENT_AT, INDEX, INDEX_AT, INDEX_VARIABLES, Built
from moorage_api.kinds.agent import HostedAgentSpec
from moorage_api.kinds.quantities import octets
from moorage_api.kinds.values import PACKAGE_INDEX
from moorage_api.provider.base import Revision
from moorage_api.wire.shim import ALIVE
from moorage_operator import marks, parts
from moorage_operator.kube import Object
from moorage_operator.settings import Settings

SHIM_PORT = 8090
LAUNCHER = "/moorage/launcher"
SOCKET = "/run/moorage/init.sock"
TOKEN_FILE = "/etc/moorage/token"
GRACE_SECONDS = 30
NOTICE_SECONDS = 20
"""Of the grace, for the last checkpoint; the rest is for the ends of processes, up to 15 s of the agent's when they hang."""
CODE = "8Gi"  # of code and environment in a pod, at most
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
# The agent's image need not know us: its shim, which starts beside it, brings the launcher, and the container becomes it.
FIRST = """
import os, sys, time
within, launcher = float(sys.argv[1]), sys.argv[2]
until = time.monotonic() + within
while not os.path.isdir(launcher):
    if time.monotonic() > until:
        sys.exit(f"moorage: no shim brought {launcher} within {within:g} s")
    time.sleep(0.01)  # a folder of a shared volume: nobody tells of it, and a hundredth of a second is nothing beside a start
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


@dataclass(frozen=True)
class Program:
    """What a revision runs in a cluster. `owner`: the HostedAgent's reference, so that the cluster ends its objects with it.

    `built`: what was made of a source, which then runs in the stock image; None for an image that holds the agent.
    """

    namespace: str
    image: str
    owner: Mapping[str, Any]
    built: Built | None = None

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
        "metadata": parts.meta(account_name(agent), namespace, marks.labels(agent), owner),
        "automountServiceAccountToken": False,
    }


def policy(agent: str, namespace: str, owner: Mapping[str, Any], settings: Settings) -> Object:
    """Default deny both ways: in, the gateway to the shim; out, to the gateways' sandbox and egress ports. No DNS leaves a sandbox."""
    peer = parts.gateways(settings)
    ports = [urlsplit(url).port or 80 for url in (settings.sandbox_url, settings.egress_url) if url is not None]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": parts.meta(account_name(agent), namespace, marks.labels(agent), owner),
        "spec": {
            "podSelector": {"matchLabels": {marks.OURS: marks.MANAGER, marks.AGENT: agent}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [peer], "ports": [{"protocol": "TCP", "port": SHIM_PORT}]}],
            "egress": [{"to": [peer], "ports": [{"protocol": "TCP", "port": port} for port in ports]}],
        },
    }


def claim(revision: Revision, sandbox: str, volume: str, settings: Settings, *, ledger: str) -> Object:
    """The workspace of one session, made for that sandbox while `ledger` was known.

    It outlives pod and HostedAgent: files go when the session is deleted.
    """
    workspace = revision.spec.workspace
    labels = marks.labels(revision.agent, **{marks.SANDBOX: sandbox})
    spec: Object = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": workspace.size}},
    }
    storage = workspace.storage_class_name or settings.storage_class
    if storage is not None:
        spec["storageClassName"] = storage
    meta = parts.meta(volume, Program.of(revision).namespace, labels, None)
    meta["annotations"] = {marks.LEDGER: ledger}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": spec}


def pod(
    revision: Revision, sandbox: str, volume: str, shim: Mapping[str, Any], settings: Settings, *, used: bool = False
) -> Object:
    """The pod of one sandbox. `shim`: the shim's configuration, nothing secret in it. `used`: a session has run on that volume before.

    A kubelet takes up to a second to see that an init container has ended, so a session that wakes should wait for none.
    """
    program, spec = Program.of(revision), revision.spec
    meta = parts.meta(
        sandbox,
        program.namespace,
        marks.labels(revision.agent, **{marks.REVISION: revision.revision, marks.SANDBOX: sandbox}),
        program.owner,
    )
    meta["annotations"] = {
        marks.SHIM: json.dumps(shim, separators=(",", ":"), sort_keys=True),
        marks.SPEC: json.dumps(revision.wire_spec, separators=(",", ":"), sort_keys=True),
    }
    first = [] if used and spec.workspace.file_system else [_folders(revision, settings)]
    volumes = _volumes(spec, volume)
    if program.built is not None:
        meta["annotations"][marks.BUILT] = program.built.to_json()
    if program.built is not None or _indexed(spec):
        first.append(_fetched(program.built, settings, index=_indexed(spec)))
        volumes.append({"name": "code", "emptyDir": {"sizeLimit": CODE}})
    inner: Object = parts.closed(account_name(revision.agent)) | {
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "initContainers": first,
        "containers": [_agent(revision, sandbox, settings), _shim(settings)],
        "volumes": volumes,
    }
    if settings.ephemeral_storage:
        inner = parts.with_room(inner)
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": inner | parts.placement(spec)}


def covers(held: Any, wanted: Any) -> bool:
    """Whether an object of the cluster says all that `wanted` says; what the server or others added does not count.

    An API server keeps no empty list: what is not there says the same.
    """
    if isinstance(wanted, Mapping):
        return isinstance(held, Mapping) and all(
            covers(held[name], part) if name in held else part == [] for name, part in wanted.items()
        )
    if isinstance(wanted, list):
        return isinstance(held, list) and len(held) == len(wanted) and all(map(covers, held, wanted))
    return bool(held == wanted)


def stands(held: Any, wanted: Any) -> bool:
    """Whether an object needs no mending: its spec says what `wanted` says and not a word more, since a word more in a policy undoes it."""
    return covers(held, wanted) and covers(wanted.get("spec") or {}, held.get("spec") or {})


def _volumes(spec: HostedAgentSpec, volume: str) -> list[Object]:
    kept = (
        {"persistentVolumeClaim": {"claimName": volume}}
        if spec.workspace.file_system
        else {"emptyDir": {"sizeLimit": spec.workspace.size}}
    )
    return [
        {"name": "volume", **kept},
        {"name": "control", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        {"name": "launcher", "emptyDir": {"sizeLimit": "16Mi"}},
        {"name": "tmp", "emptyDir": {"sizeLimit": spec.resources.ephemeral_storage}},
        {"name": "shim-tmp", "emptyDir": {"sizeLimit": "64Mi"}},
        parts.told(marks.SHIM, "shim.json"),
    ]


def _folders(revision: Revision, settings: Settings) -> Object:
    command = ["python3", "-c", FOLDERS, revision.spec.workspace.mount]
    return parts.container("folders", Program.of(revision).image, command, {"volume": "/volume"}, None) | {
        "resources": _asked(settings, "500m", "256Mi"),
    }


def _asked(settings: Settings, most_cpu: str, most_memory: str) -> Object:
    """What runs before the agent asks for no more than it does: a pod keeps room for the greater of both as long as it lives."""
    return parts.resources(settings.sandbox_cpu_request, settings.sandbox_memory_request, most_cpu, most_memory)


def _indexed(spec: HostedAgentSpec) -> bool:
    """Whether the agent is told how to reach the package index (docs/runtime-contract.md)."""
    return PACKAGE_INDEX in spec.egress


def _fetched(made: Built | None, settings: Settings, *, index: bool) -> Object:
    """Brings code and environment of a source, and how the index is reached; of the rest only the shim sees the pod's token too."""
    command = [
        "python", "-m", "moorage_sandbox.fetching", "--config", "/etc/moorage/shim.json",
        *(["--digest", made.digest] if made is not None else []), *(["--index"] if index else []),
        "--to", "/code", "--within", str(int(settings.ready_seconds / 2)),
    ]  # fmt: skip
    mounts = {"told": "/etc/moorage", "code": "/code"}
    return parts.container("code", settings.sandbox_image, command, mounts, settings) | {
        "resources": _asked(settings, "1", "512Mi"),
    }


def _agent(revision: Revision, sandbox: str, settings: Settings) -> Object:
    spec, made = revision.spec, Program.of(revision).built
    python = "python3" if made is None else f"{ENVIRONMENT_AT}/bin/python"
    command = [
        python, "-c", FIRST, str(int(settings.ready_seconds)),
        LAUNCHER, "pod", "--socket", SOCKET, "--code", "." if made is None else CODE_AT, "--sandbox", sandbox,
        "--workspace", spec.workspace.mount, "--wait", str(int(settings.ready_seconds)),
        *(["--entry", made.entry] if made is not None else []), *(["--exec"] if revision.contract != "moorage" else []),
        *(["--variables", f"{INDEX_AT}/{INDEX_VARIABLES}"] if _indexed(spec) else []),
    ]  # fmt: skip
    mounts = {"control": "/run/moorage", "launcher": "/moorage", "tmp": "/tmp"}
    one = parts.container("agent", Program.of(revision).image, command, mounts, None)
    one["volumeMounts"] += [
        {"name": "volume", "mountPath": spec.workspace.mount, "subPath": "workspace"},
        {"name": "volume", "mountPath": "/home/agent", "subPath": "home"},
    ]
    one["volumeMounts"][1]["readOnly"] = True
    variables = revision.environment
    if made is not None:
        one["volumeMounts"] += [
            {"name": "code", "mountPath": CODE_AT, "subPath": CODE_IN, "readOnly": True},
            {"name": "code", "mountPath": ENVIRONMENT_AT, "subPath": ENVIRONMENT, "readOnly": True},
        ]
        variables = {"PATH": f"{ENVIRONMENT_AT}/bin:/usr/local/bin:/usr/bin:/bin", **variables}
    if _indexed(spec):
        one["volumeMounts"].append({"name": "code", "mountPath": INDEX_AT, "subPath": INDEX, "readOnly": True})
    one["env"] = [{"name": name, "value": text} for name, text in sorted(variables.items())]
    given = spec.resources
    one["resources"] = _asked(settings, given.cpu, given.memory)
    if settings.ephemeral_storage:
        one["resources"]["requests"][parts.DISK] = parts.at_most("64Mi", given.ephemeral_storage, octets)
        one["resources"]["limits"][parts.DISK] = given.ephemeral_storage
    return one


def _probes(settings: Settings) -> Object:
    """Of the shim; it judges its agent itself. Three that ask different things:

    probe     | asks                       | what follows
    ----------|----------------------------|-----------------------------------------------------------------------
    startup   | does its port listen       | a minute after the operator gave it up, the pod has failed
    readiness | does its port listen still | the pod is not ready; the operator ends none for that (`pods.lapsed`)
    liveness  | does it answer             | silent for 3 minutes, it is killed, and its session wakes elsewhere

    The last one ends a session's sandbox: it is for a loop that stands still, which nothing else helps, and not for a busy machine.
    """
    port: Object = {"tcpSocket": {"port": SHIM_PORT}, "periodSeconds": 1}
    return {
        "startupProbe": port | {"failureThreshold": int(settings.ready_seconds) + 60},
        "readinessProbe": port | {"failureThreshold": 3},
        "livenessProbe": {
            "httpGet": {"port": SHIM_PORT, "path": ALIVE}, "periodSeconds": 20, "timeoutSeconds": 10, "failureThreshold": 9,
        },
    }  # fmt: skip


def _shim(settings: Settings) -> Object:
    command = [
        "python", "-m", "moorage_sandbox", "--config", "/etc/moorage/shim.json", "--endpoint",
        f"http://$(POD_IP):{SHIM_PORT}", "--control-socket", SOCKET, "--launcher", LAUNCHER,
    ]  # fmt: skip
    mounts = {
        "control": "/run/moorage",
        "launcher": "/moorage",
        "told": "/etc/moorage",
        "volume": "/volume",
        "shim-tmp": "/tmp",
    }
    return parts.container("shim", settings.sandbox_image, command, mounts, settings) | {
        "env": [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        **_probes(settings),
        "resources": parts.resources("20m", "32Mi", "1", "384Mi"),  # 200,000 files take 200 MiB to save
    }
