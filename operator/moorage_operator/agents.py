"""HostedAgents of the cluster into what the provider runs, and back into their status. Layer: the operator's middle.

Level-triggered: each look goes over all HostedAgents as they are. What their objects cannot be (a bad spec, a name that another namespace
of the tenant has) is said in their conditions, and what ran before goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from moorage_api import conditions
from moorage_api.built import Built, Failed
from moorage_api.conditions import Conditions
from moorage_api.kinds import ManifestError, parse
from moorage_api.kinds.agent import HostedAgent, HostedAgentSpec
from moorage_api.ledger.provider import ProviderLedger
from moorage_api.provider.base import Revision
from moorage_api.provider.loop import Provider
from moorage_api.provider.revisions import revision_of
from moorage_operator import marks, objects
from moorage_operator.build_objects import Ask
from moorage_operator.builds import Builds, Standing
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
    """One HostedAgent that was taken in. `tenant`, `agent` are its key; `taken`: the version of the object that was looked at.

    `source`: what its status calls it: an image, a commit, or a bundle's digest. `spoilt`: that version cannot be run, and all else here is
    of the last one that could.
    """

    tenant: str
    agent: str
    taken: tuple[str, int]
    refused: Conditions | None = None
    revision: str = ""
    source: str = ""
    image: str = ""
    built: Built | None = None
    sourced: HostedAgent | None = None  # what was parsed of one with a source, whose build is looked at again and again
    standing: Standing | None = None
    spoilt: bool = False

    @property
    def clashes(self) -> bool:
        """Whether the name is another namespace's: then nothing of it runs."""
        found = self.refused.get(conditions.SOURCE_RESOLVED) if self.refused is not None else None
        return found is not None and found.reason == NAME_TAKEN


@dataclass
class _Sandboxes:
    """Those of one agent: how many wait in pools, which are a session's, and how many sessions sleep on their volume."""

    warm: int = 0
    claimed: list[str] = field(default_factory=list)
    hibernated: int = 0


