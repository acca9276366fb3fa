"""Turns that Redis lost together with their owner are given up: `failed`, `ledger_lost` (turns.md §7).

Found by their object `accepted`; whoever restores one in time wins, whoever comes too late is barred.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

import orjson

from moorage_api.ledger.records import Entry, TurnRecord
from moorage_api.ledger.script import Lost, Unreachable
from moorage_api.ledger.turns import TurnLedger
from moorage_gateway.clock import Clock
from moorage_gateway.recovery import Recovery
from moorage_gateway.store.errors import StoreUnavailable
from moorage_gateway.turns import archive
from moorage_gateway.turns.held import Held
from moorage_gateway.turns.keeper import template_of
from moorage_gateway.turns.normalise import Normaliser, created_event
from moorage_gateway.turns.source_reader import failed

PROBE_S = 5.0
SWEEP_S = 3600.0
LOST_S = 30.0  # turns.md §7: accepted, but no response, owner or record for 30 s


class LostSweep:
    """Gives up turns that Redis lost together with their owner: `failed`, `ledger_lost` (turns.md §7)."""

    def __init__(
        self, ledger: TurnLedger, store: archive.Archive, clock: Clock, held: Callable[[str], Held | None]
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._clock = clock
        self._held = held
        self._suspects: dict[str, float] = {}

    async def run(self, recovery: Recovery) -> None:
        """Notices losses even in an idle process; sweeps at the start, after each loss until no suspect is left, and hourly."""
        losses, swept_at = -1, self._clock.monotonic()
        while True:
            await self._clock.sleep(PROBE_S)
            try:
                await self._ledger.probe()
                hourly = self._clock.monotonic() - swept_at >= SWEEP_S
                if recovery.losses != losses or self._suspects or hourly:
                    losses, swept_at = recovery.losses, self._clock.monotonic()
                    await self.sweep()
            except Lost:
                with suppress(Unreachable):
                    await recovery.recover()
            except (Unreachable, StoreUnavailable):
                continue

    async def sweep(self) -> int:
        """One pass over accepted turns; returns how many were given up. Called again while suspects remain."""
        given_up, after, seen = 0, "", set()
        while ids := await self._store.open_turns(after):
            for response in ids:
                seen.add(response)
                given_up += await self._look(response)
            after = ids[-1]
        self._suspects = {k: v for k, v in self._suspects.items() if k in seen}
        return given_up

    async def _look(self, response: str) -> int:
        if self._held(response) is not None or await self._ledger.turn(response) is not None:
            self._suspects.pop(response, None)
            return 0
        since = self._suspects.setdefault(response, self._clock.monotonic())
        if self._clock.monotonic() - since < LOST_S:
            return 0
        accepted = await self._store.accepted(response)
        if accepted is None:
            return 0
        tenant = str(accepted["meta"]["tenant"])
        if not await self._store.has(tenant, response):
            if await self._ledger.bar(response) != "OK":
                return 0
            await self._store.put_lost(tenant, response, lost_document(response, accepted, self._clock.now_ms()))
        await self._store.settled(response)
        self._suspects.pop(response, None)
        return 1


def lost_document(response: str, accepted: dict[str, object], now_ms: int) -> bytes:
    """The end of a turn whose log is gone: created, then failed."""
    meta = accepted["meta"]
    assert isinstance(meta, dict)
    record = TurnRecord.parse(
        response,
        {
            "state": "failed",
            "outcome": "failed",
            "session": "",
            "fence": "0",
            "meta": orjson.dumps(meta).decode(),
            "accepted": str(accepted["accepted"]),
            "ended": str(now_ms),
        },
    )
    assert record is not None
    template = template_of(record)
    events: Sequence[dict[str, object]] = created_event(template, queued=bool(accepted.get("queued")))
    normaliser = Normaliser(template, list(events), continues=True)
    finish = normaliser.finish(
        failed("ledger_lost", "The platform lost the turn's log together with its owner; send the request again."),
        completed_at=now_ms // 1000,
    )
    log_entries = [Entry(0, 0, orjson.dumps(e)) for e in [*events, *finish.events, finish.terminal]]
    return archive.compose(record, [], log_entries, [])
