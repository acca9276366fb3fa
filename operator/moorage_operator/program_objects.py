"""The objects of a program of a toolbox: its pod, and the policy of the toolbox' pods. Layer: pure; plain dicts out.

The program runs in its own image; what runs it (`moorage_sandbox.stdio`, standard library only) is brought there by an init container of
the stock image, as the launcher is. No token of the cluster is in the pod, and nothing secret in its object: secrets are named, and the
process is told the hash of what gateways show it. In: the gateways, to one port. Out: nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from moorage_api import tokens
from moorage_api.kinds.stdio_server import StdioServer
from moorage_api.wire.stdio import HEALTH, PORT
from moorage_operator import marks, parts
from moorage_operator.kube import Object
from moorage_operator.settings import Settings

CONTAINER = "program"
CONFIG = "/etc/moorage/program.json"
BRIDGE = "/moorage"
MODULES = (
    "moorage_api/__init__.py", "moorage_api/wire/__init__.py", "moorage_api/wire/stdio.py",
    "moorage_sandbox/__init__.py", "moorage_sandbox/lifeline.py", "moorage_sandbox/launcher/__init__.py",
    "moorage_sandbox/launcher/processes.py", "moorage_sandbox/stdio",
)  # fmt: skip
"""What runs a program, of the stock image."""
_COPY = """
import os, shutil, sys
for name in sys.argv[2:]:
    source, target = os.path.join("/opt/moorage/src", name), os.path.join(sys.argv[1], name)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.isdir(source):
        shutil.copytree(source, target, dirs_exist_ok=True)
    else:
        shutil.copyfile(source, target)
"""
_RUN = f"import sys; sys.path.insert(0, {BRIDGE!r}); from moorage_sandbox.stdio.__main__ import main; sys.exit(main())"
_GRACE_SECONDS = 20
_SCRATCH = "256Mi"


@dataclass(frozen=True)
class Program:
    """One of them. `owner`: its Toolbox' reference; `seen`: names the values of its secrets, so that a changed one makes another pod."""

    namespace: str
    tenant: str
    toolbox: str
    upstream: str
    server: StdioServer
    owner: Mapping[str, Any] = field(hash=False)
    seen: str = ""

    @property
    def name(self) -> str:
        """Its pod's. A toolbox' name may be as long as a pod's, so that its digest stands for it."""
        return f"moorage-program-{_hash([self.toolbox, self.upstream])}"


def labels(toolbox: str, upstream: str = "") -> dict[str, str]:
    """Of its pods; not those of sandboxes: nothing that looks for these may find a program."""
    found = {marks.PART: marks.PROGRAM, marks.TOOLBOX: toolbox}
    return found | {marks.UPSTREAM: upstream} if upstream else found


def policy(program: Program, settings: Settings) -> Object:
    """Of all programs of a toolbox: in, the gateways; out, nothing. No agent's name has a dot: this is no agent's own policy.

    Nobody owns it, as nobody owns the account: what a Toolbox owns goes at once with it, while its pods have their grace to end.
    """
    name = guard(program.toolbox)
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": parts.meta(name, program.namespace, _guarding(program), None),
        "spec": {
            "podSelector": {"matchLabels": labels(program.toolbox)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [parts.gateways(settings)], "ports": [{"protocol": "TCP", "port": PORT}]}],
            "egress": [],
        },
    }


def account(program: Program) -> Object:
    """The identity of a toolbox' programs: it has no rights, and nobody gets its token."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": parts.meta(_account(program), program.namespace, _guarding(program), None),
        "automountServiceAccountToken": False,
    }


def _guarding(program: Program) -> dict[str, str]:
    return {marks.OURS: marks.MANAGER, **labels(program.toolbox)}


def made(program: Program, settings: Settings) -> str:
    """Names all that the pod is made from."""
    return _hash([_told(program, settings), _inner(program, settings), program.seen])


def pod(program: Program, settings: Settings) -> Object:
    """Its pod."""
    meta = parts.meta(program.name, program.namespace, labels(program.toolbox, program.upstream), program.owner)
    meta["annotations"] = {marks.CONFIG: _told(program, settings), marks.MADE: made(program, settings)}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": _inner(program, settings)}


def _inner(program: Program, settings: Settings) -> Object:
    source = ["python", "-c", _COPY, BRIDGE, *MODULES]
    brought = parts.container("bridge", settings.sandbox_image, source, {"bridge": BRIDGE}, settings)
    brought["resources"] = parts.resources("50m", "64Mi", "500m", "128Mi")
    told = {"path": "program.json", "fieldRef": {"fieldPath": f"metadata.annotations['{marks.CONFIG}']"}}
    dirs = {"bridge": "16Mi", "home": _SCRATCH, "tmp": _SCRATCH}
    inner = parts.closed(_account(program)) | {
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": _GRACE_SECONDS,
        "initContainers": [brought],
        "containers": [_container(program)],
        "volumes": [
            {"name": "told", "downwardAPI": {"items": [told]}},
            *({"name": name, "emptyDir": {"sizeLimit": size}} for name, size in dirs.items()),
        ],
    }
    return parts.with_room(inner) if settings.ephemeral_storage else inner


def _container(program: Program) -> Object:
    mounts = {"bridge": BRIDGE, "told": "/etc/moorage", "home": "/home/agent", "tmp": "/tmp"}
    command = ["python3", "-I", "-c", _RUN, "--config", CONFIG]
    assert program.server.image is not None
    one = parts.container(CONTAINER, program.server.image, command, mounts, None)
    one["volumeMounts"][0]["readOnly"] = True
    one["env"] = [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": named.secret, "key": named.key}}}
        for name, named in program.server.secrets.items()
    ]
    one["ports"] = [{"containerPort": PORT, "protocol": "TCP"}]
    one["readinessProbe"] = {"httpGet": {"path": HEALTH, "port": PORT}, "periodSeconds": 3, "failureThreshold": 2}
    given = program.server.resources
    one["resources"] = parts.resources("50m", "64Mi", given.cpu, given.memory)
    return one


def _told(program: Program, settings: Settings) -> str:
    server = program.server
    env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": "/home/agent", "TMPDIR": "/tmp"}
    key = settings.token_key.get_secret_value()
    said = {
        "argv": [server.command, *server.args],
        "env": env | {each.name: each.value for each in server.env if each.value is not None},
        "cwd": f"/app/{server.working_dir}".rstrip("/"),
        "secrets": sorted(server.secrets),
        "host": "0.0.0.0",
        "port": PORT,
        "token_sha256": tokens.secret_sha256(
            tokens.stdio_secret(program.tenant, program.toolbox, program.upstream, key)
        ),
    }
    return json.dumps(said, separators=(",", ":"), sort_keys=True)


def guard(toolbox: str) -> str:
    """The name of policy and account of a toolbox' programs."""
    return f"moorage-{toolbox}.programs"


def _account(program: Program) -> str:
    return guard(program.toolbox)


def _hash(said: Any) -> str:
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]
