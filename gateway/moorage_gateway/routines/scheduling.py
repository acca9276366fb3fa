"""The loop of routines: whatever is due is taken, decided, and done. Layer: gateway. Any number of gateways run it beside each other.

    take ── decide ── history, alerts ── put ── holds ── put ── the turn is accepted ── put ── followed to its end ── decide ──
            (pure)    (written twice      │      └ the store knows of the run, before anything of it is sent
                       it is one)         └ under the version that was taken: of two that saw one due time, one claims it

What a gateway leaves undone when it dies is due again a moment later: all of it is in the state.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Protocol

from moorage_api.catalog import RoutineEntry
from moorage_api.errors import ApiError
from moorage_api.ledger.routines import HOLD_MS, RoutineLedger, TakenRoutine
from moorage_api.ledger.script import LedgerError, Lost
from moorage_gateway.clock import Clock
from moorage_gateway.routines import deciding
from moorage_gateway.routines.alerting import Alerts, after
from moorage_gateway.routines.choosing import Choosing
from moorage_gateway.routines.deciding import decide
from moorage_gateway.routines.history import History
from moorage_gateway.routines.holds import Holds
from moorage_gateway.routines.known import Known
from moorage_gateway.routines.running import refused
from moorage_gateway.routines.state import NEVER, Decision, Ended, Run, State, Turn, is_invocation
from moorage_gateway.store import StoreUnavailable

AT_ONCE = 64
"""Routines that one gateway works on side by side."""
REST_S = 5.0
"""Longest sleep: another gateway may have moved a due time without a hint that arrived."""
PATIENCE_MS = 30_000
"""An agent that is not there may be published in a moment: with its routine, or to a gateway that has just begun."""
PAUSE_S = 0.5
"""After a fault of Redis."""
TRIES = 5
"""Times that a state is written anew because another look was faster; what it is for is done again at the next look."""
FOLLOWED = 500
"""Runs whose end one gateway waits for; further ones are looked at every `deciding.FOLLOW_MS`."""

log = logging.getLogger(__name__)


class Recovery(Protocol):
    """Founds the ledger anew after a loss."""

    async def recover(self) -> None:
        """Returns when the ledger can be written again."""


@dataclass(frozen=True)
class _Taken:
    """A routine in work."""

    entry: RoutineEntry
    known: Known
    version: int


class Scheduler:
    """`run` until cancelled; `hint` when something may be due."""

    def __init__(
        self,
        ledger: RoutineLedger,
        running: Choosing,
        history: History,
        holds: Holds,
        alerts: Alerts,
        recovery: Recovery,
        clock: Clock,
        *,
        run_id: Callable[[], str] = deciding.new_run,
    ) -> None:
        self._ledger = ledger
        self._running = running
        self._history = history
        self._holds = holds
        self._alerts = alerts
        self._recovery = recovery
        self._clock = clock
        self._run_id = run_id
        self._wake = asyncio.Event()
        self._following: dict[str, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._working: set[asyncio.Task[None]] = set()
        self._ending: set[str] = set()

    def hint(self, _: str) -> None:
        """Something is due now."""
        self._wake.set()

    async def run(self) -> None:
        """Takes what is due, for ever; whom it follows ends with it."""
        try:
            while True:
                self._wake.clear()
                try:
                    rest = await self._round()
                except Lost:
                    rest = PAUSE_S
                    with suppress(LedgerError, StoreUnavailable):
                        await self._recovery.recover()
                        continue
                except LedgerError:
                    rest = PAUSE_S
                with suppress(TimeoutError):
                    async with asyncio.timeout(rest):
                        await self._wake.wait()
        finally:
            for task in tuple(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _round(self) -> float:
        """One go; seconds until the next."""
        if len(self._working) >= AT_ONCE:  # a target that hangs holds up its own routine, and no other
            await asyncio.wait(self._working, return_when=asyncio.FIRST_COMPLETED)
        now, taken = await self._ledger.take(AT_ONCE - len(self._working))
        for one in taken:
            task = self._keep(self._guarded(self._work, one, now))
            self._working.add(task)
            task.add_done_callback(self._working.discard)
        if taken:
            return 0.0
        earliest = await self._ledger.earliest()
        return REST_S if earliest is None else min(REST_S, max(0.0, (earliest - now) / 1000))

    async def _guarded(self, work: Callable[..., Coroutine[Any, Any, None]], *what: Any) -> None:
        """One routine's trouble is its own: it is due again after `HOLD_MS`."""
        try:
            await work(*what)
        except (LedgerError, StoreUnavailable, ApiError) as fault:
            log.info("a routine is looked at again later: %s", fault)
        except (
            Exception
        ):  # a mistake of ours, or a state of another version's, must not end the scheduler of all others
            log.exception("a routine could not be worked on")

    async def _work(self, taken: TakenRoutine, now: int) -> None:
        if not taken.spec:
            await self._forget(taken, now)
            return
        try:
            entry = RoutineEntry.from_json(taken.spec)
            known, state = Known.of(entry.name, entry.spec), State.from_json(taken.state)
        except (ValueError, TypeError, KeyError) as fault:
            log.warning("the routine %s cannot be read: %s", taken.field, fault)
            return
        if not taken.state:
            state = await self._fresh(entry, taken.since)
        await self._settle(_Taken(entry, known, taken.version), state, now)

    async def _settle(self, taken: _Taken, state: State, now: int) -> None:
        """From one state to the next, and what that asks for."""
        if state.owes:
            state = await self._holds.keep(taken.entry.tenant, taken.entry.name, taken.version, state)
        state = await self._tell(taken, await self._named(taken.entry, state), now)
        run = state.run
        turn = None
        if run is not None and run.phase == "running":
            turn = await self._running.look(taken.entry.tenant, run.responses[-1])
            if turn.status != "open" and is_invocation(run.responses[-1]) and await self._moved(taken):
                return  # the history has it, and with that its record may be gone
        done = await self._done(taken.entry, run, turn)
        decision = decide(taken.known, state, now, turn, run_id=self._run_id, done=done)
        await self._carry(taken.entry, run, decision)
        decision = self._claimed(taken, run if done is None else None, decision, now)
        version = await self.write(taken.entry, taken.known, taken.version, decision)
        if not version:
            return
        for response in decision.state.ending:
            self._end(taken.entry, response)
        if decision.cancel:
            self._keep(
                self._guarded(self._running.cancel, taken.entry.tenant, decision.cancel)
            )  # an agent may take its time to end
        if decision.start:
            if not decision.state.owes:  # else the store is told first, at once
                await self._accept(replace(taken, version=version), decision.state)
        elif decision.state.run is not None and decision.state.run.phase == "running":
            self._follow(taken.entry, decision.state.run)

    async def _done(self, entry: RoutineEntry, run: Run | None, turn: Turn | None) -> Ended | None:
        """What the history has of a run that is to be sent, or whose end is to be told: that it ended, or that its due time is not run."""
        if run is None or run.phase == "waiting" or (turn is not None and turn.status == "open"):
            return None
        said = await self._history.of(entry.tenant, entry.name, run.slot)
        return next((each for each in said if each.id == run.id or (each.outcome in NEVER and not run.manual)), None)

    async def _moved(self, taken: _Taken) -> bool:
        found = await self._ledger.look(taken.entry.field)
        return found is None or found.version != taken.version

    def _claimed(self, taken: _Taken, before: Run | None, decision: Decision, now: int) -> Decision:
        """Which turn is to be accepted, said before it is; one that was said before, and is another one, is to be cancelled: whoever said
        so may have accepted it, and died before the state knew."""
        after = decision.state.run
        if after is not None and decision.start:
            after = replace(after, claimed=self._running.response(taken.entry.tenant, taken.known, after))
            decision = replace(decision, state=replace(decision.state, run=after))
        if before is None or before.phase != "starting" or not before.claimed:
            return decision
        same = after is not None and after.claimed == before.claimed
        return decision if same else deciding.also_ending(decision, before.claimed, now)

    async def _carry(self, entry: RoutineEntry, before: Run | None, decision: Decision) -> None:
        """A try that failed leaves its steps to the next one, before the state says that there is a next one."""
        after = decision.state.run
        if before is not None and after is not None and (before.phase, after.phase) == ("running", "waiting"):
            await self._running.carry(entry.tenant, before)

    def _end(self, entry: RoutineEntry, response: str) -> None:
        """A replaced turn is cancelled, and then forgotten; once at a time."""
        if response in self._ending:
            return
        self._ending.add(response)
        # An agent may take its time to end.
        task = self._keep(self._guarded(self._until_cancelled, entry, response))
        task.add_done_callback(lambda _: self._ending.discard(response))

    async def _until_cancelled(self, entry: RoutineEntry, response: str) -> None:
        await self._cancelled(entry.tenant, response)
        for _ in range(TRIES):
            found = await self._ledger.look(entry.field)
            if found is None or not found.state:
                return
            state = State.from_json(found.state)
            if response not in state.ending:
                return
            held = RoutineEntry.from_json(found.spec)
            known, left = Known.of(held.name, held.spec), deciding.cancelled(state, response)
            # Due at once: how far away its next look is, the look itself says.
            if await self._ledger.put(entry.field, found.version, left.to_json(), 0, deciding.standing(known, left)):
                if left.run is None or response not in left.run.responses:  # else the run's end is still to be seen
                    await self._running.forget(entry.tenant, (response,))
                return

    async def _cancelled(self, tenant: str, response: str) -> None:
        """It runs no more. Raises ApiError where that cannot be told."""
        try:
            await self._running.cancel(tenant, response)
        except ApiError as fault:
            if fault.status != 404:  # it is gone, or never was
                raise

    async def _tell(self, taken: _Taken, state: State, now: int) -> State:
        """Tries the alerts whose time has come."""
        due = [alert for alert in state.alerts if alert.at <= now]
        if not due:
            return state
        entry, spec = taken.entry, taken.known.spec
        outcomes = await self._alerts.told(entry.tenant, entry.name, spec.agent, spec.alerts, due)
        return after(state, outcomes, now)

    async def write(self, entry: RoutineEntry, known: Known, version: int, decision: Decision) -> int:
        """What ended, then the state, then what is not run; its version, 0 when another look was faster."""
        for run in decision.ended:
            await self._history.add(entry.tenant, entry.name, run)
        state, shown = decision.state, deciding.standing(known, decision.state)
        written = await self._ledger.put(entry.field, version, state.to_json(), decision.look, shown)
        if not written:
            return 0
        with suppress(StoreUnavailable):  # the next look does it
            await self._named(entry, state)
            if decision.ended or state.named:
                await self._history.prune(entry.tenant, entry.name, known.spec.history_limit)
                over = (each for run in decision.ended for each in run.responses if each not in state.ending)
                await self._running.forget(entry.tenant, over)
        return written

    async def _named(self, entry: RoutineEntry, state: State) -> State:
        """The history says of due times that they were not run, where it says nothing of them. Before the state says so, another look might
        still run them."""
        for never in state.named:
            if all(each.manual for each in await self._history.of(entry.tenant, entry.name, never.slot)):
                await self._history.add(entry.tenant, entry.name, never)
        return replace(state, named=()) if state.named else state

    async def _accept(self, taken: _Taken, state: State) -> None:
        """The claimed run becomes a turn; one that is refused for good has failed."""
        run = state.run
        assert run is not None
        began = self._clock.now_ms()
        try:
            response = await self._running.accept(taken.entry.tenant, taken.known, state, run)
        except ApiError as fault:
            if not refused(fault) or (fault.status == 404 and began - run.began < PATIENCE_MS):
                log.info("the routine %s waits for its turn: %s", taken.entry.field, fault)
                return
            await self._refused(taken, state, run, str(fault))
            return
        until = began + taken.known.spec.timeout_minutes * 60_000  # no later than the turn's own deadline
        running = replace(run, phase="running", responses=(*run.responses, response), until=until)
        moved = replace(state, run=running)
        look = decide(taken.known, moved, self._clock.now_ms(), None, run_id=self._run_id).look
        shown = deciding.standing(taken.known, moved)
        if await self._ledger.put(taken.entry.field, taken.version, moved.to_json(), look, shown):
            self._follow(taken.entry, running)
            return
        found = await self._ledger.look(taken.entry.field)
        now = State.from_json(found.state).run if found is not None else None
        if now is None or now.claimed != response or now.phase == "waiting":  # meanwhile another one took its place
            await self._running.cancel(taken.entry.tenant, response)

    async def _refused(self, taken: _Taken, state: State, run: Run, why: str) -> None:
        failed = replace(state, run=replace(run, phase="running"))
        turn = Turn("failed", error=why)
        decision = decide(taken.known, failed, self._clock.now_ms(), turn, run_id=self._run_id)
        await self._carry(taken.entry, failed.run, decision)
        await self.write(taken.entry, taken.known, taken.version, decision)

    def _follow(self, entry: RoutineEntry, run: Run) -> None:
        """Whoever accepted a turn knows at once when it has ended."""
        if entry.field in self._following or len(self._following) >= FOLLOWED:
            return
        task = self._keep(self._guarded(self._until_its_end, entry, run.responses[-1]))
        self._following[entry.field] = task

        def over(_: asyncio.Task[None]) -> None:
            if self._following.get(entry.field) is task:
                del self._following[entry.field]

        task.add_done_callback(over)

    def _keep(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task of ours, that ends with `run`."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _until_its_end(self, entry: RoutineEntry, response: str) -> None:
        await self._running.ended(entry.tenant, response)
        found = await self._ledger.look(entry.field)
        if found is None or not found.state:
            return
        state = State.from_json(found.state)
        if state.run is None or state.run.phase != "running" or state.run.responses[-1] != response:
            return
        held = RoutineEntry.from_json(found.spec)
        self._following.pop(entry.field, None)  # what comes next is followed by a task of its own
        await self._settle(_Taken(held, Known.of(held.name, held.spec), found.version), state, self._clock.now_ms())

    async def _fresh(self, entry: RoutineEntry, since: int) -> State:
        """A routine without a state: new since then, or its state was lost. Then it goes on from its newest run, and with the one that went
        on."""
        known = Known.of(entry.name, entry.spec)
        state = State(spec=known.digest, timing=known.timing, cursor=deciding.begins(known, since))
        newest = await self._history.newest(entry.tenant, entry.name, 1)
        if not newest:
            return await self._holds.over(entry.tenant, entry.name, state)
        state, since = replace(state, cursor=newest[0].slot), newest[0].slot
        if newest[0].outcome in NEVER:
            newest = await self._history.newest(entry.tenant, entry.name, known.spec.history_limit + 1)
        ran = next((each for each in newest if each.outcome not in NEVER), None)
        if ran is not None:
            state = replace(state, last=ran.last)
        return await self._holds.over(entry.tenant, entry.name, state, since)

    async def _forget(self, taken: TakenRoutine, now: int) -> None:
        """Taken away: what runs is cancelled, and what somebody may be accepting just now once more when that must be over."""
        tenant, _, name = taken.field.partition("/")
        state = State.from_json(taken.state) if taken.state else await self._holds.over(tenant, name, State())
        for response in deciding.left(state):
            await self._cancelled(tenant, response)
        tries = state.run.responses if state.run is not None else ()
        await self._running.forget(tenant, (*state.ending, *tries))
        if state.run is not None and state.run.phase == "starting":
            later = replace(state, run=None, ending=deciding.left(state))
            await self._ledger.put(taken.field, taken.version, later.to_json(), now + HOLD_MS)
            return
        await self._holds.forget(tenant, name)
        await self._ledger.put(taken.field, taken.version, "", None)
