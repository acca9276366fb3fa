"""The provider: keeps what the ledger asks for and what the machine runs the same, whatever happened in between.

Layer: the floor. One loop, level-triggered: it looks at everything it needs, decides (`decide.py`), and begins what is missing; it never
asks what happened. Slow work (starting, ending, removing) runs in tasks that this object owns, one a subject at a time. A hint or a
death wakes the loop early; else it looks every half second (`looks.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moorage_api import conditions, names
from moorage_api.ledger.script import LedgerError, Lost
from moorage_api.provider import decide, fleet
from moorage_api.provider.base import Ledger, Machine, MakeFailed, Revision
from moorage_api.provider.decide import Failures
from moorage_api.provider.demands import Demands
from moorage_api.provider.fleet import AgentState, Fleet, Held, RevisionState
from moorage_api.provider.leaving import Leaving
from moorage_api.provider.looks import Looks
from moorage_api.provider.returning import Returning
from moorage_api.provider.sweeping import Sweeper
from moorage_api.provider.works import Works

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ProviderSettings:
    """Pace of the loop, in seconds."""

    tick: float = 0.5
    quota_every: float = 5.0
    sweep_every: float = 60.0
    drain_within: float = 20.0


class Provider:
    """Runs sandboxes on one machine for one ledger.

    `found` is awaited after the ledger reports a loss, before anything is written again. `run` works until it is cancelled, then ends
    every sandbox and reports it, unless they outlive it. `changed` (set by the composition) is called with tenant and agent when an agent's
    conditions or what gateways are told of it changed.
    """

    def __init__(
        self,
        ledger: Ledger,
        machine: Machine,
        *,
        now: Callable[[], float],
        found: Callable[[], Awaitable[object]],
        token_key: str,
        settings: ProviderSettings | None = None,
    ) -> None:
        self.fleet = Fleet()
        self._ledger = ledger
        self._machine = machine
        self._now = now
        self.changed: Callable[[str, str], None] = _nobody
        self._token_key = token_key
        self._settings = settings or ProviderSettings()
        self._works = Works(self._guarded, self.wake)
        self._looks = Looks(self._settings.tick)
        self._stepped = asyncio.Condition()
        begin = self._begin = self._works.begin
        self._demands = Demands(self.fleet, ledger, machine, now=now, begin=begin, end=self._end)
        self._returning = Returning(self.fleet, ledger, machine, now=now, found=found, begin=begin, end=self._end)
        self._leaving = Leaving(self.fleet, ledger, machine, begin=begin)
        self._sweeper = Sweeper(self.fleet, ledger, machine, begin=begin, end=self._end)
        self._quota_at = self._sweep_at = 0.0
        self._keyed, self._lost = False, True

    # What the deployments say

    def deploy(self, revision: Revision, *, generation: int, resolved: str = "") -> None:
        """Makes this the newest revision of its agent. The same revision again only refreshes its spec (pool, weight, access).

        `resolved`: what its source was resolved to, in a sentence.
        """
        agent = self.fleet.agent(revision.tenant, revision.agent)
        known = agent.find(revision.revision)
        if known is None:
            known = RevisionState(revision)
        else:
            agent.revisions.remove(known)
            known.revision = revision
            known.failures = Failures()
        agent.revisions.insert(0, known)
        agent.spec = revision.wire_spec
        fresh = conditions.Conditions(generation, agent.conditions.held)
        message = f"Revision {revision.revision}. {resolved}".strip()
        agent.conditions = conditions.mark_true(
            fresh, conditions.SOURCE_RESOLVED, conditions.RESOLVED, message, now=self._now()
        )
        self._looks.at(*agent.key)

    def report(
        self, tenant: str, agent: str, spec: dict[str, Any], *, generation: int, reason: str, message: str
    ) -> None:
        """The newest spec cannot be run: what ran before goes on, the condition says why."""
        state = self.fleet.agent(tenant, agent)
        if state.newest is None:
            state.spec = spec
        fresh = conditions.Conditions(generation, state.conditions.held)
        now = self._now()
        if reason == conditions.RESOLVING:
            state.conditions = conditions.mark_unknown(fresh, conditions.SOURCE_RESOLVED, reason, message, now=now)
        else:
            state.conditions = conditions.mark_false(fresh, conditions.SOURCE_RESOLVED, reason, message, now=now)
        self._looks.at(*state.key)

    async def withdraw(self, tenant: str, agent: str) -> None:
        """Takes an agent out: nothing new starts, its sandboxes end; sessions' files stay until the sessions are deleted.

        Raises LedgerError: then it is to be called again.
        """
        state = self.fleet.agents.pop((tenant, agent), None)
        keys = {revision.revision.key for revision in state.revisions} if state is not None else set()
        try:
            await self._ledger.unpublish(tenant, agent)
            for held in [h for h in self.fleet.sandboxes.values() if h.revision in keys]:
                await self._ledger.doom(held.descriptor.sandbox, "the agent was removed")
        except BaseException:  # it stands as before, for whoever tries again
            if state is not None:
                self.fleet.agents.setdefault((tenant, agent), state)
            raise
        for key in keys:
            self._begin(f"release {key}", self._machine.release(key))
        self.wake()

    async def settled(self, tenant: str, agent: str, *, revision: str | None, within: float) -> AgentState | None:
        """Waits until that revision (None: the newest) served or failed; returns the agent, or None at the deadline."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within), self._stepped:
                while True:
                    state = self.fleet.agents.get((tenant, agent))
                    if state is not None and state.is_settled(revision):
                        return state
                    await self._stepped.wait()
        return None

    def wake(self) -> None:
        """Has the loop look at everything now. The end of every work that was begun has it look by itself."""
        self._looks.at_all()

    # The loop

    async def run(self) -> None:
        """Works until cancelled; then every sandbox is ended and reported gone."""
        self._machine.watch(self.wake)
        await self._returning.adopt(pause=self._settings.tick)
        await self._mend()
        await self._guarded(self._sweeper.sweep)
        try:
            while True:
                await self._mend()
                await self._guarded(self._step)
                async with self._stepped:
                    self._stepped.notify_all()
                await self._looks.due()
        finally:
            await self._close()

    async def _guarded(self, work: Callable[[], Awaitable[None]]) -> bool:
        """Runs one look; False: it failed. A loss is mended before the next one; no answer is left to it."""
        try:
            await work()
            return True
        except Lost:
            log.warning("the ledger lost writes; pools and labels are given to it anew")
            self._lost = True
            self.wake()
        except (LedgerError, OSError) as error:
            log.warning("the ledger does not answer (%s); looking again", error)
        return False

    async def _mend(self) -> None:
        """Gives a ledger that was lost, or is new to this process, all that this machine knows; again until all of that was written."""
        if not self._lost:
            return
        self._keyed = False
        self._leaving.tell_again()
        try:
            await self._returning.restore()
        except (LedgerError, OSError) as error:
            log.warning("the ledger is not whole yet (%s)", error)
        else:
            self._lost = False

    async def _step(self) -> None:
        """One look: observe → decide → begin → report. One that fails leaves the rest to the next whole one."""
        only = self._looks.take()
        if only is not None:
            for key in only & self.fleet.agents.keys():
                await self._agent(self.fleet.agents[key])
            return
        if not self._keyed:
            await self._ledger.set_token_key(self._token_key)
            self._keyed = True
        await self._deaths()
        asked = await self._ledger.asked()
        self._doomed(asked.doomed)
        await self._demands.waking(asked.waking)
        for agent in list(self.fleet.agents.values()):
            await self._agent(agent)
        self._demands.archived(asked.archived)
        self._leaving.left(asked.left)
        await self._demands.deletes(asked.deletes)
        await self._demands.labels()
        if self._now() >= self._quota_at:
            self._quota_at = self._now() + self._settings.quota_every
            self._begin("quota", self._quota())
        if self._machine.outlives and self._now() >= self._sweep_at:
            self._sweep_at = self._now() + self._settings.sweep_every
            self._begin("sweep", self._sweeper.sweep())

    async def _deaths(self) -> None:
        for death in self._machine.dead():
            held = self.fleet.sandboxes.get(death.sandbox)
            if held is not None and held.ending:
                continue
            if held is not None and not held.labelled:
                await self._demands.label(held)
            of = await self._ledger.gone(death.sandbox, death.reason)
            if held is not None and not held.claimed and not held.session:
                self._died_in_pool(held, death.reason, death.log_tail)
            await self._forget(death.sandbox, of)

    def _died_in_pool(self, held: Held, reason: str, tail: tuple[str, ...]) -> None:
        agent = self.fleet.agents.get((held.descriptor.tenant, held.descriptor.agent))
        state = agent.find(held.descriptor.revision) if agent is not None else None
        if state is not None and decide.lost_young(born=held.born, now=self._now()):
            state.failures, state.dying = decide.failed(state.failures, now=self._now()), True
            state.error = str(MakeFailed(f"a ready sandbox ended by itself ({reason})", tail))

    def _doomed(self, asked: Mapping[str, str]) -> None:
        for sandbox, reason in asked.items():
            held = self.fleet.sandboxes.get(sandbox)
            if held is not None:
                held.ending = True
            self._begin(f"end {sandbox}", self._end(sandbox, reason))
        for sandbox, held in self.fleet.sandboxes.items():
            if held.ending:  # a ledger that was lost meanwhile no longer says so
                self._begin(f"end {sandbox}", self._end(sandbox, "its end was begun before"))

    async def _end(self, sandbox: str, reason: str) -> None:
        held = self.fleet.sandboxes.get(sandbox)
        if held is not None and not held.labelled:
            await self._demands.label(held)
        await self._machine.destroy(sandbox, reason)
        await self._forget(sandbox, await self._ledger.gone(sandbox, reason))

    async def _forget(self, sandbox: str, of: tuple[str, str]) -> None:
        """The end is reported, and the ledger said `of` which session (its state now): drops the sandbox, and a volume that is nobody's.

        volume is marked as bound | session, state   | claimed | volume
        --------------------------|------------------|---------|----------------------------------------------
        any                       | any              | any     | goes if it was scratch
        yes                       | any              | any     | stays
        no                        | one, in another  | any     | stays: the mark had no time to be made
        no                        | new, archived    |         | goes: the session has no files, or has them in a checkpoint
        no                        | none             | yes     | stays: a ledger that lost the claim cannot say no
        no                        | otherwise        |         | goes

        `doubtful` stands for a claim of a ledger that was lost: then it stays.
        """
        self._machine.forget(sandbox)
        held = self.fleet.sandboxes.pop(sandbox, None)
        if held is None:
            return
        key, state = of
        known_free = not held.doubtful and (state in ("new", "archived") if key else not held.claimed)
        one = held.descriptor
        if held.scratch or (self._machine.bound(one.tenant, one.agent, one.volume) is None and known_free):
            await self._machine.remove_volume(one.tenant, one.agent, one.volume)

    # Pools

    async def _agent(self, agent: AgentState) -> None:
        plans, before = self.fleet.plans(agent), (agent.conditions, agent.published)
        for plan in plans:
            state = agent.find(plan.revision)
            if state is None:
                continue
            if plan.keep and not state.prepared:
                self._prepare(state)
            await self._pool(state, pooled=plan.pooled)
            if not plan.keep and not self.fleet.of_revision(state.revision.key):
                agent.revisions.remove(state)
                self._begin(f"release {state.revision.key}", self._machine.release(state.revision.key))
        fleet.mark_pool(agent, now=self._now())
        await self._publish(agent, plans)
        if (agent.conditions, agent.published) != before:
            self.changed(agent.tenant, agent.agent)

    def _prepare(self, state: RevisionState) -> None:
        left = state.failures.at + decide.pause(state.failures) - self._now() if state.failures.count else 0.0
        if left <= 0:
            self._works.begin(f"prepare {state.revision.key}", self._prepared(state), lambda: self._look_at(state))

    def _look_at(self, state: RevisionState) -> None:
        self._looks.at(state.revision.tenant, state.revision.agent)

    async def _prepared(self, state: RevisionState) -> None:
        try:
            await self._machine.prepare(state.revision)
        except MakeFailed as error:
            self._note_failure(state, error)
            return
        state.prepared = True
        if state.revision.spec.pool.min == 0:
            state.served()

    async def _pool(self, state: RevisionState, *, pooled: bool) -> None:
        key, revision = state.revision.key, state.revision
        held, wanted = self.fleet.ready(key), revision.spec.pool.min if pooled else 0
        if not held and wanted == 0:
            return
        # Counted in the same instant: one that gets ready during what follows is in neither list else, and a further one is begun.
        starting = self._works.count(f"fill {key} ")
        for one in held:
            if not one.offered:
                await self._ledger.offer(one.descriptor)
                one.offered = True
        if held:
            waiting = set(await self._ledger.pool(revision.tenant, revision.agent, revision.revision))
            for one in held:
                one.claimed = one.descriptor.sandbox not in waiting
                if state.dying and (one.claimed or not decide.lost_young(born=one.born, now=self._now())):
                    state.dying = False
                    state.served()  # a full pool gets no further one that would say so
        ready = [one.descriptor.sandbox for one in held if not one.claimed]
        most = revision.spec.pool.max if pooled else 0
        plan = decide.pool(decide.PoolSeen(ready, starting, state.failures), wanted=wanted, most=most, now=self._now())
        for sandbox in plan.end:
            await self._ledger.doom(sandbox, "no longer wanted in the pool")
        if state.prepared:
            for _ in range(plan.start):
                sandbox = names.new_sandbox_id()
                self._works.begin(f"fill {key} {sandbox}", self._fill(state, sandbox), lambda: self._look_at(state))

    async def _fill(self, state: RevisionState, sandbox: str) -> None:
        revision = state.revision
        volume = self._machine.create_volume(revision)
        try:
            descriptor = await self._machine.make(revision, sandbox, volume)
        except MakeFailed as error:
            await self._machine.remove_volume(revision.tenant, revision.agent, volume)
            self._note_failure(state, error)
            return
        scratch = not revision.spec.workspace.file_system
        self.fleet.sandboxes[sandbox] = Held(descriptor, revision.key, self._now(), scratch=scratch)
        state.served()
        if not self.fleet.knows(state):
            await self._end(sandbox, "its revision was removed")

    def _note_failure(self, state: RevisionState, error: MakeFailed) -> None:
        if state.failures.count == 0:
            log.warning("%s does not get ready: %s", state.revision.key, error)
        state.failures = decide.failed(state.failures, now=self._now())
        state.error = str(error)

    async def _publish(self, agent: AgentState, plans: Sequence[decide.RevisionPlan]) -> None:
        made_of = self.fleet.made_of(agent, plans)
        if agent.published and agent.published_of == made_of:
            return
        entry = self.fleet.entry(agent, plans)
        text = entry.to_json() if entry is not None else ""
        if entry is not None and text != agent.published:
            await self._ledger.publish(entry)
            agent.published = text
        agent.published_of = made_of

    # The rest

    async def _quota(self) -> None:
        for sandbox, reason in await self._machine.unfit():
            held = self.fleet.sandboxes.get(sandbox)
            if held is not None and not held.ending:
                await self._ledger.doom(sandbox, reason)
        await self._leaving.look()

    async def _close(self) -> None:
        await self._works.close()
        if self._machine.outlives:
            return
        ended = list(self.fleet.sandboxes)
        with contextlib.suppress(TimeoutError, LedgerError, OSError):
            async with asyncio.timeout(self._settings.drain_within):
                await self._machine.close()
                for sandbox in ended:
                    await self._forget(sandbox, await self._ledger.gone(sandbox, "the platform was stopped"))


def _nobody(tenant: str, agent: str) -> None:
    """Nobody has asked to be told yet."""
