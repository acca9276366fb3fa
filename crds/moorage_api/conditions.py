"""Conditions of a HostedAgent: their types, their reasons, and the only functions that change them.

Layer: the floor; stdlib only, pure (`now` is an argument). Providers mark; the catalog, `moorage agents` and
`kubectl` show. A condition's `lastTransitionTime` moves only when its status does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

Status = Literal["True", "False", "Unknown"]

READY = "Ready"
SOURCE_RESOLVED = "SourceResolved"
POOL_READY = "PoolReady"
PUBLISHED = "Published"

ALL = (READY, SOURCE_RESOLVED, POOL_READY, PUBLISHED)

# Reasons: one word a cause, for machines; the message is for people.
RESOLVED = "Resolved"
RESOLVING = "Resolving"
SOURCE_MISSING = "SourceMissing"
SOURCE_REFUSED = "SourceRefused"
ENVIRONMENT_FAILED = "EnvironmentFailed"
IMAGE_UNSUPPORTED = "ImageNotSupportedHere"
FILLED = "Filled"
FILLING = "Filling"
ON_DEMAND = "OnDemand"
AGENT_BROKEN = "AgentBroken"
BACKING_OFF = "BackingOff"
IN_CATALOG = "InCatalog"
NOT_PUBLISHED = "NotPublished"
SERVING = "Serving"
NOT_SERVING = "NotServing"

MESSAGE_LIMIT = 4096


@dataclass(frozen=True)
class Condition:
    """One condition as shown. `transition` is epoch seconds of the last change of `status`."""

    type: str
    status: Status
    reason: str
    message: str
    generation: int
    transition: float

    def to_dict(self) -> dict[str, Any]:
        """The wire form, with Kubernetes' field names."""
        data: dict[str, Any] = dict(self.__dict__)
        data["observedGeneration"] = data.pop("generation")
        data["lastTransitionTime"] = data.pop("transition")
        return data


@dataclass(frozen=True)
class Conditions:
    """The conditions of one agent at one generation of its spec. Immutable: every mark gives a new one."""

    generation: int
    held: tuple[Condition, ...] = ()

    def get(self, kind: str) -> Condition | None:
        """The condition of that type, or None before it was first marked."""
        return next((c for c in self.held if c.type == kind), None)

    def is_true(self, kind: str) -> bool:
        """Whether that condition is held and True."""
        found = self.get(kind)
        return found is not None and found.status == "True"

    def to_list(self) -> tuple[dict[str, Any], ...]:
        """All conditions in wire form, in the fixed order of `ALL`."""
        return tuple(c.to_dict() for c in sorted(self.held, key=lambda c: ALL.index(c.type)))

    @property
    def message(self) -> str | None:
        """Why the agent is not ready: the first message of a condition that is not True, or None when all is well."""
        for kind in (SOURCE_RESOLVED, POOL_READY, PUBLISHED):
            found = self.get(kind)
            if found is not None and found.status != "True":
                return found.message
        return None


def begin(generation: int) -> Conditions:
    """The conditions of a spec nobody has looked at yet."""
    return Conditions(generation)


def mark_true(seen: Conditions, kind: str, reason: str, message: str, *, now: float) -> Conditions:
    """`kind` holds. As every mark: `seen` itself where it says so already."""
    return _mark(seen, kind, "True", reason, message, now)


def mark_false(seen: Conditions, kind: str, reason: str, message: str, *, now: float) -> Conditions:
    """`kind` does not hold; the message says what a person can do."""
    return _mark(seen, kind, "False", reason, message, now)


def mark_unknown(seen: Conditions, kind: str, reason: str, message: str, *, now: float) -> Conditions:
    """Not known yet: work is under way."""
    return _mark(seen, kind, "Unknown", reason, message, now)


def propagate_ready(seen: Conditions, *, now: float) -> Conditions:
    """`Ready` from the other three: True when all are; False when one is; else Unknown."""
    parts = [seen.get(kind) for kind in (SOURCE_RESOLVED, POOL_READY, PUBLISHED)]
    if all(part is not None and part.status == "True" for part in parts):
        return mark_true(seen, READY, SERVING, "Requests are served.", now=now)
    wrong = next((part for part in parts if part is not None and part.status == "False"), None)
    if wrong is not None:
        return mark_false(seen, READY, wrong.reason, wrong.message, now=now)
    waits = next((part for part in parts if part is not None and part.status == "Unknown"), None)
    message = waits.message if waits is not None else "Work on this agent has not begun."
    return mark_unknown(seen, READY, NOT_SERVING, message, now=now)


def _mark(seen: Conditions, kind: str, status: Status, reason: str, message: str, now: float) -> Conditions:
    old, message = seen.get(kind), message[:MESSAGE_LIMIT]
    if old is not None and (old.status, old.reason, old.message, old.generation) == (
        status,
        reason,
        message,
        seen.generation,
    ):
        return seen
    moved = now if old is None or old.status != status else old.transition
    fresh = Condition(kind, status, reason, message, seen.generation, moved)
    return replace(seen, held=(*(c for c in seen.held if c.type != kind), fresh))
