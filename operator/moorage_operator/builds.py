"""Builds of sources as Jobs: observe → decide → apply, at every look. Layer: the operator's middle.

job                          | what is done                                   | standing
-----------------------------|------------------------------------------------|---------------------------
not there                    | account and policy stand, then it is made      | Waiting
its outcome is noted         | nothing                                        | that outcome
runs, as it would be made    | its pod is looked at, now and then             | Waiting, with what its pod waits for
runs, made otherwise         | it is removed, to be made as it should be      | Waiting
complete, its pod tells      | the outcome is noted on it                     | Built
complete, no pod is left     | it is removed, to be made again, `LOST` times  | Waiting
complete, its pod babbles    | that is noted on it                            | Failed
failed                       | why is noted on it                             | Failed

A Job stays for as long as its source is wanted, and a built one until a later one of its agent is built: it is the memory of what the
source was resolved to. Delete it, and the source is resolved and built anew.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from moorage_api import built, conditions
from moorage_api.built import Built, Failed, Outcome
from moorage_operator import build_objects, marks, objects, pods
from moorage_operator.build_objects import Ask
from moorage_operator.kube import ACCOUNTS, JOBS, PODS, POLICIES, Kube, KubeError
from moorage_operator.observed import Name, Observed, plain
from moorage_operator.settings import Settings

log = logging.getLogger(__name__)

JOB_OF = "batch.kubernetes.io/job-name"  # the cluster's own label of a Job's pods
LOOK_SECONDS = 3.0  # between two looks at the pod of a build that runs
LOST = 2  # times that a build is made again because its pod was gone before it was heard
_NUMBER = re.compile(r"([0-9]+|0x[0-9a-f]*)\Z")  # the last label of a host that is an address, in whatever notation


@dataclass(frozen=True)
class Waiting:
    """Not known yet; `message` says what is being waited for."""

    message: str


Standing: TypeAlias = Outcome | Waiting


class Builds:
    """Has sources built. `now`: seconds on a clock that only goes forward."""

    def __init__(self, kube: Kube, observed: Observed, settings: Settings, *, now: Callable[[], float]) -> None:
        self._kube = kube
        self._observed = observed
        self._settings = settings
        self._now = now
        self._looked: dict[Name, tuple[float, str]] = {}  # when a build's pod was seen last, and what it waited for
        self._lost: dict[Name, int] = {}  # builds to be made again → how often it was, while no Job is there to say it

    async def standing(self, ask: Ask) -> Standing:
        """How far a source is; works on it. Raises nothing of the cluster's: what it refuses is being waited for."""
        refused = _refused(ask, self._settings)
        if refused is not None:
            return Failed(conditions.SOURCE_REFUSED, refused)
        try:
            await self._guard(ask)
            name = (ask.namespace, build_objects.job_name(ask, self._settings))
            job = self._observed.jobs.get(name)
            if job is None:
                return await self._begin(ask)
            noted = _noted(job)
            standing = noted if noted is not None else await self._look(ask, name, job)
            await self.sweep(ask.namespace, ask.agent, kept=name[1], spared=not isinstance(standing, Built))
            return standing
        except KubeError as fault:
            return Waiting(f"The cluster refuses what a build needs: {fault.message}")

    async def sweep(self, namespace: str, agent: str, *, kept: str = "", spared: bool = False) -> None:
        """Removes an agent's builds but the one named; `spared`: and those that are built. Raises KubeError."""
        for job in self._observed.jobs:
            meta = job["metadata"]
            if (meta["namespace"], marks.text(job, "labels", marks.AGENT)) != (namespace, agent):
                continue
            if spared and isinstance(_noted(job), Built):
                continue
            if meta["name"] != kept and not meta.get("deletionTimestamp"):
                await self._remove(job)

    async def _guard(self, ask: Ask) -> None:
        """Account and policy stand before the first pod of a build; nothing is written where they do."""
        wanted = (
            (ACCOUNTS, objects.account(ask.agent, ask.namespace, ask.owner)),
            (POLICIES, build_objects.policy(ask, self._settings)),
        )
        for kind, body in wanted:
            shelf = self._observed.shelves[kind]
            held = shelf.get((ask.namespace, body["metadata"]["name"]))
            if held is None or not objects.stands(held, body):
                shelf.put(plain(await self._kube.apply(kind, body, manager=marks.MANAGER)))

    async def _begin(self, ask: Ask) -> Standing:
        name = (ask.namespace, build_objects.job_name(ask, self._settings))
        body = build_objects.job(ask, self._pinned(ask), self._settings, lost=self._lost.get(name, 0))
        try:
            made = await self._kube.create(JOBS, body)
        except KubeError as fault:
            if fault.status != 409:
                raise
            found = await self._kube.get(JOBS, *name)
            if found is None:
                return Waiting("The former build of this source is being removed.")
            made = found
        self._observed.jobs.put(plain(made))
        self._lost.pop(name, None)
        log.info("%s/%s: build %s", ask.namespace, ask.agent, name[1])
        return Waiting("The source is being built.")

    def _pinned(self, ask: Ask) -> str:
        """The commit that an earlier build of this agent resolved the same ref to: a new image does not move a branch."""
        wanted = build_objects.git_name(ask)
        for job in self._observed.jobs if wanted else ():
            whose = (job["metadata"]["namespace"], marks.text(job, "labels", marks.AGENT))
            outcome = _noted(job)
            if whose == (ask.namespace, ask.agent) and marks.text(job, "annotations", marks.GIT) == wanted:
                if isinstance(outcome, Built):
                    return outcome.commit
        return ""

    async def _look(self, ask: Ask, name: Name, job: Mapping[str, Any]) -> Standing:
        end = _end(job)
        if end is None and marks.text(job, "annotations", marks.MADE) != build_objects.made(ask, self._settings):
            await self._remove(job)
            return Waiting("The manifest says otherwise how it is built; the build is made again.")
        at, waits = self._looked.get(name, (0.0, ""))
        if end is None and self._now() - at < LOOK_SECONDS:
            return Waiting(waits or "The source is being built.")
        found = [
            body async for body in self._kube.each(PODS, name[0], labels={JOB_OF: name[1]})
        ]  # a build's pods are on no shelf: those hold sandboxes
        found.sort(key=lambda body: str(body["metadata"]["creationTimestamp"]), reverse=True)
        if end is None:
            seen = pods.seen(found[0]) if found else None
            stuck = seen is not None and seen.state in ("starting", "failing")
            waits = f"The build waits: {seen.reason}" if seen is not None and stuck else ""
            self._looked[name] = (self._now(), waits)
            return Waiting(waits or "The source is being built.")
        lost = marks.text(job, "annotations", marks.LOST)
        times = int(lost) if lost.isdecimal() else 0
        if not found and end["type"] == "Complete" and times < LOST:
            await self._remove(job)
            self._lost[name] = times + 1
            return Waiting("The build's pod is gone before it could say what it made; it is made again.")
        outcome = _outcome(end, found, waits)
        if isinstance(outcome, Failed):
            again = f"{outcome.message}\nTo try again: kubectl delete job {name[1]} -n {name[0]}"
            outcome = Failed(outcome.reason, again)
        note = {"metadata": {"annotations": {marks.OUTCOME: built.told(outcome)}}}
        self._observed.jobs.put(plain(await self._kube.merge(JOBS, *name, note)))
        self._looked.pop(name, None)
        return outcome

    async def _remove(self, job: Mapping[str, Any]) -> None:
        meta = job["metadata"]
        await self._kube.delete(JOBS, meta["namespace"], meta["name"], uid=meta["uid"])
        self._observed.jobs.drop(job)
        self._looked.pop((meta["namespace"], meta["name"]), None)


