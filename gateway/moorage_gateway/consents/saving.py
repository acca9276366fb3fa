"""Renewed consents that the store has not taken yet. Layer: engine; I/O by the store and Redis.

A refresh token that its server rotates is used up when the answer comes: what came is the only one that counts. It is kept here, sealed as
the store will have it, and its lock in Redis is kept, so that no other gateway renews with the one that is used up. Both until the store
takes it, for `SAVE_S` at most: then the lock is let go, and the next call of that user begins anew to save it.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass

from moorage_api.ledger.consents import ConsentLedger
from moorage_api.ledger.script import LedgerError
from moorage_gateway.clock import Clock
from moorage_gateway.consents.records import ConsentRecords, Sealed
from moorage_gateway.consents.shapes import Subject
from moorage_gateway.store import StoreError, StoreUnavailable

SAVE_S = 3600.0
"""As long as an access token usually counts."""
WRITE_S = 20.0
"""For one try."""
AGAIN_S, PAUSE_S = 0.5, 10.0
"""Between two tries, twice as long each time. A try and a pause are shorter than the lock lasts (`LOCK_MS`)."""
LOOK_S, RARE_S = 0.05, 1.0
"""Between two looks at a lock that another one holds, twice as long each time."""
LOCKED_S = 12.0
"""For whoever holds the lock: longer than a token server is waited for. Who holds it still has something to save."""

log = logging.getLogger(__name__)


@dataclass
class Hold:
    """A lock that is held: `now`, the least version of what is written under it. `lost`: it was not held all the time since the store was
    looked at, so that somebody else may have written."""

    ledger: ConsentLedger
    subject: Subject
    holder: str
    now: int
    lost: bool = False

    async def longer(self) -> bool:
        """Held from now on, for as long as at first; False: somebody else holds it. Raises LedgerError."""
        if await self.ledger.keep(self.subject.place, self.holder):
            return True
        self.lost = True
        return await self.ledger.lock(self.subject.place, self.holder) > 0

    async def stands(self) -> bool:
        """Whether nobody else can have written since the store was looked at. Raises LedgerError."""
        return not self.lost and await self.ledger.holder(self.subject.place) == self.holder and not self.lost


@asynccontextmanager
async def alone(ledger: ConsentLedger, clock: Clock, subject: Subject) -> AsyncIterator[Hold]:
    """Nobody else writes this user's tokens meanwhile. Raises LedgerError; StoreUnavailable where another one does for `LOCKED_S`."""
    holder, deadline, pause = secrets.token_hex(16), clock.monotonic() + LOCKED_S, LOOK_S
    try:  # also around the lock: who is cancelled after Redis took it leaves none behind, and only its holder's is taken off
        while not (now := await ledger.lock(subject.place, holder)):
            if clock.monotonic() >= deadline:
                raise StoreUnavailable("another gateway has a token of this user that the store does not take")
            await clock.sleep(pause)
            pause = min(2 * pause, RARE_S)
        yield Hold(ledger, subject, holder, now)
    finally:
        try:
            await ledger.unlock(subject.place, holder)
        except LedgerError:
            log.info("a lock of consents runs out by itself")


class Saving:
    """Saves them."""

    def __init__(self, records: ConsentRecords, clock: Clock) -> None:
        self._records = records
        self._clock = clock

    async def saved(self, sealed: Sealed, hold: Hold, held: AsyncExitStack) -> bool:
        """Whether the store has it, or something newer. `held`: the lock, let go at the end."""
        deadline, pause = self._clock.monotonic() + SAVE_S, AGAIN_S
        async with held:
            while not (await self._superseded(sealed, hold) or await self._tried(sealed)):
                if self._clock.monotonic() >= deadline:
                    log.warning(
                        "a renewed consent could not be saved for %d s: it is kept until its user's next call", SAVE_S
                    )
                    return False
                await self._clock.sleep(pause)
                pause = min(2 * pause, PAUSE_S)
                with suppress(LedgerError):  # nobody else can take it meanwhile
                    await hold.longer()
            return True

    async def _tried(self, sealed: Sealed) -> bool:
        try:
            async with asyncio.timeout(WRITE_S):
                await self._records.put(sealed)
        except (StoreError, TimeoutError):
            return False
        return True

    async def _superseded(self, sealed: Sealed, hold: Hold) -> bool:
        """Whether somebody wrote while the lock was not ours."""
        if not hold.lost:
            return False
        try:
            async with asyncio.timeout(WRITE_S):
                found = await self._records.latest(sealed.subject)
        except (StoreError, TimeoutError):
            return False
        hold.lost = False  # as far as the store goes: where the lock is somebody else's, the next look at it says so
        return found is not None and found.version > sealed.version
