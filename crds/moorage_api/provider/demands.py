"""What single sessions ask of the provider: a sandbox on their own volume, an end to it or to all their files, a label on it.

Layer: the floor; a part of `loop.Provider`, which owns its tasks. Level-triggered as the loop is: each call looks at all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from moorage_api import names
from moorage_api.ledger.records import SessionIdentity, SessionRecord
from moorage_api.provider import decide
from moorage_api.provider.base import Ledger, Machine, MakeFailed
from moorage_api.provider.decide import Failures
from moorage_api.provider.fleet import Fleet, Held

Begin = Callable[[str, Coroutine[Any, Any, None]], None]
End = Callable[[str, str], Coroutine[Any, Any, None]]


class Demands:
    """Sessions that wake, sessions that were deleted, volumes that need a label. `begin` runs named work, `end` ends a sandbox."""

    def __init__(
        self, fleet: Fleet, ledger: Ledger, machine: Machine, *, now: Callable[[], float], begin: Begin, end: End
    ) -> None:
        self._fleet = fleet
        self._ledger = ledger
        self._machine = machine
        self._now = now
        self._begin = begin
        self._end = end
        self._failures: dict[tuple[str, int], Failures] = {}

    async def waking(self, keys: Sequence[str]) -> None:
        """Begins a sandbox for every one of these sessions that waits for one."""
        for key in keys:
            record = await self._ledger.session(key)
            if record is None or record.state != "waking":
                continue
            failures = self._failures.get((key, record.epoch), Failures())
            if failures.count and self._now() < failures.at + decide.pause(failures):
                continue
            self._begin(f"wake {key} {record.epoch}", self._awaken(record))
        known = set(keys)
        self._failures = {k: v for k, v in self._failures.items() if k[0] in known}

    async def _awaken(self, record: SessionRecord) -> None:
        agent = self._fleet.agents.get((record.tenant, record.agent))
        state = (agent.find(record.revision) or agent.newest) if agent is not None else None
        if state is None:
            why = agent.conditions.message if agent is not None else None
            await self._not_awake(record, why or f"the agent {record.agent} is not deployed on this platform")
            return
        await self._end_former(record)
        revision, fresh = state.revision, False
        volume = record.volume
        if not volume or not self._machine.has_volume(record.tenant, record.agent, volume):
            volume, fresh = self._machine.create_volume(revision), True
        sandbox = names.new_sandbox_id()
        try:
            if not state.prepared:
                await self._machine.prepare(revision)
                state.prepared = True
            descriptor = await self._machine.make(revision, sandbox, volume)
        except MakeFailed as error:
            if fresh:
                await self._machine.remove_volume(record.tenant, record.agent, volume)
            await self._not_awake(record, str(error))
            return
        state.served()
        scratch = not revision.spec.workspace.file_system
        held = Held(descriptor, revision.key, self._now(), session=record.key, scratch=scratch)
        self._fleet.sandboxes[sandbox] = held
        if not await self._ledger.ready(record.key, record.epoch, descriptor):
            held.ending = True
            await self._end(sandbox, "its session no longer needs it")
            return
        held.claimed = True

    async def _end_former(self, record: SessionRecord) -> None:
        """Ends what a provider that died had made for this session and not told: two never run on one workspace."""
        for sandbox, held in list(self._fleet.sandboxes.items()):
            if held.session == record.key and held.descriptor.volume == record.volume and not held.ending:
                held.ending = True
                await self._end(sandbox, "its provider ended before it was told of")

    async def _not_awake(self, record: SessionRecord, why: str) -> None:
        failures = self._failures.get((record.key, record.epoch), Failures())
        self._failures[record.key, record.epoch] = decide.failed(failures, now=self._now())
        await self._ledger.unready(record.key, record.epoch, why)

    def archived(self, volumes: Mapping[str, str]) -> None:
        """Removes the volumes (by session) whose files are in a checkpoint by now."""
        for key, volume in volumes.items():
            if self._fleet.on_volume(volume) is None:  # else its sandbox is being ended; the volume goes after it
                self._begin(f"archive {key}", self._archive(key, volume))

    async def _archive(self, key: str, volume: str) -> None:
        for tenant, agent, one in self._machine.volumes():
            bound = self._machine.bound(tenant, agent, one) if one == volume else None
            if bound is not None and bound[0] == key:
                await self._machine.remove_volume(tenant, agent, one)
        await self._ledger.unkept(key, volume)

    async def deletes(self, keys: Sequence[str]) -> None:
        """Removes the files of these deleted sessions, whose sandbox has ended or is being ended."""
        for key in keys:
            record = await self._ledger.session(key)
            volume = record.volume if record is not None else ""
            held = self._fleet.on_volume(volume) if volume else None
            if held is not None:  # the files go after it, whether the ledger doomed it or never heard of it
                sandbox = held.descriptor.sandbox
                self._begin(f"end {sandbox}", self._end(sandbox, "session deleted"))
                continue
            self._begin(f"delete {key}", self._delete(key, record))

    async def _delete(self, key: str, record: SessionRecord | None) -> None:
        if record is not None and record.volume:
            await self._machine.remove_volume(record.tenant, record.agent, record.volume)
        for tenant, agent, volume in self._machine.volumes():
            bound = self._machine.bound(tenant, agent, volume)
            if bound is not None and bound[0] == key and self._fleet.on_volume(volume) is None:
                await self._machine.remove_volume(tenant, agent, volume)
        await self._ledger.removed(key)

    async def labels(self) -> None:
        """Notes on each bound volume whose session it holds."""
        # Most of what is not labelled waits in a pool: that is told without a step into the loop. Where volumes outlive this process nobody
        # else writes on them.
        for held in [one for one in self._fleet.sandboxes.values() if not one.labelled]:
            one = held.descriptor
            if (
                held.claimed or held.session
                if self._machine.outlives
                else self._machine.bound(one.tenant, one.agent, one.volume) is not None
            ):
                await self.label(held)

    async def label(self, held: Held) -> None:
        """The same for one, if it is bound."""
        one = held.descriptor
        bound = self._machine.bound(one.tenant, one.agent, one.volume)
        if bound is not None:
            key, epoch = bound
        elif self._machine.outlives and (held.claimed or held.session):
            key, epoch = held.session or await self._ledger.holder(one.sandbox), 0
        else:
            return
        record = await self._ledger.session(key) if key else None
        if record is None:
            return
        if bound is None:  # nothing on the volume says so yet: the ledger does, once the gateway has bound it
            if record.sandbox != one.sandbox or not record.bound:
                return
            epoch = record.epoch
        identity = SessionIdentity(
            one.tenant, one.agent, record.user, record.session, record.partition, record.revision
        )
        await self._machine.set_label(one, epoch, identity)
        held.labelled = True
