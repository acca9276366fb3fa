"""Labels and annotations by which the operator knows its own objects. Layer: floor of the operator; names and pure reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from moorage_api import names
from moorage_api.ledger.records import SessionIdentity

MANAGER = "moorage-operator"  # field manager, and value of `OURS`
OURS = "app.kubernetes.io/managed-by"
AGENT = "moorage.dev/agent"
REVISION = "moorage.dev/revision"
SANDBOX = "moorage.dev/sandbox"
TENANT = "moorage.dev/tenant"  # of a namespace; its own name where it has none

# On a pod.
SHIM = "moorage.dev/shim"  # the shim's configuration, which the pod gets as a file; nothing secret is in it
BUILT = "moorage.dev/built"  # what its code was made of, for one of a source; as `moorage_api.built` says it
SPEC = "moorage.dev/spec"  # what it was made from, so that an operator that starts knows old revisions

# On a Job, and on the pods of one.
BUILD = "moorage.dev/build"  # label of its pods: the agent's name
CONFIG = "moorage.dev/config"  # what the build is told, which its pod gets as a file; nothing secret is in it
GIT = "moorage.dev/git"  # what a ref was resolved for
LOST = "moorage.dev/lost"  # how often it was made again because nobody had heard its pod
MADE = "moorage.dev/made"  # what it was made from, so that one that runs and should run otherwise is known
OUTCOME = "moorage.dev/outcome"  # how it ended, once that is known; as `moorage_api.built` says it

# On the pods of programs of toolboxes, which are no sandboxes.
PART = "moorage.dev/part"
PROGRAM = "program"  # value of `PART`
TOOLBOX = "moorage.dev/toolbox"
UPSTREAM = "moorage.dev/upstream"

# On a claim.
SESSION = "moorage.dev/session"  # TENANT:PARTITION
EPOCH = "moorage.dev/epoch"
IDENTITY = "moorage.dev/identity"  # whose session it is, JSON
WORKSPACE = "moorage.dev/workspace"  # label
LOST_FILES = "lost"  # value of `WORKSPACE`: its session has left it for good, and nobody gets it again
LEDGER = "moorage.dev/ledger"  # the ledger that its operator knew when it was made


def labels(agent: str, **more: str) -> dict[str, str]:
    """The labels of an object of an agent's."""
    return {OURS: MANAGER, AGENT: agent, **more}


def is_ours(body: Mapping[str, Any]) -> bool:
    """Whether the operator made an object."""
    return text(body, "labels", OURS) == MANAGER


def is_sandbox(body: Mapping[str, Any]) -> bool:
    """Whether an object of pods is one that the operator made for a sandbox."""
    return is_ours(body) and bool(text(body, "labels", SANDBOX) or text(body, "annotations", SHIM))


def edited(pod: Mapping[str, Any], agent: str, sandbox: str) -> str:
    """Why the pod of an agent's sandbox cannot go on, when labels that it was made with were edited; else ""."""
    for name, wanted in labels(agent, **{SANDBOX: sandbox}).items():
        found = text(pod, "labels", name)
        if found != wanted:
            said = f"is {found!r} now" if found else "was taken off"
            return f"its pod's label {name} {said}: no network policy holds for certain; another pod takes its place"
    return ""


def text(body: Mapping[str, Any], part: str, name: str) -> str:
    """One label (`labels`) or annotation (`annotations`); "" when it is not there."""
    return str(((body.get("metadata") or {}).get(part) or {}).get(name, ""))


def bound(claim: Mapping[str, Any], tenant: str) -> tuple[str, int] | None:
    """(session key, epoch) noted on a claim of a tenant's, or None.

    Whoever may edit claims of a namespace may write a note: one that is not of a session of this tenant and this claim's agent is none.
    """
    key, epoch = text(claim, "annotations", SESSION), text(claim, "annotations", EPOCH)
    whose = identity(claim) if key and epoch.isdigit() and not left(claim) else None
    if whose is None or (whose.tenant, whose.agent) != (tenant, text(claim, "labels", AGENT)):
        return None
    partition = names.partition(tenant, whose.agent, whose.user, whose.session)
    return (key, int(epoch)) if key == names.session_key(tenant, partition) and whose.partition == partition else None


def left(claim: Mapping[str, Any]) -> bool:
    """Whether its session has left a claim for good."""
    return text(claim, "labels", WORKSPACE) == LOST_FILES


def holds_for(claim: Mapping[str, Any], tenant: str, agent: str) -> bool:
    """Whether a claim of a tenant's is an agent's: its labels say so, or, where one was taken off by hand, the note of its session.

    A claim that counted as gone would cost the session its files.
    """
    if is_ours(claim) and text(claim, "labels", AGENT):
        return text(claim, "labels", AGENT) == agent
    whose = identity(claim)
    return whose is not None and (whose.tenant, whose.agent) == (tenant, agent)


def identity(claim: Mapping[str, Any]) -> SessionIdentity | None:
    """Whose session the note on a claim says it holds, or None. Believe it only where `bound` does."""
    try:
        found = json.loads(text(claim, "annotations", IDENTITY) or "null")
        return SessionIdentity(**{name: str(part) for name, part in found.items()}) if found else None
    except (ValueError, TypeError, AttributeError):
        return None


def noted(key: str, epoch: int, whose: SessionIdentity) -> dict[str, str]:
    """The annotations that `bound` and `identity` read."""
    return {SESSION: key, EPOCH: str(epoch), IDENTITY: json.dumps(whose.__dict__, sort_keys=True)}
