"""Sandboxes as pods: the operator's half of the provider seam. Layer: I/O; what is made is said by `objects`, what is seen by `pods`.

A sandbox's name is its pod's. A volume is a claim; which session it holds is noted on it once the ledger says that the session is bound
there (`claims`). Nothing ends with the operator: the next one finds pods and claims as they are.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from moorage_api import tokens
from moorage_api.ledger.records import Descriptor
from moorage_api.provider.base import Death, MakeFailed, OutOfReach, Revision
from moorage_operator import marks, objects, pods, shim_config, telling
from moorage_operator.claims import Claims, uid
from moorage_operator.kube import ACCOUNTS, CLAIMS, EVENTS, PODS, POLICIES, Kube, KubeError
from moorage_operator.observed import Observed, name_of, plain, sandbox_of
from moorage_operator.reach import MOVED, OUT_OF_REACH, Reach, told_out_of_reach
from moorage_operator.reviving import revived
from moorage_operator.settings import Settings

log = logging.getLogger(__name__)

LOG_LINES = 20
END_SECONDS = 90.0  # the pod's grace and what the kubelet adds to it
LOOK_CALLS = (
    10  # of `dead`, half a second each at the slowest: then pods are looked for although none was told to have gone
)
LOOK_SECONDS = 5.0  # a pod is looked at again although nothing was told


@dataclass(frozen=True)
class _Known:
    """A sandbox that was made or taken over. `why` it is being ended, or ""."""

    namespace: str
    agent: str
    why: str = ""


class PodMachine(Claims):
    """Where sandboxes run: the watched namespaces. `tenants`: namespace → tenant; `place`: where an agent is, or None."""

    outlives = True

    def __init__(
        self,
        kube: Kube,
        observed: Observed,
        settings: Settings,
        *,
        tenants: Mapping[str, str],
        place: Callable[[str, str], objects.Program | None],
        ledger: Callable[[], str],
        now: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        """`ledger`: which one is known now; `now` on a monotonic scale, `wall` in epoch seconds."""
        super().__init__(kube, observed, tenants)
        self._ledger = ledger
        self._settings = settings
        self._place = place
        self._key = settings.token_key.get_secret_value()
        self.reach = Reach(observed, key=self._key, within=settings.lost_after_seconds, now=now)
        self._wall = wall
        self._sure: set[str] = set()  # sandboxes of which the API server itself says that they are there still
        self._serving: dict[str, str] = {}  # of what is being made: the address at which a gateway heard that it serves
        self._dead: dict[str, Death] = {}
        self._unseen = LOOK_CALLS  # calls of `dead` since pods were looked for
        self._known: dict[str, _Known] = {}

    # The seam

    def watch(self, wake: Callable[[], None]) -> None:
        """See Machine."""

        def went() -> None:
            self._unseen = LOOK_CALLS
            wake()

        self._observed.wake = went

    async def leftovers(self) -> list[str]:
        """See Machine. None is dead for certain; the loop's sweep compares pods with the ledger."""
        return []

    async def adopted(self) -> list[tuple[Revision, Descriptor]]:
        """See Machine. What was being started by an operator that ended is started anew.

        One that is not ready only now is taken over as well: when a node was cut off from its API server none of its pods is, though
        their calls run on.
        """
        found = []
        for body in self._observed.pods:
            seen = pods.seen(body)
            lives = marks.is_ours(body) and (seen.state == "ready" or seen.lapsed)
            one = self._revived(body, seen) if lives else None
            if one is not None:
                self._known[sandbox_of(body)] = _Known(body["metadata"]["namespace"], one[0].agent)
                found.append(one)
        return found

    def strays(self) -> list[str]:
        """See Machine. With them go pods that were still starting when their operator ended."""
        return [
            sandbox_of(body)
            for body in self._observed.pods
            if marks.is_sandbox(body) and sandbox_of(body) not in self._making
        ]

    async def prepare(self, revision: Revision) -> None:
        """See Machine. Account and policy stand before the first pod: it must never run without them."""
        program = objects.Program.of(revision)
        try:
            await self.guard(revision.agent, program)
        except KubeError as fault:
            raise MakeFailed(f"the cluster refused what sandboxes need: {fault.message}", fault=False) from fault

    async def guard(self, agent: str, program: objects.Program) -> None:
        """Makes an agent's account and policy what they must be; writes nothing where they are. Raises KubeError."""
        place = (agent, program.namespace, program.owner)
        for kind, body in ((ACCOUNTS, objects.account(*place)), (POLICIES, objects.policy(*place, self._settings))):
            shelf = self._observed.shelves[kind]
            held = shelf.get((program.namespace, body["metadata"]["name"]))
            if held is None or not objects.stands(held, body):
                shelf.put(plain(await self._kube.apply(kind, body, manager=marks.MANAGER)))

    async def mend(self) -> None:
        """Puts back the labels that were taken off claims, which else were found by nobody: of who runs on one, else of the session noted
        on it. Raises KubeError."""
        for name in list(self._observed.stripped):
            found = self._observed.claims.get(name)
            agent = self._whose(found) if found is not None else ""
            if agent:
                fresh = {"metadata": {"labels": marks.labels(agent)}}
                self._observed.claims.put(plain(await self._kube.merge(CLAIMS, *name, fresh)))

    def _whose(self, claim: Mapping[str, Any]) -> str:
        """The agent of a claim, whatever its labels say of that; "" when nobody knows."""
        known, noted = self._known.get(marks.text(claim, "labels", marks.SANDBOX)), marks.identity(claim)
        if known is not None and known.namespace == claim["metadata"]["namespace"]:
            return known.agent
        return noted.agent if noted is not None and noted.tenant == self._tenant(claim) else ""

    def guarded(self, agent: str, program: objects.Program) -> tuple[object, ...]:
        """What `guard` goes by: while it is the same, there is nothing to do."""
        name = (program.namespace, objects.account_name(agent))
        return (program, self._observed.accounts.get(name), self._observed.policies.get(name))

    async def make(self, revision: Revision, sandbox: str, volume: str) -> Descriptor:
        """See Machine."""
        namespace = objects.Program.of(revision).namespace
        self._making.add(sandbox)
        self._known[sandbox] = _Known(namespace, revision.agent)
        try:
            await self._create(revision, sandbox, volume)
            address = await self._ready(namespace, sandbox)
            self.reach.came((namespace, sandbox))
        except (KubeError, MakeFailed) as fault:
            (self.reach.unsure if isinstance(fault, KubeError) else self.reach.missed)((namespace, sandbox))
            await self._clear(namespace, sandbox)
            if isinstance(fault, KubeError):
                raise MakeFailed(f"the cluster refused the pod: {fault.message}", fault=False) from fault
            raise
        finally:  # an operator that is ended here leaves a pod that the next one sweeps
            self._making.discard(sandbox)
            self._serving.pop(sandbox, None)
        return self._descriptor(revision, sandbox, volume, address)

    def served(self, sandbox: str, endpoint: str) -> None:
        """A gateway heard, with proof, from the shim of a sandbox that it serves at that URL.

        A kubelet probes once a second and then writes the pod's status: whoever waits for a session need not wait for that.
        """
        known, address = self._known.get(sandbox), _address(endpoint)
        if known is not None and sandbox in self._making and address:
            self._serving[sandbox] = address
            self._observed.nudge((known.namespace, sandbox))

    async def destroy(self, sandbox: str, reason: str) -> None:
        """See Machine. Raises KubeError when the pod is still there after `END_SECONDS`: the loop comes again."""
        found = await self._pod(sandbox)
        if found is None:
            self._known.pop(sandbox, None)
            return
        namespace = found["metadata"]["namespace"]
        known = self._known.get(sandbox) or _Known(namespace, marks.text(found, "labels", marks.AGENT))
        self._known[sandbox] = replace(known, why=reason)
        await self._kube.delete(PODS, namespace, sandbox, uid=uid(found))
        await self._gone(namespace, sandbox)

    async def release(self, revision: str) -> None:
        """See Machine. Nothing is kept for a revision; account and policy go with their HostedAgent."""

    def dead(self) -> list[Death]:
        """See Machine. A pod whose containers ended counts once its object is gone; `unfit` names it before."""
        self._unseen += 1
        if self._unseen < LOOK_CALLS:  # no pod went since: hundreds need not be looked for at each look
            return list(self._dead.values())
        self._unseen = 0
        for sandbox, known in list(self._known.items()):
            there = self._observed.pods.get((known.namespace, sandbox)) is not None
            if sandbox in self._making or known.why or there:
                continue
            self._dead.setdefault(sandbox, Death(sandbox, "its pod was deleted"))
        return list(self._dead.values())

    def forget(self, sandbox: str) -> None:
        """See Machine."""
        self._dead.pop(sandbox, None)
        self._known.pop(sandbox, None)

    async def unfit(self) -> list[tuple[str, str]]:
        """See Machine. A claim bounds itself; here are the pods of which a container ended, for their end to be proved, and those whose
        labels were edited, which the rights of an operator cannot put right.
        """
        found = []
        for body in self._observed.pods:
            sandbox, seen = sandbox_of(body), pods.seen(body)
            known = self._known.get(sandbox)
            if known is None or sandbox in self._making:
                continue
            why = seen.reason if seen.state == "ended" else marks.edited(body, known.agent, sandbox)
            if why:
                found.append((sandbox, why))
        return found

    async def out_of_reach(self) -> list[OutOfReach]:
        """See Machine. What is so for the first time is told beside the agent's HostedAgent."""
        found = await self._confirmed(self.reach.look())
        self.reach.out = len(found)
        for one in found:
            await self._tell(one.tenant, one.agent, OUT_OF_REACH, one.volume, told_out_of_reach(one))
        return found

    async def abandon(self, tenant: str, agent: str, volume: str) -> None:
        """See Machine. The cluster removes a claim once no pod has it: the label says what it waits for."""
        found = self._claim(tenant, agent, volume)
        if found is None:
            return
        whose = marks.identity(found)
        await self._give_up(found)
        self.reach.abandoned(name_of(found))
        moved = f"the session {whose.session if whose else '?'} has left it, and goes on from its newest checkpoint"
        await self._tell(tenant, agent, MOVED, volume, f"volume {volume} is out of reach: {moved}")

    async def close(self) -> None:
        """See Machine: they outlive this process."""

    # Parts

    async def _create(self, revision: Revision, sandbox: str, volume: str) -> None:
        held = self._claim(revision.tenant, revision.agent, volume)
        if revision.spec.workspace.file_system and held is None:
            body = objects.claim(revision, sandbox, volume, self._settings, ledger=self._ledger())
            self._observed.claims.put(plain(await self._kube.create(CLAIMS, body)))
        shim = shim_config.told(revision, sandbox, volume, self._settings)
        used = held is not None and marks.bound(held, revision.tenant) is not None
        if used:
            self.reach.coming((objects.Program.of(revision).namespace, sandbox), volume)
        body = objects.pod(revision, sandbox, volume, shim, self._settings, used=used)
        try:
            self._observed.pods.put(plain(await self._kube.create(PODS, body)))
        except KubeError as fault:
            if fault.status == 409 and fault.reason == "AlreadyExists":
                return
            raise

    async def _ready(self, namespace: str, sandbox: str) -> str:
        """The pod's address. Raises MakeFailed with what the cluster says, and the agent's last lines."""
        left = self._settings.ready_seconds
        while True:
            seen = pods.seen(self._observed.pods.get((namespace, sandbox)))
            if seen.state == "ready":
                return seen.address
            if seen.state == "starting" and sandbox in self._serving:
                return self._serving[sandbox]
            if seen.state in ("ended", "failing", "gone", "leaving"):
                tail = await self._kube.log_tail(namespace, sandbox, seen.faulty, LOG_LINES) if seen.faulty else ()
                tail = tuple(map(pods.said, tail))
                raise MakeFailed(seen.reason, tail, fault=seen.state in ("ended", "failing"))
            if self.reach.left_behind((namespace, sandbox)):
                raise MakeFailed("its session has left this volume", fault=False)
            if left <= 0:
                tail = await self._kube.log_tail(namespace, sandbox, "agent", LOG_LINES)
                within = f"not ready within {self._settings.ready_seconds:g} s: {seen.reason}"
                raise MakeFailed(within, tail)
            left -= await self._look(namespace, sandbox)

    async def _clear(self, namespace: str, sandbox: str) -> None:
        try:
            await self._kube.delete(PODS, namespace, sandbox, grace=1)
            await self._gone(namespace, sandbox)
        except KubeError as fault:
            log.warning("the pod %s could not be ended (%s); it is swept later", sandbox, fault.message)
        else:
            self._known.pop(sandbox, None)

    async def _gone(self, namespace: str, sandbox: str) -> None:
        left = END_SECONDS
        while self._observed.pods.get((namespace, sandbox)) is not None:
            if left <= 0:
                raise KubeError(0, "StillThere", f"the pod {sandbox} is still there after {END_SECONDS:g} s")
            left -= await self._look(namespace, sandbox)

    async def _confirmed(self, found: list[OutOfReach]) -> list[OutOfReach]:
        """Those whose pods are there by the API server itself: where a watch is late or lost, one may have ended long ago."""
        sure, answers = [], True
        for one in found:
            known = not one.sandbox or one.sandbox in self._sure
            try:
                if known or (answers and await self._there(one)):
                    sure.append(one)
            except KubeError as fault:  # nor would it answer about the others
                log.warning("what is out of reach is not known: %s", fault.message)
                answers = False
        self._sure = {one.sandbox for one in sure if one.sandbox}
        return sure

    async def _there(self, one: OutOfReach) -> bool:
        for namespace in [name for name, tenant in self._tenants.items() if tenant == one.tenant]:
            held = self._observed.pods.get((namespace, one.sandbox))
            if held is None:
                continue
            found = await self._kube.get(PODS, namespace, one.sandbox)
            if found is not None and uid(found) == uid(held):
                return True
            self._observed.pods.drop(held)
        return False

    async def _tell(self, tenant: str, agent: str, reason: str, volume: str, said: str) -> None:
        """An event, once a volume and reason; one that is refused keeps nothing else waiting."""
        program = self._place(tenant, agent)
        if program is None or not self.reach.untold(volume, reason):
            return
        try:
            await self._kube.create(EVENTS, telling.of_agent(program, reason, volume, said, self._wall()))
        except KubeError as fault:
            if fault.status != 409:
                log.warning("an event of %s: %s", agent, fault.message)

    async def _look(self, namespace: str, sandbox: str) -> float:
        """Waits for news of a pod; asks for it where none come, as when a watch is lost. Seconds that passed without any."""
        if await self._observed.change((namespace, sandbox), LOOK_SECONDS):
            return 0.0
        found, held = await self._kube.get(PODS, namespace, sandbox), self._observed.pods.get((namespace, sandbox))
        if found is not None:
            self._observed.pods.put(plain(found))
        elif held is not None:
            self._observed.pods.drop(held)
        return LOOK_SECONDS

    def _descriptor(self, revision: Revision, sandbox: str, volume: str, address: str) -> Descriptor:
        host = f"[{address}]" if ":" in address else address
        return Descriptor(
            sandbox=sandbox,
            tenant=revision.tenant,
            agent=revision.agent,
            revision=revision.revision,
            endpoint=f"http://{host}:{objects.SHIM_PORT}",
            secret=tokens.sandbox_secret(sandbox, self._key),
            volume=volume,
        )

    def _revived(self, body: Mapping[str, Any], seen: pods.PodSeen) -> tuple[Revision, Descriptor] | None:
        """Revision and descriptor out of a pod's own marks; None where they are spoilt."""
        found = revived(body, self._tenant(body), self._key, self._place)
        if found is None:
            return None
        revision, who = found
        return revision, self._descriptor(revision, who.sandbox, who.volume, seen.address)

    async def _pod(self, sandbox: str) -> Mapping[str, Any] | None:
        """The pod of a sandbox, whatever became of its labels: its name is asked for, which only pods of that sandbox were given.

        That there is none is a proof of death, so the API server is asked before that is said.
        """
        known, there = self._known.get(sandbox), []
        for namespace in self._tenants if known is None else (known.namespace,):
            found = self._observed.pods.get((namespace, sandbox)) or await self._kube.get(PODS, namespace, sandbox)
            if found is not None:
                there.append(found)
        found = max(there, key=marks.is_ours, default=None)
        if found is not None:
            self._observed.pods.put(plain(found))
        return found


def _address(endpoint: str) -> str:
    """The IP address in a shim's URL, which writes one of IPv6 without brackets; "" where there is none."""
    host = endpoint.removeprefix("http://").rstrip("/").rpartition(":")[0].strip("[]")
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return ""
