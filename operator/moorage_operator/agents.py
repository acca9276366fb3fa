"""HostedAgents of the cluster into what the provider runs, and back into their status. Layer: the operator's middle.

Level-triggered: each look goes over all HostedAgents as they are. What their objects cannot be (a bad spec, a name that another namespace
of the tenant has) is said in their conditions, and what ran before goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from moorage_api import conditions
from moorage_api.conditions import Conditions
from moorage_api.kinds import ManifestError, parse
from moorage_api.kinds.agent import HostedAgent
from moorage_api.ledger.provider import ProviderLedger
from moorage_api.provider.base import Revision
from moorage_api.provider.loop import Provider
from moorage_api.provider.revisions import revision_of
from moorage_operator import marks, objects
from moorage_operator.kube import AGENTS, Kube, KubeError
from moorage_operator.machine import PodMachine
from moorage_operator.observed import Name, Observed, name_of
from moorage_operator.settings import Settings
from moorage_operator.status import Counts, Report, status

log = logging.getLogger(__name__)

NAME_TAKEN = "NameTaken"
SPEC_REFUSED = "SpecRefused"
MOST_ASKED = 200  # sessions whose turn is looked up for the status of one agent; beyond it they count as active


@dataclass(frozen=True)
class Known:
    """One HostedAgent that was taken in. `tenant`, `agent` are its key; `taken`: the version of the object that was looked at."""

    tenant: str
    agent: str
    taken: tuple[str, int]
    refused: Conditions | None = None
    revision: str = ""
    image: str = ""

    @property
    def clashes(self) -> bool:
        """Whether the name is another namespace's: then nothing of it runs."""
        found = self.refused.get(conditions.SOURCE_RESOLVED) if self.refused is not None else None
        return found is not None and found.reason == NAME_TAKEN


