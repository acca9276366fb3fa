"""What the operator's objects are put together from. Layer: pure, under `objects` and `build_objects`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from moorage_api.kinds.agent import HostedAgentSpec
from moorage_api.kinds.quantities import millicores, octets
from moorage_operator.kube import Object
from moorage_operator.settings import Settings

USER = 10001  # of the stock image
AUDIENCE = "moorage"
TOKEN_SECONDS = 3600
DISK = "ephemeral-storage"
OWN_DISK = 128 * 2**20  # of a container, for what it prints: roots are read-only


def meta(name: str, namespace: str, labels: Mapping[str, str], owner: Mapping[str, Any] | None) -> Object:
    """An object's head. `owner`: whose end it ends with."""
    made: Object = {"name": name, "namespace": namespace, "labels": dict(labels)}
    if owner is not None:
        made["ownerReferences"] = [dict(owner)]
    return made


def gateways(settings: Settings) -> Object:
    """The gateways as a policy's peer."""
    if settings.gateway_cidr is not None:
        return {"ipBlock": {"cidr": settings.gateway_cidr}}
    return {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": settings.namespace}},
        "podSelector": {"matchLabels": settings.gateway_pods},
    }


def placement(spec: HostedAgentSpec) -> Object:
    """Where a pod of an agent runs, and with which secrets its images are pulled."""
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


def closed(account: str) -> Object:
    """What every pod of ours has: restricted, without names, without a token that it did not ask for."""
    return {
        "restartPolicy": "Never",
        "serviceAccountName": account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "dnsPolicy": "None",  # no name leaves a sandbox: the gateway resolves
        "dnsConfig": {"nameservers": ["127.0.0.1"]},
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }


def told(annotation: str, file: str) -> Object:
    """The volume `told`: an annotation as a file, and the pod's own token for the gateway beside it."""
    token = {"audience": AUDIENCE, "expirationSeconds": TOKEN_SECONDS, "path": "token"}
    text = {"path": file, "fieldRef": {"fieldPath": f"metadata.annotations['{annotation}']"}}
    sources = [{"downwardAPI": {"items": [text]}}, {"serviceAccountToken": token}]
    return {"name": "told", "projected": {"defaultMode": 0o440, "sources": sources}}


def resources(cpu: str, memory: str, most_cpu: str, most_memory: str) -> Object:
    """Requests and limits. A pod that asks for more than its limit is refused: what may have less asks for less."""
    asked = {"cpu": at_most(cpu, most_cpu, millicores), "memory": at_most(memory, most_memory, octets)}
    return {"requests": asked, "limits": {"cpu": most_cpu, "memory": most_memory}}


def at_most(wanted: str, limit: str, measure: Callable[[str], int]) -> str:
    """The smaller of two quantities, as it was written."""
    return wanted if measure(wanted) <= measure(limit) else limit


def with_room(inner: Object) -> Object:
    """A pod's spec of which every container asks for ephemeral storage: a namespace with a quota of it refuses any other.

    A kubelet evicts a pod whose logs and emptyDirs together outgrow the sum of its containers' limits. So what its emptyDirs may hold is
    in that sum: the last container has what the limits that stand already leave out.
    """
    dirs = [volume["emptyDir"] for volume in inner["volumes"] if "emptyDir" in volume]
    held = sum(octets(one["sizeLimit"]) for one in dirs if one.get("medium") != "Memory")
    held -= sum(octets(given) for one in inner["containers"] if (given := one["resources"]["limits"].get(DISK)))
    for one in [*inner.get("initContainers", ()), *inner["containers"]]:
        most = OWN_DISK + (max(held, 0) if one is inner["containers"][-1] else 0)
        one["resources"]["requests"].setdefault(DISK, "16Mi")
        one["resources"]["limits"].setdefault(DISK, f"{-(-most // 2**20)}Mi")
    return inner


def container(
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
