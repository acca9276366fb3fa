"""Which sandboxes and volumes were out of reach for too long, by what their own pods say. Layer: no I/O; the clock is passed in.

No right on Nodes is needed. Times are this process's own, from when it first saw it: an API server's clock says nothing of ours, and an
operator that starts waits anew. So does one that stood still, or to which the cluster did not answer: it saw nothing meanwhile.

what a pod says                                                               | out of reach
------------------------------------------------------------------------------|----------------------------------------------------
it was told to end, and is there after its grace                              | the sandbox: its node is silent, or cannot end it
on a volume that is somebody's: no node takes it, and for nothing but volumes | the volume: its node is gone or silent, or it is
  and taints                                                                  |
on one: it has a node, which cannot get it ready to start containers          | the volume cannot be attached or mounted there
a node that is full, cordoned or short of disk or memory is among those that  | no: its volume may be on that one, which will serve
  do not take it                                                              |
a container of it has run                                                     | no: its volume was there
not ready, and not told to end                                                | no: its calls may run on, and nobody misses it
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from moorage_api import tokens
from moorage_api.provider.base import OutOfReach
from moorage_operator import marks
from moorage_operator.observed import Name, Observed, sandbox_of

OUT_OF_REACH = "VolumeOutOfReach"
MOVED = "SessionMoved"
NODES = " nodes are available: "
# Of the scheduler's words, those of volumes, in today's and in older versions (volumebinding, volumezone, volumerestrictions).
VOLUME_WORDS = (
    "persistentvolume's node affinity", "volume node affinity conflict", "non-existent pv", "non-existent persistentvolume",
    "no available volume zone", "readwriteoncepod access mode already in-use", "persistentvolumeclaim",
)  # fmt: skip
# Of nodes that take no such pod, whatever its volume: every one that is gone or silent has a taint, and a pool has nodes beside it.
OTHER_WORDS = ("untolerated taint", "didn't match pod's node affinity")
# Taints, where the scheduler names them, of nodes that live and will take it again: pressure alone lasts five minutes by default.
PASSING = ("disk-pressure", "memory-pressure", "pid-pressure", "node.kubernetes.io/unschedulable")
STOOD_STILL_SECONDS = 10.0  # between two looks, at least: then it was no slow look
BETWEEN_SECONDS = (
    240.0  # two tries are no longer apart (a pause of 60 s, 90 s to end the former): else nobody tries any more
)


def overdue(pod: Mapping[str, Any]) -> float | None:
    """Seconds of grace of a pod that was told to end; None of any other."""
    meta = pod["metadata"]
    return float(meta.get("deletionGracePeriodSeconds") or 0) if meta.get("deletionTimestamp") else None


def silent(pod: Mapping[str, Any]) -> bool:
    """Whether its node is not heard of. A cluster then takes `Ready` away, and only a node itself would take `ContainersReady`."""
    held = _conditions(pod)
    ready, inner = held.get("Ready", {}), held.get("ContainersReady", {})
    return ready.get("status") == "False" and not ready.get("reason") and inner.get("status") == "True"


def kept_away(pod: Mapping[str, Any]) -> str | None:
    """Why a pod cannot get to its volume; "" when it got there, or waits for something else; None while nothing is known."""
    status = pod.get("status") or {}
    if status.get("phase") in ("Failed", "Succeeded") or _ran(status):
        return ""  # the sandbox of one that ended is taken down, which its conditions tell as one that was never made
    held = _conditions(pod)
    placed = held.get("PodScheduled")
    if placed is None:
        return None
    if placed.get("status") != "True":
        said = str(placed.get("message") or "")
        return f"no node takes it: {said}" if _for_volumes(said) else ""
    begun = held.get("PodReadyToStartContainers")
    if begun is None:
        return None
    return "" if begun.get("status") == "True" else "its volume cannot be attached or mounted where its pod is to run"


def told_out_of_reach(one: OutOfReach) -> str:
    """For people."""
    rest = "its session moves to its newest checkpoint; one that has none waits for the volume"
    return f"volume {one.volume} is out of reach ({one.reason}): {rest}"


@dataclass(frozen=True)
class _Away:
    """Since when no pod gets to a claim, when that was last seen of one, and why."""

    since: float
    last: float
    why: str


class Reach:
    """`within`: seconds after which it is too long; `key`: what pods' own marks are signed with; `now` on a monotonic scale."""

    def __init__(self, observed: Observed, *, key: str, within: float, now: Callable[[], float]) -> None:
        self._observed = observed
        self._key = key
        self._within = within
        self._now = now
        self._ending: dict[Name, float] = {}  # pods that were told to end → since when that is seen
        self._away: dict[Name, _Away] = {}  # claims that no pod gets to
        self._coming: dict[Name, Name] = {}  # pods that are started on somebody's claim
        self._told: set[tuple[str, str]] = set()
        self._looked = now()
        self.out = 0
        """How many are out of reach now."""
        self.left = 0
        """How many volumes were given up since this process began."""

    # What the machine says of its pods

    def coming(self, pod: Name, volume: str) -> None:
        """A pod is started on a volume that holds a session."""
        self._coming[pod] = (pod[0], volume)

    def came(self, pod: Name) -> None:
        """It runs there."""
        claim = self._coming.pop(pod, None)
        if claim is not None:
            self._away.pop(claim, None)

    def missed(self, pod: Name) -> None:
        """It does not, and is ended: the time counts on to the next one."""
        if pod in self._coming:
            self._note(pod)
            del self._coming[pod]

    def unsure(self, pod: Name) -> None:
        """The cluster did not answer, or refused it: that says nothing of a volume, and what was seen of it is old."""
        self.came(pod)

    def left_behind(self, pod: Name) -> bool:
        """Whether the claim that it is started on was given up meanwhile."""
        claim = self._coming.get(pod)
        return claim is not None and self._observed.claims.get(claim) is None

    def abandoned(self, claim: Name) -> None:
        """A claim was given up: nobody need wait for a pod on it."""
        self.left += 1
        self._away.pop(claim, None)
        for pod in [pod for pod, on in self._coming.items() if on == claim]:
            self._observed.nudge(pod)

    def untold(self, volume: str, reason: str) -> bool:
        """Whether that was told of it by this process already; from here it is."""
        known, before = (volume, reason), len(self._told)
        self._told.add(known)
        return len(self._told) > before

    # What is out of reach

    def look(self) -> list[OutOfReach]:
        """All that is, for too long."""
        now = self._now()
        if now - self._looked > max(self._within / 2, STOOD_STILL_SECONDS):
            self._ending.clear()
            self._away = {claim: _Away(now, now, one.why) for claim, one in self._away.items()}
        self._looked = now
        found = [*self._overdue(now), *self._unreached(now)]
        volumes = {one.volume for one in found}
        self._told = {(volume, reason) for volume, reason in self._told if volume in volumes}
        self.out = len(found)
        return found

    def _overdue(self, now: float) -> Iterator[OutOfReach]:
        before, self._ending = self._ending, {}
        for body in self._observed.pods:
            grace = overdue(body)
            if grace is None or not marks.is_sandbox(body):
                continue
            name = (str(body["metadata"]["namespace"]), sandbox_of(body))
            since = self._ending[name] = before.get(name, now)
            who = _whose(body, self._key) if now - since >= grace + self._within else None
            if who is not None and who.sandbox == name[1]:
                why = "its node is not heard of" if silent(body) else "its node does not end its pod"
                yield OutOfReach(who.tenant, who.agent, who.volume, who.sandbox, why)

    def _unreached(self, now: float) -> Iterator[OutOfReach]:
        for pod in self._coming:
            self._note(pod)
        for claim, one in list(self._away.items()):
            body = self._observed.claims.get(claim)
            whose = marks.identity(body) if body is not None else None
            if body is None or whose is None or marks.left(body) or now - one.last > BETWEEN_SECONDS:
                del self._away[claim]
            elif one.last - one.since >= self._within:
                yield OutOfReach(whose.tenant, whose.agent, claim[1], "", one.why)

    def _note(self, pod: Name) -> None:
        body, claim = self._observed.pods.get(pod), self._coming[pod]
        why = kept_away(body) if body is not None else None
        if why:
            now, before = self._now(), self._away.get(claim)
            self._away[claim] = _Away(before.since if before is not None else now, now, why)
        elif why is not None:
            self._away.pop(claim, None)


def _for_volumes(said: str) -> bool:
    """Whether a scheduler's message names volumes, and besides them only what holds of every node that is gone, silent or not its own."""
    head = (said.partition(NODES)[2] or said).partition(". ")[0].lower()
    reasons = [part for part in head.split(", ") if part]
    of_volumes = [part for part in reasons if any(word in part for word in VOLUME_WORDS)]
    passed_over = [
        part
        for part in reasons
        if any(word in part for word in OTHER_WORDS) and not any(word in part for word in PASSING)
    ]
    return bool(of_volumes) and all(part in of_volumes or part in passed_over for part in reasons)


def _ran(status: Mapping[str, Any]) -> bool:
    """Whether any container of a pod has begun: its volumes were mounted before."""
    everything = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    return any((one.get("state") or {}).keys() & {"running", "terminated"} for one in everything)


def _conditions(pod: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {str(one.get("type")): one for one in (pod.get("status") or {}).get("conditions") or ()}


def _whose(pod: Mapping[str, Any], key: str) -> tokens.Identity | None:
    try:
        return tokens.verify(str(json.loads(marks.text(pod, "annotations", marks.SHIM))["token"]), key)
    except (ValueError, KeyError, TypeError):
        return None
