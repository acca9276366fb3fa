"""What tries whether network policies hold: two pods, two policies, and what their end says. Layer: CLI; pure.

The listener has three ports, and the caller tries all of them in rounds:

port    | listener's policy | caller's policy | when policies hold
--------|-------------------|-----------------|-------------------
ALLOWED | lets in           | lets out        | open: else nothing is proved
IN      | denies            | lets out        | closed
OUT     | lets in           | denies          | closed

A plugin may take some seconds to enforce a new policy, so the caller goes on until one round is as it should be, or WITHIN is over. Both
pods pass restricted Pod Security. Everything belongs to the listener's Job, which ends by itself and which the cluster then removes: so
nothing stays where the doctor itself was killed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from moorage.cli.doctor.asked import part
from moorage.cli.doctor.findings import Finding
from moorage.cli.doctor.network import CHECK

LABEL = "moorage.dev/doctor"
ROLE = "moorage.dev/doctor-role"
ALLOWED, IN, OUT = 8091, 8092, 8093
WITHIN = 30  # seconds of rounds
LIFE = 180  # seconds after which the cluster ends everything by itself
UNPROVED = 20
STUCK = frozenset(
    "ErrImagePull ImagePullBackOff InvalidImageName ErrImageNeverPull CreateContainerConfigError CreateContainerError".split()
)
# The allowed port last: once it is open, so are the others.
LISTEN = f"""
import selectors, socket
ready = selectors.DefaultSelector()
for port in ({IN}, {OUT}, {ALLOWED}):
    ready.register(socket.create_server(("", port)), selectors.EVENT_READ)
while True:
    for key, _ in ready.select():
        key.fileobj.accept()[0].close()
"""
CALL = f"""
import socket, sys, time
def open_at(port):
    try:
        socket.create_connection((sys.argv[1], port), 2).close()
    except OSError:
        return False
    return True
code, end = {UNPROVED}, time.monotonic() + {WITHIN}
while time.monotonic() < end:
    if open_at({ALLOWED}):
        into, out = open_at({IN}), open_at({OUT})
        code = 10 + into + 2 * out if into or out else 0
        if code == 0:
            break
    time.sleep(1)  # until {WITHIN} s are over: policies take hold when they do
sys.exit(code)
"""
Object = dict[str, Any]


def listener(token: str, namespace: str, image: str) -> Object:
    """The Job that owns the rest, and whose pod listens."""
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": _name(token), "namespace": namespace, "labels": {LABEL: token}},
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": LIFE,
            "ttlSecondsAfterFinished": 0,
            "template": {"metadata": {"labels": _labels(token, "listener")}, "spec": _spec(image, LISTEN)},
        },
    }


def policies(token: str, namespace: str, job: str) -> list[Object]:
    """Both. `job`: the Job's uid."""
    into = {
        "podSelector": {"matchLabels": _labels(token, "listener")},
        "policyTypes": ["Ingress"],
        "ingress": [{"from": [_peer(token, "caller")], "ports": _ports(ALLOWED, OUT)}],
    }
    out = {
        "podSelector": {"matchLabels": _labels(token, "caller")},
        "policyTypes": ["Egress"],
        "egress": [{"to": [_peer(token, "listener")], "ports": _ports(ALLOWED, IN)}],
    }
    return [
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": _owned(token, namespace, job, side),
            "spec": spec,
        }
        for side, spec in (("in", into), ("out", out))
    ]


def caller(token: str, namespace: str, image: str, job: str, address: str) -> Object:
    """The pod that calls `address` and whose exit code is the verdict."""
    meta = _owned(token, namespace, job, "caller") | {"labels": _labels(token, "caller")}
    spec = _spec(image, CALL, address) | {"activeDeadlineSeconds": LIFE}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}


def address(pod: Mapping[str, Any]) -> str | None:
    """Where a running pod is."""
    return str(part(pod, "status", "podIP")) if part(pod, "status", "phase") == "Running" else None


def end(pod: Mapping[str, Any]) -> int | None:
    """The exit code of a pod that ended."""
    for one in part(pod, "status", "containerStatuses") or ():
        found = part(one, "state", "terminated", "exitCode")
        if isinstance(found, int):
            return found
    return None


def stuck(pod: Mapping[str, Any]) -> str | None:
    """Why a pod will not start by itself."""
    for one in part(pod, "status", "containerStatuses") or ():
        waiting = part(one, "state", "waiting")
        if part(waiting, "reason") in STUCK:
            return f"{waiting['reason']}: {part(waiting, 'message') or 'no reason is given'}"
    for one in part(pod, "status", "conditions") or ():
        if part(one, "type") == "PodScheduled" and part(one, "status") == "False":
            return f"no node takes it: {part(one, 'message') or part(one, 'reason')}"
    return None


def verdict(code: int, namespace: str) -> Finding:
    """What the caller's exit code says."""
    if code == 0:
        return Finding(
            CHECK, "ok", f"tried in {namespace}: what they deny is closed in both directions, what they allow is open"
        )
    sides = {11: "into a pod", 12: "out of a pod", 13: "into and out of pods"}
    if code in sides:
        says = f"Tried in {namespace}: policies for traffic {sides[code]} do not hold: sandboxes would reach what they must not."
        return Finding(
            CHECK,
            "wrong",
            says,
            ("Install a network plugin that enforces NetworkPolicy, as Calico, Cilium or Antrea.",),
        )
    if code == UNPROVED:
        says = f"Two pods of {namespace} cannot reach each other even where policies allow it, so nothing is proved."
        return Finding(CHECK, "could not look", says, (f"kubectl get networkpolicies --namespace {namespace}",))
    return unproved(f"The pod that calls ended with exit code {code}.")


def unproved(why: str) -> Finding:
    """The probe itself did not come to an end."""
    return Finding(CHECK, "could not look", why, ("Try again; another image that has python3: --probe-image IMAGE",))


def _name(token: str) -> str:
    return f"moorage-doctor-{token}"


def _labels(token: str, role: str) -> Object:
    return {LABEL: token, ROLE: role}


def _peer(token: str, role: str) -> Object:
    return {"podSelector": {"matchLabels": _labels(token, role)}}


def _ports(*ports: int) -> list[Object]:
    return [{"protocol": "TCP", "port": port} for port in ports]


def _owned(token: str, namespace: str, job: str, part_name: str) -> Object:
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": _name(token), "uid": job}
    name = f"{_name(token)}-{part_name}"
    return {"name": name, "namespace": namespace, "labels": {LABEL: token}, "ownerReferences": [owner]}


def _spec(image: str, program: str, *arguments: str) -> Object:
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 0,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "runAsGroup": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": "probe",
                "image": image,
                "command": ["python3", "-c", program, *arguments],
                "resources": {
                    "requests": {"cpu": "10m", "memory": "32Mi"},
                    "limits": {"cpu": "500m", "memory": "64Mi"},
                },
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
            }
        ],
    }


def text(value: Object) -> str:
    """As kubectl takes it."""
    return json.dumps(value)
