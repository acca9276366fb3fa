"""What was there before: sandboxes of an earlier run, and a ledger that was lost. Layer: the floor; a part of `loop.Provider`.

Everything here may be repeated from its beginning, and is, until all of it was written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from moorage_api.ledger.records import Descriptor
from moorage_api.ledger.script import LedgerError, Lost
from moorage_api.provider.base import Ledger, Machine, Revision
from moorage_api.provider.demands import Begin, End
from moorage_api.provider.fleet import Fleet, Held, RevisionState


class Returning:
    """`found` makes a lost ledger whole enough to write to; `begin` runs named work, `end` ends a sandbox; `pause` in seconds."""

    def __init__(
        self,
        fleet: Fleet,
        ledger: Ledger,
        machine: Machine,
        *,
        now: Callable[[], float],
        found: Callable[[], Awaitable[object]],
        begin: Begin,
        end: End,
    ) -> None:
        self._fleet = fleet
        self._ledger = ledger
        self._machine = machine
        self._now = now
        self._found = found
        self._begin = begin
        self._end = end

    async def adopt(self, *, pause: float) -> None:
        """Reports what died with an earlier run, and takes over what lives. Waits for a ledger that is away."""
        for sandbox in await self._machine.leftovers():
            while True:
                try:
                    await self._ledger.gone(sandbox, "the platform was restarted")
                    break
                except Lost:
                    await self._found()
                except LedgerError:
                    await asyncio.sleep(pause)
            self._machine.forget(sandbox)
        for revision, descriptor in await self._machine.adopted():
            self._take_over(revision, descriptor)

    def _take_over(self, revision: Revision, one: Descriptor) -> None:
        """A ready sandbox of an earlier run; its revision is an old one if it is not the newest."""
        agent = self._fleet.agents.get((one.tenant, one.agent))
        state = agent.find(one.revision) if agent is not None else None
        if agent is not None and state is None:
            state = RevisionState(revision)
            agent.revisions.append(state)
        if state is not None:
            state.prepared = True
            state.served()
        bound = self._machine.bound(one.tenant, one.agent, one.volume)
        scratch = not revision.spec.workspace.file_system
        held = Held(one, revision.key, self._now(), session=bound[0] if bound is not None else "", scratch=scratch)
        held.labelled = bound is not None
        self._fleet.sandboxes[one.sandbox] = held
        if agent is None:
            self._begin(f"end {one.sandbox}", self._end(one.sandbox, "the agent was removed"))

    async def restore(self) -> None:
        """Founds the ledger if need be, and gives it the bound volumes; what the loop offers and publishes counts as not told yet."""
        await self._found()
        for agent in self._fleet.agents.values():
            agent.published = ""
        for held in self._fleet.sandboxes.values():
            one = held.descriptor
            if not held.session and self._machine.bound(one.tenant, one.agent, one.volume) is None:
                held.doubtful |= held.claimed
                held.offered = held.claimed = False
        for tenant, name, volume in self._machine.volumes():
            bound = self._machine.bound(tenant, name, volume)
            identity = self._machine.label(tenant, name, volume)
            if bound is not None and identity is not None and self._fleet.on_volume(volume) is None:
                await self._ledger.label(bound[0], bound[1], volume, identity)
