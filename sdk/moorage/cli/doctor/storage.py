"""The storage class that sessions' workspaces get. Layer: CLI; pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from moorage.cli.doctor.asked import Answer, part
from moorage.cli.doctor.findings import Finding, unseen

CHECK = "storage class"
QUESTION = ("get", "storageclasses", "-o", "json")
DEFAULT = ("storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class")
BY_HAND = "kubernetes.io/no-provisioner"
MAKE_DEFAULT = (
    "kubectl patch storageclass NAME -p "
    '\'{"metadata":{"annotations":{"storageclass.kubernetes.io/is-default-class":"true"}}}\''
)
NAME_ONE = (
    "Or name one: operator.storageClassName in the chart's values, spec.workspace.storageClassName in a manifest."
)
MAKE_ONE = "Install a provisioner with a StorageClass: your cloud's CSI driver, or local-path-provisioner on one node."


def judge(answer: Answer, named: str | None) -> Finding:
    """On the answer to QUESTION. `named`: the class that is used, None for the cluster's default."""
    held = answer.items()
    if held is None:
        return unseen(CHECK, "list storageclasses", answer)
    names = sorted(_name(one) for one in held)
    if named is not None:
        for one in held:
            if _name(one) == named:
                return _judged(one, f"{named} (named)", names)
        return Finding(CHECK, "wrong", f"There is no storage class {named}.", (_has(names),))
    defaults = [one for one in held if _is_default(one)]
    if not defaults:
        if not names:
            return Finding(CHECK, "wrong", "The cluster has no storage class.", (MAKE_ONE,))
        return Finding(CHECK, "wrong", "No storage class is the default.", (_has(names), MAKE_DEFAULT, NAME_ONE))
    # Of several, Kubernetes takes the newest.
    newest = max(defaults, key=lambda one: (str(part(one, "metadata", "creationTimestamp")), _name(one)))
    return _judged(newest, f"{_name(newest)} (default)", names)


def _judged(one: Mapping[str, Any], called: str, names: list[str]) -> Finding:
    provisioner = str(part(one, "provisioner") or "")
    if provisioner in ("", BY_HAND):
        says = f"{called} makes no volumes by itself ({provisioner or 'no provisioner'}), and every session needs one."
        return Finding(CHECK, "wrong", says, (_has(names), MAKE_DEFAULT, NAME_ONE, MAKE_ONE))
    words = [f"{called} by {provisioner}", str(part(one, "volumeBindingMode") or "Immediate")]
    if words[1] == "Immediate":
        words.append("a volume may be made in a zone where its pod finds no room")
    if part(one, "reclaimPolicy") == "Retain":
        words.append("reclaimPolicy Retain: volumes of deleted sessions stay until a person deletes them")
    return Finding(CHECK, "ok", "; ".join(words))


def _is_default(one: Mapping[str, Any]) -> bool:
    return any(part(one, "metadata", "annotations", key) == "true" for key in DEFAULT)


def _name(one: Mapping[str, Any]) -> str:
    return str(part(one, "metadata", "name"))


def _has(names: list[str]) -> str:
    return f"The cluster has: {', '.join(names) or 'none'}."
