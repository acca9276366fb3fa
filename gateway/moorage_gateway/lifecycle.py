"""Idle, maximum lifetime, stop, retention: looks at sessions when they are due and does what `rules.look` says.

A drain asks the ledger first (no turn), then the shim, which alone sees relays (turns.md §5). Any gateway may look; every step
is guarded by the session's epoch.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from moorage_api.errors import ApiError
from moorage_api.ledger.records import SessionRecord
from moorage_api.ledger.script import Lost, Unreachable
from moorage_api.ledger.sessions import SessionLedger
from moorage_api.wire.shim import Drain
from moorage_gateway.catalog import Catalog
from moorage_gateway.clock import Clock
from moorage_gateway.recovery import Recovery
from moorage_gateway.turns import rules
from moorage_gateway.upstream import Route, ShimLost, ShimRefused, Shims

LOOK_S = 1.0
BATCH = 32
SPACING_MS = 15_000  # another gateway has looked meanwhile; nothing is lost by looking again

log = logging.getLogger(__name__)


class Lifecycle:
    """`run` loops; `forget` (given) removes a session past its retention for good."""

    def __init__(
        self,
        ledger: SessionLedger,
        shims: Shims,
        catalog: Catalog,
        clock: Clock,
        recovery: Recovery,
        forget: Callable[[SessionRecord], Awaitable[None]],
    ) -> None:
        self._ledger = ledger
        self._shims = shims
        self._catalog = catalog
        self._clock = clock
        self._recovery = recovery
        self._forget = forget

    async def run(self) -> None:
        """Looks at what is due, every second, until cancelled."""
        while True:
            await self._clock.sleep(LOOK_S)
            try:
                await self.look()
            except Lost:
                try:
                    await self._recovery.recover()
                except Unreachable:
                    continue
            except (Unreachable, ApiError):
                continue

    async def look(self) -> None:
        """One pass over the sessions that are due."""
        keys = await self._ledger.due(self._clock.now_ms(), BATCH)
        await asyncio.gather(*(self._one(key) for key in keys))

    async def _one(self, key: str) -> None:
        record = await self._ledger.session(key)
        now = self._clock.now_ms()
        if record is None:
            return
        entry = self._catalog.get(record.tenant, record.agent)
        life = rules.lifetimes(entry.spec if entry is not None else {})
        verdict = rules.look(
            record.state,
            running=bool(record.running),
            active=record.active,
            claimed=record.claimed or record.bound or record.created,
            stop=record.stop,
            life=life,
            now=now,
        )
        await self._ledger.touch(key, next_look_ms=max(verdict.at, now + 1_000))
        if verdict.action == "drain":
            await self.drain(record, verdict.idle_before, verdict.reason)
        elif verdict.action == "delete":
            await self._forget(record)

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
            quiet = (
                refusal.word == "unbound"
            )  # the shim itself says so: since the record was read it may have been bound
        if not quiet:
            await self._ledger.undrain(record.key, record.epoch)
            return False
        return await self._ledger.hibernated(record.key, record.epoch, reason) == "OK"