class Agents:
    """Takes HostedAgents in and writes their status."""

    def __init__(
        self,
        kube: Kube,
        observed: Observed,
        settings: Settings,
        *,
        now: Callable[[], float],
        tenants: Mapping[str, str],
    ) -> None:
        self._kube = kube
        self._observed = observed
        self._settings = settings
        self._now = now
        self._tenants = tenants
        self._known: dict[Name, Known] = {}

    def place(self, tenant: str, agent: str) -> objects.Program | None:
        """Where an agent's objects go, and what it runs; None when there is no such HostedAgent."""
        for name, known in self._known.items():
            body = self._observed.agents.get(name)
            if (known.tenant, known.agent) == (tenant, agent) and not known.clashes and body is not None:
                return objects.Program(name[0], known.image, _owner(body))
        return None

    async def look(self, provider: Provider) -> None:
        """Takes in what is new or changed, and takes out what is gone. Raises LedgerError: then it is to be called again."""
        for name in [name for name in self._known if self._observed.agents.get(name) is None]:
            known = self._known[name]
            if not known.clashes:
                await provider.withdraw(known.tenant, known.agent)
            del self._known[name]
        bodies = sorted(self._observed.agents, key=lambda body: (body["metadata"]["creationTimestamp"], name_of(body)))
        for body in bodies:
            self._take(provider, body)

    def _take(self, provider: Provider, body: Mapping[str, Any]) -> None:
        name, meta = name_of(body), body["metadata"]
        tenant, agent = self._tenants.get(name[0], name[0]), name[1]
        taken = (str(meta["uid"]), int(meta.get("generation", 1)))
        old = self._known.get(name)
        owner = next(
            (n for n, k in self._known.items() if n != name and (k.tenant, k.agent) == (tenant, agent) and not k.clashes),
            None,
        )  # fmt: skip
        if old is not None and old.taken == taken and old.clashes == (owner is not None):
            return
        generation = taken[1]
        if owner is not None:
            why = f"the tenant {tenant} has an agent {agent} in the namespace {owner[0]}; choose another name, or delete that one"
            self._known[name] = Known(tenant, agent, taken, self._refusal(generation, NAME_TAKEN, why))
            return
        try:
            found = parse(_document(body))
            image = _image(found)
        except (ManifestError, _Unsupported) as fault:
            reason = SPEC_REFUSED if isinstance(fault, ManifestError) else conditions.IMAGE_UNSUPPORTED
            kept = old.revision if old is not None else ""
            known = Known(tenant, agent, taken, None, kept, old.image if old is not None else "")
            if not kept:
                known = Known(tenant, agent, taken, self._refusal(generation, reason, str(fault)))
            self._known[name] = known
            provider.report(
                tenant, agent, dict(body.get("spec") or {}), generation=generation, reason=reason, message=str(fault)
            )
            return
        contract = "moorage" if found.spec.contract == "auto" else found.spec.contract
        digest = revision_of(found.spec, image)
        self._known[name] = Known(tenant, agent, taken, None, digest, image)
        program = objects.Program(name[0], image, _owner(body))
        provider.deploy(Revision(tenant, agent, digest, found.spec, contract, program), generation=generation)
        log.info("%s/%s: revision %s", *name, digest)

    def _refusal(self, generation: int, reason: str, why: str) -> Conditions:
        now = self._now()
        seen = conditions.mark_false(conditions.begin(generation), conditions.SOURCE_RESOLVED, reason, why, now=now)
        return conditions.propagate_ready(seen, now=now)

    # Back

    async def tidy(self, provider: Provider, ledger: ProviderLedger) -> None:
        """Takes agents of our tenants out of the catalog whose HostedAgent went while no operator looked."""
        ours = set(self._tenants.values())
        for entry in await ledger.catalog():
            if entry.tenant in ours and (entry.tenant, entry.agent) not in provider.fleet.agents:
                await ledger.unpublish(entry.tenant, entry.agent)

    async def guard(self, machine: PodMachine) -> None:
        """Puts accounts and policies right that were edited or deleted by hand. One that is refused holds up no other."""
        for name, known in list(self._known.items()):
            program = self.place(known.tenant, known.agent) if known.revision else None
            if program is None:
                continue
            try:
                await machine.guard(known.agent, program)
            except KubeError as fault:
                log.warning("%s/%s: its account or policy: %s", *name, fault.message)

    async def report(self, provider: Provider, ledger: ProviderLedger) -> None:
        """Writes every status that says something else than what is so. One that is refused holds up no other."""
        for name, known in list(self._known.items()):
            body = self._observed.agents.get(name)
            if body is None:
                continue
            wanted = await self._report(known, provider, ledger)
            if wanted is None:
                continue
            fresh = status(wanted, body.get("status") or {})
            if fresh is None:
                continue
            try:
                self._observed.agents.put(await self._kube.merge(AGENTS, *name, {"status": fresh}, part="status"))
            except KubeError as fault:
                if fault.status != 404:
                    log.warning("%s/%s: its status: %s", *name, fault.message)

    async def _report(self, known: Known, provider: Provider, ledger: ProviderLedger) -> Report | None:
        if known.refused is not None:
            return Report(known.taken[1], known.refused)
        state = provider.fleet.agents.get((known.tenant, known.agent))
        if state is None or not state.published:
            return None  # not looked at yet: what stands there is truer than nothing
        url = f"{self._settings.public_url}/v1/agents/{known.agent}/responses" if self._settings.public_url else ""
        counts = await self._counts(known, provider, ledger)
        return Report(state.conditions.generation, state.conditions, known.revision, known.image, url, counts)

    async def _counts(self, known: Known, provider: Provider, ledger: ProviderLedger) -> Counts:
        warm = active = idle = 0
        volumes = set()
        for held in list(provider.fleet.sandboxes.values()):
            one = held.descriptor
            if (one.tenant, one.agent) != (known.tenant, known.agent):
                continue
            volumes.add(one.volume)
            if not (held.claimed or held.session):
                warm += 1
            elif active + idle < MOST_ASKED and not await _runs(ledger, held.session, one.sandbox):
                idle += 1
            else:
                active += 1
        hibernated = sum(
            1
            for body in self._observed.claims
            if marks.text(body, "labels", marks.AGENT) == known.agent
            and self._tenants.get(body["metadata"]["namespace"]) == known.tenant
            and marks.bound(body, known.tenant) is not None
            and body["metadata"]["name"] not in volumes
        )
        return Counts(warm, active, idle, hibernated)


class _Unsupported(ValueError):
    """A spec that is right, and that this operator cannot run."""


async def _runs(ledger: ProviderLedger, session: str, sandbox: str) -> bool:
    key = session or await ledger.holder(sandbox)
    record = await ledger.session(key) if key else None
    return record is None or bool(record.running)


def _document(body: Mapping[str, Any]) -> dict[str, Any]:
    meta = {key: body["metadata"][key] for key in ("name", "namespace") if key in body["metadata"]}
    return {"apiVersion": body["apiVersion"], "kind": body["kind"], "metadata": meta, "spec": body.get("spec") or {}}


def _image(agent: HostedAgent) -> str:
    if agent.spec.image is None:
        raise _Unsupported(
            "spec.source: bundles and git sources are not run in a cluster yet; build an image that holds the agent and name it"
            " in spec.image"
        )
    if agent.spec.contract not in ("auto", "moorage"):
        raise _Unsupported(
            f"spec.contract: images that speak {agent.spec.contract} are not run in a cluster yet; use moorage's serve()"
        )
    return agent.spec.image


def _owner(body: Mapping[str, Any]) -> dict[str, Any]:
    meta = body["metadata"]
    return {
        "apiVersion": body["apiVersion"],
        "kind": body["kind"],
        "name": meta["name"],
        "uid": meta["uid"],
        "controller": True,
        "blockOwnerDeletion": False,
    }
