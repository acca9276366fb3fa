"""The namespaces that agents run in: there, with restricted Pod Security enforced. Layer: CLI; pure."""

from __future__ import annotations

from collections.abc import Sequence

from moorage.cli.doctor.asked import Answer, part
from moorage.cli.doctor.findings import Finding, unseen

ENFORCE = "pod-security.kubernetes.io/enforce"
TENANT = "moorage.dev/tenant"


def question(name: str) -> tuple[str, ...]:
    """What is asked for a namespace."""
    return ("get", "namespace", name, "-o", "json")


def unknown(names: Sequence[str]) -> list[Finding]:
    """When no namespace is known."""
    says = "No operator says which namespaces agents run in."
    return [] if names else [Finding("agents' namespaces", "not tried", says, ("Name them: --agents NAMESPACE",))]


def judge(name: str, answer: Answer) -> Finding:
    """On the answer to `question`."""
    check = f"namespace {name}"
    label = f"kubectl label namespace {name} {ENFORCE}=restricted --overwrite"
    if answer.outcome == "absent":
        return Finding(check, "wrong", "There is none.", (f"kubectl create namespace {name}", label))
    held = answer.object()
    if held is None:
        return unseen(check, f"get namespace {name}", answer)
    level = part(held, "metadata", "labels", ENFORCE)
    if part(held, "status", "phase") == "Terminating":
        return Finding(check, "wrong", "It is being deleted.", (f"kubectl describe namespace {name}",))
    if level != "restricted":
        says = f"Pod Security enforces {level} there" if level else "Pod Security enforces nothing there"
        return Finding(check, "wrong", f"{says}, and agents' code is not trusted.", (label,))
    tenant = part(held, "metadata", "labels", TENANT) or name
    return Finding(check, "ok", f"restricted Pod Security is enforced; tenant {tenant}")