class Agents:
    """Takes HostedAgents in and writes their status."""

    def __init__(
        self,
        kube: Kube,
        observed: Observed,
        settings: Settings,
        builds: Builds,
        *,
        now: Callable[[], float],
        tenants: Mapping[str, str],
    ) -> None:
        self._kube = kube
        self._observed = observed
        self._settings = settings
        self._builds = builds
        self._now = now
        self._tenants = tenants
        self._known: dict[Name, Known] = {}
        self._guarded: dict[Name, tuple[object, ...]] = {}
        self._looked: tuple[object, ...] | None = None  # what the last look that came to its end went by

    def place(self, tenant: str, agent: str) -> objects.Program | None:
        """Where an agent's objects go, and what it runs; None when there is no such HostedAgent."""
        for name, known in self._named(tenant, agent):
            body = self._observed.agents.get(name)
            if body is not None:
                return objects.Program(name[0], known.image, _owner(body), known.built)
        return None

    def _named(self, tenant: str, agent: str) -> Iterator[tuple[Name, Known]]:
        """Those of the name in the tenant's namespaces that have it, rather than clash with another."""
        for space in (*self._tenants, tenant):  # a namespace whose label was not read yet is a tenant of its own name
            known = self._known.get((space, agent))
            if known is not None and known.tenant == tenant and not known.clashes:
                yield (space, agent), known

    async def look(self, provider: Provider) -> None:
        """Takes in what is new or changed, and takes out what is gone. Raises LedgerError: then it is to be called again."""
        asked = (provider, self._observed.asked, tuple(self._tenants.items()))
        if asked == self._looked and not any(known.sourced for known in self._known.values()):
            return
        before, self._looked = self._looked, None
        for name in [name for name in self._known if self._observed.agents.get(name) is None]:
            known = self._known[name]
            if not known.clashes:
                await provider.withdraw(known.tenant, known.agent)
            del self._known[name]
        same = before is not None and before[::2] == asked[::2]  # the same provider, and namespaces are whose they were
        bodies = [body for body in self._observed.agents if not (same and self._stands(body))]
        for body in sorted(bodies, key=lambda body: (body["metadata"]["creationTimestamp"], name_of(body))):
            try:
                await self._take(provider, body)
            except ValueError as fault:  # nobody foresaw it: one object's fault is never the end of all others
                log.exception("%s/%s cannot be taken in", *name_of(body))
                self._refuse(
                    provider, body, f"this manifest cannot be taken in: {fault}; the operator's log says where"
                )
        self._looked = asked

    def _stands(self, body: Mapping[str, Any]) -> bool:
        """Whether it has its name and runs an image as it did: then nothing of it is new."""
        known = self._known.get(name_of(body))
        return known is not None and not known.clashes and known.sourced is None and known.taken == self._key(body)[2]

    async def _take(self, provider: Provider, body: Mapping[str, Any]) -> None:
        name = name_of(body)
        tenant, agent, taken = self._key(body)
        old = self._known.get(name)
        owner = next((other for other, _ in self._named(tenant, agent) if other != name), None)
        if old is not None and old.taken == taken and old.clashes == (owner is not None):
            if old.sourced is not None and not old.spoilt:
                await self._sourced(provider, name, body, old, old.sourced)
            return
        if owner is not None:
            why = f"the tenant {tenant} has an agent {agent} in the namespace {owner[0]}; choose another name, or delete that one"
            self._known[name] = Known(tenant, agent, taken, self._refusal(taken[1], NAME_TAKEN, why))
            return
        try:
            found = parse(_document(body))
        except ManifestError as fault:
            self._refuse(provider, body, str(fault))
            return
        image = found.spec.image
        if image is None:
            kept = _met(body, tenant, agent, taken)
            if old is not None and not old.clashes:
                kept = replace(old, taken=taken, refused=None, standing=None, spoilt=False)
            await self._sourced(provider, name, body, kept, found)
            return
        contract = "moorage" if found.spec.contract == "auto" else found.spec.contract
        digest = revision_of(found.spec, image)
        self._known[name] = Known(tenant, agent, taken, None, digest, image, image)
        program = objects.Program(name[0], image, _owner(body))
        provider.deploy(Revision(tenant, agent, digest, found.spec, contract, program), generation=taken[1])
        log.info("%s/%s: revision %s", *name, digest)

    async def _sourced(
        self, provider: Provider, name: Name, body: Mapping[str, Any], known: Known, found: HostedAgent
    ) -> None:
        """Looks at the build of a source; what ran before goes on until there is something newer to run."""
        owner, spec = _owner(body), found.spec
        standing = await self._builds.standing(Ask(name[0], known.tenant, known.agent, spec, owner))
        if standing == known.standing:
            return
        generation, key = known.taken[1], (known.tenant, known.agent)
        if not isinstance(standing, Built):
            reason = standing.reason if isinstance(standing, Failed) else conditions.RESOLVING
            self._known[name] = replace(known, sourced=found, standing=standing)
            provider.report(*key, found.wire_spec(), generation=generation, reason=reason, message=standing.message)
            return
        image = self._settings.sandbox_image
        digest = revision_of(spec, standing.digest)
        source = standing.commit or (spec.source.bundle if spec.source is not None else None) or ""
        fresh = Known(*key, known.taken, None, digest, source, image, standing, found, standing)
        self._known[name] = fresh
        program = objects.Program(name[0], image, owner, standing)
        revision = Revision(*key, digest, spec, standing.contract, program)
        provider.deploy(revision, generation=generation, resolved=_resolved(spec, fresh.source))
        log.info("%s/%s: revision %s of %s", *name, digest, fresh.source)

    def _refuse(self, provider: Provider, body: Mapping[str, Any], why: str) -> None:
        """Says that a spec cannot be run; what ran before goes on, and what was built of its source is kept."""
        tenant, agent, taken = self._key(body)
        old = self._known.get(name_of(body))
        if old is not None and old.refused is None:
            known = replace(old, taken=taken, spoilt=True)
        else:
            refused = self._refusal(taken[1], SPEC_REFUSED, why)
            known = replace(_met(body, tenant, agent, taken), refused=refused, spoilt=True)
        self._known[name_of(body)] = known
        spec = dict(body.get("spec") or {})
        provider.report(tenant, agent, spec, generation=taken[1], reason=SPEC_REFUSED, message=why)

    def _key(self, body: Mapping[str, Any]) -> tuple[str, str, tuple[str, int]]:
        """Tenant, agent, and the version of the object."""
        (namespace, agent), meta = name_of(body), body["metadata"]
        return self._tenants.get(namespace, namespace), agent, (str(meta["uid"]), int(meta.get("generation", 1)))

    def _refusal(self, generation: int, reason: str, why: str) -> Conditions:
        now = self._now()
        seen = conditions.mark_false(conditions.begin(generation), conditions.SOURCE_RESOLVED, reason, why, now=now)
        return conditions.propagate_ready(seen, now=now)

    # Back

    async def tidy(self, provider: Provider, ledger: ProviderLedger) -> None:
        """Takes agents out of the catalog whose HostedAgent went while no operator looked.

        Whosever they are: of a namespace that went as well, nobody can tell any more to which tenant it belonged.
        """
        for entry in await ledger.catalog():
            if (entry.tenant, entry.agent) not in provider.fleet.agents:
                await ledger.unpublish(entry.tenant, entry.agent)

    async def guard(self, machine: PodMachine) -> None:
        """Puts accounts and policies right that were edited or deleted by hand, and removes builds of sources that nobody wants any more.
        One that is refused holds up no other."""
        before, self._guarded = self._guarded, {}
        for name, known in list(self._known.items()):
            program = self.place(known.tenant, known.agent) if known.revision else None
            if program is None:
                continue
            try:
                if before.get(name) != machine.guarded(known.agent, program):
                    await machine.guard(known.agent, program)
                self._guarded[name] = machine.guarded(known.agent, program)
                if known.sourced is None and not known.spoilt:
                    await self._builds.sweep(name[0], known.agent)
            except KubeError as fault:
                log.warning("%s/%s: its account, policy or builds: %s", *name, fault.message)

    async def report(
        self, provider: Provider, ledger: ProviderLedger, only: Collection[tuple[str, str]] | None = None
    ) -> None:
        """Writes every status that says something else than what is so. One that is refused holds up no other.

        `only`: of these (tenant, agent); None for all.
        """
        told = [
            (name, known) for name, known in self._known.items() if only is None or (known.tenant, known.agent) in only
        ]
        for name, known in told:
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
            return Report(known.taken[1], known.refused, known.revision, known.source)
        state = provider.fleet.agents.get((known.tenant, known.agent))
        if state is None or not state.published:
            return None  # not looked at yet: what stands there is truer than nothing
        url = f"{self._settings.public_url}/v1/agents/{known.agent}/responses" if self._settings.public_url else ""
        held = self._sandboxes(provider, known)
        asked = held.claimed[:MOST_ASKED]
        at_work = await ledger.at_work(asked)
        beyond = len(held.claimed) - len(asked)
        counts = Counts(held.warm, at_work + beyond, len(asked) - at_work, held.hibernated)
        return Report(state.conditions.generation, state.conditions, known.revision, known.source, url, counts)

    def _sandboxes(self, provider: Provider, known: Known) -> _Sandboxes:
        """What runs of an agent, and what sleeps."""
        found, volumes = _Sandboxes(), set()
        for held in provider.fleet.sandboxes.of_agent(known.tenant, known.agent):
            volumes.add(held.descriptor.volume)
            if held.claimed or held.session:
                found.claimed.append(held.descriptor.sandbox)
            elif not held.ending:
                found.warm += 1
        for space, tenant in self._tenants.items():
            for body in self._observed.claims_of(space, known.agent) if tenant == known.tenant else ():
                # The note is read, which takes its time, of those alone that no sandbox runs on.
                if body["metadata"]["name"] not in volumes and marks.bound(body, tenant) is not None:
                    found.hibernated += 1
        return found


def _met(body: Mapping[str, Any], tenant: str, agent: str, taken: tuple[str, int]) -> Known:
    """One that nothing is known of yet but what its status says: what ran when its former operator ended runs on."""
    shown = body.get("status") or {}
    return Known(tenant, agent, taken, None, str(shown.get("revision") or ""), str(shown.get("source") or ""))


def _document(body: Mapping[str, Any]) -> dict[str, Any]:
    meta = {key: body["metadata"][key] for key in ("name", "namespace") if key in body["metadata"]}
    return {"apiVersion": body["apiVersion"], "kind": body["kind"], "metadata": meta, "spec": body.get("spec") or {}}


def _resolved(spec: HostedAgentSpec, source: str) -> str:
    """What a revision is of, for people."""
    git = spec.source.git if spec.source is not None else None
    return f"{git.ref} of {git.url} is commit {source}." if git is not None else f"Bundle {source}."


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
