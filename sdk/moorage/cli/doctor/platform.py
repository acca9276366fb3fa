"""The platform's parts as the chart put them up: available, and of one version. Layer: CLI; pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moorage.cli.doctor.asked import Answer, part
from moorage.cli.doctor.findings import Finding, unseen

NAME = "app.kubernetes.io/name"
PART = "app.kubernetes.io/component"
VERSION = "app.kubernetes.io/version"
CHART = "helm.sh/chart"
NEEDED = ("operator", "gateway")


@dataclass(frozen=True)
class Told:
    """What the operator was told; only these of its variables are looked at."""

    namespaces: tuple[str, ...] = ()
    storage_class: str | None = None
    sandbox_image: str | None = None


def question(namespace: str) -> tuple[str, ...]:
    """What is asked."""
    return ("get", "deployments,statefulsets", f"--namespace={namespace}", "-l", f"{NAME}=moorage", "-o", "json")


def told(answer: Answer) -> Told:
    """What the operator of the answer to `question` serves. Nothing when there is none."""
    found: dict[str, str] = {}
    for one in _of(answer.items() or [], "operator"):
        for container in part(one, "spec", "template", "spec", "containers") or ():
            for variable in part(container, "env") or ():
                name, value = part(variable, "name"), part(variable, "value")
                if name in ("MOORAGE_NAMESPACES", "MOORAGE_STORAGE_CLASS", "MOORAGE_SANDBOX_IMAGE") and value:
                    found.setdefault(str(name), str(value))
    served = (name.strip() for name in found.get("MOORAGE_NAMESPACES", "").split(","))
    return Told(
        tuple(name for name in served if name), found.get("MOORAGE_STORAGE_CLASS"), found.get("MOORAGE_SANDBOX_IMAGE")
    )


def gateway_service(answer: Answer) -> str:
    """The name of the gateways' Service, which is their Deployment's."""
    return next((_name(one) for one in _of(answer.items() or [], "gateway")), "moorage-gateway")


def judge(namespace: str, answer: Answer, version: str) -> list[Finding]:
    """On the answer to `question`. `version`: of this command line."""
    items = answer.items()
    if items is None:
        return [unseen("platform", f"list deployments and statefulsets in namespace {namespace}", answer)]
    found: list[Finding] = []
    for component in NEEDED:
        held = _of(items, component)
        found += [_available(component, one, namespace) for one in held] or [_missing(component, namespace)]
    found += [_available("valkey", one, namespace) for one in _of(items, "valkey")]
    versions = {_name(one): str(part(one, "metadata", "labels", VERSION)) for one in items}
    return [*found, _versions(versions, namespace, version)] if versions else found


def _of(items: list[Mapping[str, Any]], component: str) -> list[Mapping[str, Any]]:
    return [one for one in items if part(one, "metadata", "labels", PART) == component]


def _missing(component: str, namespace: str) -> Finding:
    return Finding(
        component,
        "wrong",
        f"There is none in namespace {namespace}.",
        (
            f"helm install moorage charts/moorage --namespace {namespace} --create-namespace -f values.yaml --wait",
            "Or, if the platform is in another namespace: --namespace NAMESPACE",
        ),
    )


def _available(component: str, one: Mapping[str, Any], namespace: str) -> Finding:
    kind, name = str(part(one, "kind") or "Deployment").lower(), _name(one)
    wanted = _number(part(one, "spec", "replicas"), 1)
    available = _number(part(one, "status", "readyReplicas" if kind == "statefulset" else "availableReplicas"), 0)
    seen = _number(part(one, "status", "observedGeneration"), 0) >= _number(part(one, "metadata", "generation"), 0)
    shown = f"{_image(one)}, chart {part(one, 'metadata', 'labels', CHART) or 'unknown'}"
    if wanted == 0:
        return Finding(
            component, "wrong", f"{name} is scaled to 0 ({shown}).",
            (f"kubectl scale {kind} {name} --namespace {namespace} --replicas=1",),
        )  # fmt: skip
    if available >= wanted and seen:
        return Finding(component, "ok", f"{available} of {wanted} available ({shown})")
    labels = f"{NAME}=moorage,{PART}={component}"
    return Finding(
        component,
        "wrong",
        f"{available} of {wanted} of {name} available ({shown}){_reason(one)}",
        (
            f"kubectl describe pods --namespace {namespace} -l {labels}",
            f"kubectl logs --namespace {namespace} -l {labels} --tail=30",
        ),
    )


def _versions(versions: Mapping[str, str], namespace: str, ours: str) -> Finding:
    upgrade = f"helm upgrade moorage charts/moorage --namespace {namespace} -f values.yaml --wait"
    held = set(versions.values())
    if len(held) > 1:
        each = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
        return Finding("versions", "wrong", f"The parts are of different versions: {each}.", (upgrade,))
    (theirs,) = held
    if theirs != ours:
        says = f"The platform is {theirs}, this command line {ours}."
        return Finding("versions", "wrong", says, (f"pip install 'moorage[cli]=={theirs}'", f"Or: {upgrade}"))
    return Finding("versions", "ok", f"{theirs}, as this command line")


def _reason(one: Mapping[str, Any]) -> str:
    """Why, in the cluster's words."""
    for condition in part(one, "status", "conditions") or ():
        if part(condition, "type") in ("Available", "Progressing") and part(condition, "status") == "False":
            return f": {part(condition, 'message') or part(condition, 'reason')}"
    return "."


def _image(one: Mapping[str, Any]) -> str:
    containers = part(one, "spec", "template", "spec", "containers") or [None]
    return str(part(containers[0], "image") or "no image")


def _name(one: Mapping[str, Any]) -> str:
    return str(part(one, "metadata", "name"))


def _number(value: Any, otherwise: int) -> int:
    return value if isinstance(value, int) else otherwise