def _refused(ask: Ask, settings: Settings) -> str | None:
    """Why a source is not built here, in a sentence that says what to do."""
    source = ask.source
    if source.path is not None:
        return "spec.source.path: a folder beside the manifest is not in the cluster; `moorage up` uploads it"
    if source.git is not None and not source.git.url.startswith(("https://", "http://")):
        return "spec.source.git.url: builds hold no keys, so that the repository must be readable at an https:// URL"
    if source.git is not None and _NUMBER.match((urlsplit(source.git.url).hostname or "").rpartition(".")[2]):
        return "spec.source.git.url: name the host; the egress proxy reaches nothing by its number"
    if settings.egress_url is None:
        return (
            "spec.source: this operator has no egress proxy to build through; set MOORAGE_EGRESS_URL, or use spec.image"
        )
    return None


def _noted(job: Mapping[str, Any]) -> Outcome | None:
    """The outcome that was noted on a Job."""
    return built.heard(marks.text(job, "annotations", marks.OUTCOME))


def _end(job: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The condition with which a Job ended; None while it runs."""
    held = (job.get("status") or {}).get("conditions") or ()
    return next((one for one in held if one["type"] in ("Complete", "Failed") and one["status"] == "True"), None)


def _outcome(end: Mapping[str, Any], found: list[dict[str, Any]], waits: str) -> Outcome:
    """What a Job that ended has made."""
    said = [outcome for body in found if (outcome := built.heard(_last_words(body))) is not None]
    if end["type"] == "Complete":
        why = "its pod says nothing that a build says" if found else "its pod is gone each time before it is heard"
        silent = Failed(conditions.ENVIRONMENT_FAILED, f"the build ended well, but {why}")
        return next((outcome for outcome in said if isinstance(outcome, Built)), silent)
    fault = next((outcome for outcome in said if isinstance(outcome, Failed)), None)
    if fault is not None:
        return fault
    seen = waits or (pods.seen(found[0]).reason if found else "")
    why = f"the build ended without a word: {end.get('message') or end.get('reason')}" + (f" ({seen})" if seen else "")
    return Failed(conditions.ENVIRONMENT_FAILED, why)


def _last_words(body: Mapping[str, Any]) -> str:
    for one in (body.get("status") or {}).get("containerStatuses") or ():
        if one["name"] == build_objects.CONTAINER:
            return str(((one.get("state") or {}).get("terminated") or {}).get("message") or "")
    return ""
