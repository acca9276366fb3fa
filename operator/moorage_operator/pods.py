"""What a pod's object says of the sandbox in it. Layer: pure.

state    | when
---------|-----------------------------------------------------------
gone     | there is no object: every process of it is dead
ended    | phase Failed or Succeeded, or a container of it ended: nothing of it serves any more
leaving  | its deletion was asked for
ready    | condition Ready, with an address
failing  | it will not get ready by itself: an image, a configuration, an init container
starting | else
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

State = Literal["gone", "ended", "leaving", "ready", "failing", "starting"]

# Reasons for which a container waits that a person has to mend. `ImagePullBackOff` follows a first failure.
STUCK = frozenset(
    "ErrImagePull ImagePullBackOff InvalidImageName ErrImageNeverPull ImageInspectError CreateContainerConfigError"
    " CreateContainerError RunContainerError".split()
)


@dataclass(frozen=True)
class PodSeen:
    """`reason`: why it ended, fails or waits, for people. `faulty`: the container whose last lines explain it, or "".

    `lapsed`: it was ready before and runs on, as when its node was not heard of for a while, or a probe came late.
    """

    state: State
    address: str = ""
    reason: str = ""
    faulty: str = ""
    lapsed: bool = False


def seen(body: Mapping[str, Any] | None) -> PodSeen:
    """The state of a pod's object (None: it is not there)."""
    if body is None:
        return PodSeen("gone", reason="its pod was deleted")
    status = body.get("status") or {}
    own = list(status.get("containerStatuses") or ())
    everything = [*(status.get("initContainerStatuses") or ()), *own]
    if status.get("phase") in ("Failed", "Succeeded"):
        return PodSeen("ended", reason=_end(status, everything), faulty=_faulty(everything))
    ended = [one for one in own if _part(one, "terminated")]
    if ended:
        return PodSeen("ended", reason=_end(status, everything), faulty=_faulty(everything))
    if (body.get("metadata") or {}).get("deletionTimestamp"):
        return PodSeen("leaving", reason="its pod is being deleted")
    if _holds(status, "Ready") and status.get("podIP"):
        return PodSeen("ready", address=str(status["podIP"]))
    for one in everything:
        waiting = _part(one, "waiting")
        if waiting and waiting.get("reason") in STUCK:
            detail = waiting.get("message") or waiting["reason"]
            return PodSeen("failing", reason=f"container {one['name']}: {waiting['reason']}: {detail}")
    if _lapsed(status, own):
        return PodSeen("starting", address=str(status["podIP"]), reason="it is not ready any more", lapsed=True)
    return PodSeen("starting", reason=_waits(status))


def said(line: str) -> str:
    """What a line of a container's log says: a shim prints what its agent printed, as JSON (`moorage_sandbox.output`). An agent may print
    whatever it likes."""
    try:
        found = json.loads(line)["line"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return line
    return found if isinstance(found, str) else line


def _part(one: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    found: Mapping[str, Any] | None = (one.get("state") or {}).get(name)
    return found


def _holds(status: Mapping[str, Any], kind: str) -> bool:
    return any(c.get("type") == kind and c.get("status") == "True" for c in status.get("conditions") or ())


def _lapsed(status: Mapping[str, Any], containers: list[Mapping[str, Any]]) -> bool:
    """Not ready since a later moment than its first containers' end: one that never was is not ready since it was made."""
    conditions = {one.get("type"): one for one in status.get("conditions") or ()}
    ready, begun = conditions.get("Ready", {}), conditions.get("Initialized", {})
    if ready.get("status") == "True" or begun.get("status") != "True" or not status.get("podIP"):
        return False
    runs = bool(containers) and all(_part(one, "running") is not None for one in containers)
    # Times of one format, in UTC, to the second: their text is their order.
    return runs and str(ready.get("lastTransitionTime") or "") > str(begun.get("lastTransitionTime") or "")


def _end(status: Mapping[str, Any], containers: list[Mapping[str, Any]]) -> str:
    if status.get("reason"):  # Evicted, NodeLost, …
        return f"{status['reason']}: {status.get('message') or 'the pod was ended by the cluster'}"
    name = _faulty(containers)
    for one in containers:
        end = _part(one, "terminated")
        if end is not None and one["name"] == name:
            why = end.get("reason") or "ended"
            return f"container {name}: {why}, exit code {end.get('exitCode')}"
    return "the pod ended"


def _faulty(containers: list[Mapping[str, Any]]) -> str:
    """The agent's end explains more than the shim's, which follows it; a clean end explains nothing."""
    ended = [one["name"] for one in containers if (_part(one, "terminated") or {}).get("exitCode")]
    return "agent" if "agent" in ended else str(ended[0]) if ended else ""


def _waits(status: Mapping[str, Any]) -> str:
    for one in status.get("conditions") or ():
        if one.get("type") == "PodScheduled" and one.get("status") == "False":
            return f"no node takes it: {one.get('message') or one.get('reason') or 'unschedulable'}"
    waiting = [
        f"{one['name']}: {part.get('reason')}"
        for one in [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
        if (part := _part(one, "waiting"))
    ]
    return "it is still starting" + (f" ({', '.join(waiting)})" if waiting else "")
