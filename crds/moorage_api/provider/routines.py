"""Which routines a provider publishes, and what it says of the others. Pure. Layer: the floor, for every provider.

    its agent       published already
    is there                            published
    is not there    no                  it waits, and due times count from when the agent is there
    is not there    yes                 it stays: its runs fail, and people are told

A routine whose alerts may not go where they would is not published, unless it is already. No Secret of its alerts is needed to run: what
cannot be told waits. Unpublished is what was deleted, and nothing else: a routine's state goes with it.
"""

from __future__ import annotations

from collections.abc import Container

from moorage_api import upstream_places
from moorage_api.catalog import RoutineEntry, field


def is_known(entry: RoutineEntry, agents: Container[str]) -> bool:
    """Whether its agent is in the catalog, whose fields are `agents`."""
    return field(entry.tenant, str(entry.spec["agent"])) in agents


def counts(entry: RoutineEntry, agents: Container[str], published: Container[str]) -> bool:
    """Whether it is to be published. `published`: fields of those that are."""
    return is_known(entry, agents) or entry.field in published


def without_agent(agent: str, *, published: bool) -> str:
    """What is said of a routine while its agent is not there."""
    if published:
        return f"spec.agent: there is no agent '{agent}' any more: runs fail until there is one"
    return f"spec.agent: there is no agent '{agent}' yet: due times count from when there is one"


def refusal(place: str, target: str, url: str, allowed: frozenset[str]) -> str:
    """Why a target is not told at this URL, which the field `place` names, and of which nothing is said; "" where it may be."""
    try:
        upstream_places.check(url, allowed)
    except upstream_places.Forbidden as fault:
        return f"{place}: the target {target} is not allowed: {fault.why}"
    return ""


def place_of(number: int, part: str) -> str:
    """The field of a target's `url` or `signing`."""
    return f"spec.alerts[{number}].{part}"
