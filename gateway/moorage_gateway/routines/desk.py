"""What people do with routines: look at them, run one now, suspend and resume. Layer: gateway; called by `routes/control_routines.py`.

Every method may raise LedgerError and StoreUnavailable.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from moorage_api.catalog import RoutineEntry
from moorage_api.catalog import field as catalog_field
from moorage_api.kinds.routine import schedule_of
from moorage_api.ledger.progress import Told
from moorage_api.ledger.routines import RoutineLedger
from moorage_gateway.clock import Clock
from moorage_gateway.routines import deciding
from moorage_gateway.routines.history import History
from moorage_gateway.routines.known import Known
from moorage_gateway.routines.state import Ended, Run, State

TIMES = 5
"""Due times that are shown ahead."""
TRIES = 5
"""Times a change is written anew because the scheduler was faster."""


@dataclass(frozen=True)
class Shown:
    """A routine as it is now. `next`: its next due times (ms), none while it is suspended or stopped; `progress`: how far the run that
    goes on says that it is."""

    known: Known
    entry: RoutineEntry
    state: State
    version: int
    next: tuple[int, ...]
    progress: Told | None = None

    @property
    def status(self) -> Literal["active", "suspended", "stopped"]:
        """Whether due times are run."""
        if self.known.spec.suspend or self.state.suspended:
            return "suspended"
        return "stopped" if self.state.stopped else "active"


class Desk:
    """Over the ledger and the history."""

    def __init__(
        self,
        ledger: RoutineLedger,
        history: History,
        clock: Clock,
        *,
        run_id: Callable[[], str] = deciding.new_run,
    ) -> None:
        self._ledger = ledger
        self._history = history
        self._clock = clock
        self._run_id = run_id

    async def listed(self, tenant: str) -> list[Shown]:
        """The tenant's routines by name."""
        entries = sorted((e for e in await self._ledger.entries() if e.tenant == tenant), key=lambda e: e.name)
        found = [await self.get(tenant, entry.name) for entry in entries]
        return [one for one in found if one is not None]

    async def get(self, tenant: str, name: str) -> Shown | None:
        """One of them."""
        found = await self._ledger.look(catalog_field(tenant, name))
        if found is None:
            return None
        entry = RoutineEntry.from_json(found.spec)
        known, state = Known.of(name, entry.spec), State.from_json(found.state)
        going = state.run.responses[-1:] if state.run is not None else ()
        progress = await self._ledger.progress(going[0]) if going else None
        shown = Shown(known, entry, state, found.version, (), progress)
        return replace(shown, next=self._ahead(known)) if shown.status == "active" else shown

    async def runs(self, tenant: str, name: str, most: int) -> list[Ended]:
        """Runs that ended, the newest first."""
        return await self._history.newest(tenant, name, most)

    async def run(self, tenant: str, name: str) -> Run | None:
        """Runs it now; None where a run goes on, or there is no such routine any more."""
        for _ in range(TRIES):
            shown = await self.get(tenant, name)
            if shown is None:
                return None
            decision = deciding.by_hand(shown.known, shown.state, self._clock.now_ms(), run_id=self._run_id)
            if decision is None:
                return None
            # Due at once: whichever gateway is the first to look makes its turn.
            if await self._put(shown, decision.state):
                return decision.state.run
        return None

    async def cancel(self, tenant: str, name: str) -> Run | None:
        """Ends the run that goes on: what runs is cancelled, whatever it says to that. None where there is none to end, or not yet."""
        for _ in range(TRIES):
            shown = await self.get(tenant, name)
            if shown is None:
                return None
            decision = deciding.called_off(shown.known, shown.state, self._clock.now_ms())
            if decision is None:
                return None
            for run in decision.ended:
                await self._history.add(tenant, name, run)
            if await self._put(shown, decision.state):
                return shown.state.run
        return None

    async def suspend(self, tenant: str, name: str, *, suspended: bool) -> Shown | None:
        """Suspended by hand, or not any more; None where there is no such routine, or it cannot be changed just now."""
        for _ in range(TRIES):
            shown = await self.get(tenant, name)
            if shown is None:
                return None
            state = deciding.held(shown.state, suspended=suspended)
            if not suspended:  # what was due meanwhile is not made up for
                state = replace(state, cursor=max(state.cursor, self._clock.now_ms()))
            if await self._put(shown, state):
                return await self.get(tenant, name)
        return None

    async def _put(self, shown: Shown, state: State) -> bool:
        standing = deciding.standing(shown.known, state)
        return bool(await self._ledger.put(shown.entry.field, shown.version, state.to_json(), 0, standing))

    def _ahead(self, known: Known) -> tuple[int, ...]:
        schedule, at = schedule_of(known.spec), self._clock.now_ms()
        found: list[int] = []
        for _ in range(TIMES):
            slot = schedule.next(at)
            if slot is None:
                break
            found.append(slot)
            at = slot
        return tuple(found)
