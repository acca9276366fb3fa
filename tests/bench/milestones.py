"""The milestones of a wake (performance.md: never one unqualified number): what was seen of it, put in order. Pure.

    accepted      the gateway took the turn (the turn's record)
    persisted     its first event is here, which is not passed on before it is kept
    pod-made      the pod is at the API server (seen by a watch)
    pod-ready     its condition Ready (seen by a watch: the condition's own time has whole seconds)
    claimed       the session has its sandbox (the session's record): a shim that a gateway heard of comes before the pod's condition
    asked         the attempt began (the turn's record)
    agent-ready   the agent's own first event is here: its process took the turn
    first-byte    its first word is here

All times are of one machine's clock, in milliseconds; those of records have whole ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

NAMES = ("accepted", "persisted", "pod-made", "pod-ready", "claimed", "asked", "agent-ready", "first-byte")
HEARD = {
    "persisted": "response.created",
    "agent-ready": "response.in_progress",
    "first-byte": "response.output_text.delta",
}


@dataclass(frozen=True)
class Change:
    """A pod as a watch told of it at that time."""

    at: float
    pod: str
    ready: bool


def change(line: str, at: float) -> Change | None:
    """A line of the watch: the pod's name and the status of its condition Ready, if it has one. None for a line that is none."""
    words = line.split()
    return Change(at, words[0], words[1:] == ["True"]) if words else None


def reached(
    began: float,
    heard: Mapping[str, float],
    record: Mapping[str, Any],
    claimed: float,
    pod: str,
    changes: Sequence[Change],
) -> dict[str, float]:
    """Milliseconds from `began` to each of NAMES. `heard`: type of an event → when its first came. LookupError where one was not seen."""
    own = [one for one in changes if one.pod == pod]
    made = next((one.at for one in own), None)
    ready = next((one.at for one in own if one.ready), None)
    if made is None or ready is None:
        raise LookupError(f"the watch did not tell of {pod}{'' if made is None else ' as ready'}")
    (attempt,) = record["attempts"]  # ValueError: it was not one wake
    at = {
        "accepted": float(record["accepted_at"]),
        "pod-made": made,
        "pod-ready": ready,
        "claimed": claimed,
        "asked": float(attempt["started_at"]),
        **{name: heard[kind] for name, kind in HEARD.items()},
    }
    return {name: at[name] - began for name in NAMES}
