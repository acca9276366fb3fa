"""Idle, maximum lifetime, stop, archive, retention, a volume out of reach: looks at sessions when they are due and does what `rules.look`
says.

A drain asks the ledger first (no turn), then the shim, which alone sees relays (turns.md §5); what it holds is kept in a checkpoint before
it ends. Any gateway may look; every step is guarded by the session's epoch. What takes long holds up no other session.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol

from moorage_api.errors import ApiError
from moorage_api.ledger.records import SessionRecord
from moorage_api.ledger.script import Lost, Unreachable
from moorage_api.ledger.sessions import SessionLedger
from moorage_api.wire.checkpoints import Why
from moorage_api.wire.shim import Drain
from moorage_gateway.catalog import Catalog
from moorage_gateway.clock import Clock
from moorage_gateway.recovery import Recovery
from moorage_gateway.store import StoreUnavailable
from moorage_gateway.turns import rules
from moorage_gateway.upstream import Route, ShimLost, ShimRefused, Shims

LOOK_S = 1.0
BATCH = 32
TOGETHER_S = 5.0  # a look waits for its sessions no longer: one that takes longer goes on beside the next looks
ARCHIVES = 2  # at a time: each reads a session's checkpoint whole
MOVES = 4  # the same
MOVE_SOON_MS = 1_000
MOVE_AGAIN_MS = 10_000  # while its checkpoint is being read, or the store does not answer
STUCK_AGAIN_MS = 300_000  # one that has no checkpoint, or damaged ones only: all of them are read again
ARCHIVE_SOON_MS = 30_000
ARCHIVE_AGAIN_MS = 3_600_000  # after one that was not to be had, or while it is being read

log = logging.getLogger(__name__)


class Keeper(Protocol):
    """What is kept of sessions whose sandboxes end; `files.Files` is the real one."""

    async def keep(self, record: SessionRecord, route: Route, why: Why) -> str: ...

    async def archive(self, record: SessionRecord) -> bool: ...

    async def move(self, record: SessionRecord) -> bool: ...


class Lifecycle:
    """`run` loops; `forget` (given) removes a session past its retention for good. `archive_ms`: after so long idle a hibernated
    session's volume goes, if its checkpoint has everything; 0: never.
    """

    def __init__(
        self,
        ledger: SessionLedger,
        shims: Shims,
        catalog: Catalog,
        clock: Clock,
        recovery: Recovery,
        forget: Callable[[SessionRecord], Awaitable[None]],
        files: Keeper,
        archive_ms: int,
    ) -> None:
        self._files = files
        self._archive_ms = archive_ms
        self._busy: dict[str, asyncio.Task[None]] = {}
        self._archiving: dict[str, asyncio.Task[None]] = {}
        self._moving: dict[str, asyncio.Task[None]] = {}
        self._ledger = ledger
        self._shims = shims
        self._catalog = catalog
        self._clock = clock
        self._recovery = recovery
        self._forget = forget

    async def run(self) -> None:
        """Looks at what is due, every second, until cancelled."""
        try:
            while True:
                await self._clock.sleep(LOOK_S)
                await self._mended(self.look)
        finally:
            late = [*self._busy.values(), *self._archiving.values(), *self._moving.values()]
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def look(self) -> None:
        """One pass over the sessions that are due; those that take long go on after it."""
        due = await self._ledger.due(self._clock.now_ms(), BATCH)
        fresh = [key for key in due if key not in self._busy][: BATCH - len(self._busy)]
        for key in fresh:
            self._begin(self._busy, key, functools.partial(self._one, key, due[key]))
        begun = [self._busy[key] for key in fresh]
        if begun:
            await asyncio.wait(begun, timeout=TOGETHER_S)

    def _begin(self, among: dict[str, asyncio.Task[None]], key: str, work: Callable[[], Awaitable[None]]) -> None:
        task = among[key] = asyncio.get_running_loop().create_task(self._mended(work))
        task.add_done_callback(functools.partial(self._ended, among, key))

    def _ended(self, among: dict[str, asyncio.Task[None]], key: str, task: asyncio.Task[None]) -> None:
        among.pop(key, None)
        if not task.cancelled() and (fault := task.exception()) is not None:
            log.error("looking at session %s failed", key, exc_info=fault)

    async def _mended(self, work: Callable[[], Awaitable[None]]) -> None:
        """Does it; what fails now comes again when it is due."""
        try:
            await work()
        except Lost:
            with suppress(Unreachable):
                await self._recovery.recover()
        except (Unreachable, StoreUnavailable, ApiError):
            return

    async def _one(self, key: str, seen: int) -> None:
        record = await self._ledger.session(key)
        now = self._clock.now_ms()
        if record is None:
            return
        if record.leaves:
            later = STUCK_AGAIN_MS if record.stuck else MOVE_AGAIN_MS
            await self._ledger.defer(key, seen, now + (later if self._move(record) else MOVE_SOON_MS))
            return
        entry = self._catalog.get(record.tenant, record.agent)
        life = rules.lifetimes(entry.spec if entry is not None else {}, archive_ms=self._archive_ms)
        verdict = rules.look(
            record.state,
            running=bool(record.running),
            active=record.active,
            claimed=record.claimed or record.bound or record.created,
            stop=record.stop,
            life=life,
            now=now,
        )
        at = verdict.at
        if verdict.action == "archive":
            at = now + (ARCHIVE_AGAIN_MS if self._archive(record) else ARCHIVE_SOON_MS)
        await self._ledger.defer(key, seen, max(at, now + 1_000))
        if verdict.action == "drain":
            await self.drain(record, verdict.idle_before, verdict.reason)
        elif verdict.action == "delete":
            await self._forget(record)

    def _archive(self, record: SessionRecord) -> bool:
        """Begins it, if few others run: they read much, and a look at other sessions must not wait for them."""

        async def work() -> None:
            await self._files.archive(record)

        room = len(self._archiving) < ARCHIVES and record.key not in self._archiving
        if room:
            self._begin(self._archiving, record.key, work)
        return room

    def _move(self, record: SessionRecord) -> bool:
        """Begins it, as an archive: somebody waits for most of these, so they do not wait for archives."""

        async def work() -> None:
            await self._files.move(record)

        room = len(self._moving) < MOVES and record.key not in self._moving
        if room:
            self._begin(self._moving, record.key, work)
        return room

    async def drain(self, record: SessionRecord, idle_before: int, reason: str) -> bool:
        """True when the session hibernates: its sandbox ends, its workspace stays."""
        if await self._ledger.drain(record.key, record.epoch, idle_before=idle_before) != "OK":
            return False
        route = Route(record.key, record.sandbox, record.endpoint, record.secret, record.epoch, record.volume)
        call = Drain(session=record.key, epoch=record.epoch, idle_before=idle_before or self._clock.now_ms())
        try:
            quiet = await self._shims.drain(route, call)
        except ShimLost as fault:
            await self._ledger.doom(record.sandbox, f"no answer to drain: {fault}")
            return False
        except ShimRefused as refusal:
            quiet = False
            if refusal.word == "unbound":
                # It holds nothing of the session, whose files may be in a checkpoint still: what `gone` knows to tell apart.
                await self._ledger.doom(record.sandbox, reason)
                return False
        if not quiet:
            await self._ledger.undrain(record.key, record.epoch)
            return False
        saved = await self._files.keep(record, route, "hibernate")
        return await self._ledger.hibernated(record.key, record.epoch, reason, saved) == "OK"
