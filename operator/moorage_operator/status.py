"""The status of a HostedAgent as people and programs read it. Layer: pure.

Written only when it says something else than the object does: a condition keeps its time for as long as its status holds, over restarts
of the operator too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from moorage_api.conditions import Conditions


@dataclass(frozen=True)
class Counts:
    """Sandboxes and sessions of one agent by state."""

    warm: int = 0
    active: int = 0
    idle: int = 0
    hibernated: int = 0


@dataclass(frozen=True)
class Report:
    """What the operator knows of one agent now."""

    generation: int
    conditions: Conditions
    revision: str = ""
    source: str = ""
    url: str = ""
    counts: Counts = Counts()


def status(report: Report, shown: Mapping[str, Any]) -> dict[str, Any] | None:
    """The status to write over `shown`, or None when it says all of it."""
    wanted: dict[str, Any] = {
        "observedGeneration": report.generation,
        "conditions": shown_conditions(report.conditions, shown.get("conditions") or ()),
        "sessions": {name: getattr(report.counts, name) for name in ("warm", "active", "idle", "hibernated")},
    }
    for name in ("revision", "source", "url"):
        text = getattr(report, name)
        if text or shown.get(name):
            wanted[name] = text
    return wanted if any(shown.get(name) != value for name, value in wanted.items()) else None


def shown_conditions(held: Conditions, shown: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Conditions in the wire form; `shown` are the object's, whose times stay while their status does."""
    before = {one.get("type"): one for one in shown}
    found = []
    for one in held.to_list():
        old = before.get(one["type"])
        at = datetime.fromtimestamp(one["lastTransitionTime"], UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        if old is not None and old.get("status") == one["status"]:
            at = str(old.get("lastTransitionTime", at))
        found.append({**one, "lastTransitionTime": at})
    return found
