"""What becomes of a routine at one look. Pure: `now` is an argument, and no turn is touched. Layer: gateway.

    1  the manifest changed          due times count from now on, a stopped routine goes on
    2  the run's turn has ended      over, or another try later; of a run that the history has, what stands there
    3  a try's time has come         it starts
    4  due times passed              run, queued, passed over, or in the place of what runs
    5  nothing runs, some wait       the next one starts

A run is *claimed* by the state that holds it: who writes that first (`put` under the version it took) has made it the routine's run, and
whoever looks later sees that its turn is still to be accepted. The ids of its turns follow from the run, so accepting one twice is
accepting it once.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace

from moorage_api.kinds import quantities
from moorage_api.kinds.routine import schedule_of
from moorage_api.ledger.routines import Standing
from moorage_gateway.routines import slots
from moorage_gateway.routines.known import Known, digest
from moorage_gateway.routines.state import (
    NEVER,
    RUN,
    Alert,
    AlertKind,
    Decision,
    Ended,
    Outcome,
    Run,
    State,
    Turn,
    is_invocation,
)

FOLLOW_MS = 15_000
"""A running turn is looked at so often by whoever happens to; who accepted it knows at once."""
OVERDUE_MS = 30_000
"""A turn ends at its own deadline, with what it said; after this it is cancelled."""
START_MS = 5_000
"""Until a turn that could not be accepted is tried again."""
MOST_SHOWN = 500
"""Characters of an error in a status."""
MOST_QUEUED = 10
MOST_ENDING = 64
"""Replaced turns that are still to be cancelled; of more, the oldest end at their own deadlines."""
MOST_NAMED = 64
"""Due times that were not run and are still to be named; more than one look finds."""
MOST_ALERTS = 64
"""Alerts of a routine that wait to be told; of more, the newest."""
LONGEST_LOOK_MS = 3_600_000
"""Nobody computes further ahead than this: a zone's rules may change under a running process."""


def decide(
    known: Known,
    state: State,
    now: int,
    turn: Turn | None = None,
    *,
    run_id: Callable[[], str],
    done: Ended | None = None,
) -> Decision:
    """The next look's outcome. `turn`: how the run's newest turn stands, None where it was not looked at. `done`: what the history says of
    the run that goes on; one that ended is met again where Redis comes back older than it was."""
    work = _Work(known, state, now, run_id)
    work.manifest()
    if done is not None:
        work.met(done)
    else:
        work.ending(turn)
    work.retrying()
    work.timing()
    work.starting()
    return work.decision()


def by_hand(known: Known, state: State, now: int, *, run_id: Callable[[], str]) -> Decision | None:
    """A run that somebody asked for; None while another one goes on."""
    if state.run is not None:
        return None
    work = _Work(known, state, now, run_id)
    work.manifest()
    work.begin(now, manual=True)
    return work.decision()


def called_off(known: Known, state: State, now: int) -> Decision | None:
    """The run that goes on, ended by somebody; None where there is none, or nobody can say yet whether its try has begun. A try that runs
    is cancelled, and what it said is kept; one that is waited for is not made."""
    run = state.run
    if run is None or run.phase == "starting":
        return None
    work = _Work(known, state, now, lambda: "")
    work.call_off(run)
    return work.decision()


def begins(known: Known, now: int) -> int:
    """From when due times count of a manifest that is new now. One instant (`at`) counts though it has passed until a manifest comes to be
    known: within the minutes that a cluster may take, or what its policy says of missed ones."""
    at = schedule_of(known.spec).next(0) if known.spec.at else None
    return now if at is None else min(now, at - 1)


def also_ending(decision: Decision, response: str, now: int) -> Decision:
    """With one more turn to cancel, which may not have been accepted."""
    ending = (*decision.state.ending, response)[-MOST_ENDING:]
    return replace(decision, state=replace(decision.state, ending=ending), look=min(decision.look, now + START_MS))


def standing(known: Known, state: State) -> Standing:
    """How the routine stands, for people who do not ask a gateway."""
    suspended = known.spec.suspend or state.suspended
    following = None if suspended or state.stopped else schedule_of(known.spec).next(state.cursor)
    last = state.last
    return Standing(
        next=following or 0,
        last=last.slot if last is not None else 0,
        outcome=last.outcome if last is not None else "",
        response=last.response if last is not None and not is_invocation(last.response) else "",
        failures=state.failures,
        stopped=state.stopped,
        suspended=suspended,
        error=last.error[:MOST_SHOWN] if last is not None and last.outcome != "succeeded" else "",
    )


def held(state: State, *, suspended: bool) -> State:
    """Suspended by hand, or not any more; then a stopped routine goes on, too."""
    # Somebody may be telling the store of the state before: what it says then is not known.
    state = replace(state, kept="?")
    if suspended:
        return replace(state, suspended=True)
    return replace(state, suspended=False, stopped=False, failures=0 if state.stopped else state.failures)


def cancelled(state: State, response: str) -> State:
    """This replaced turn has ended."""
    return replace(state, ending=tuple(one for one in state.ending if one != response))


def left(state: State) -> tuple[str, ...]:
    """Turns that may run of a routine that was taken away."""
    run = state.run
    if run is None or run.phase == "waiting":
        return state.ending
    newest = run.claimed if run.phase == "starting" else run.responses[-1]
    return (*state.ending, newest) if newest else state.ending


def new_run() -> str:
    """An id of a run."""
    return secrets.token_hex(8)


class _Work:
    """One look; the steps in the order of the table above."""

    def __init__(self, known: Known, state: State, now: int, run_id: Callable[[], str]) -> None:
        self._known, self._spec = known, known.spec
        self._state = state
        self._now = now
        self._run_id = run_id
        self._schedule = schedule_of(known.spec)
        self._start = False
        self._cancel = ""
        self._ended: list[Ended] = []

    def manifest(self) -> None:
        state = self._state
        if state.spec == self._known.digest:
            return
        moved = state.timing != self._known.timing
        self._state = replace(
            state,
            spec=self._known.digest,
            timing=self._known.timing,
            cursor=begins(self._known, self._now) if moved else state.cursor,
            stopped=False,
            failures=0 if state.stopped else state.failures,
        )

    def ending(self, turn: Turn | None) -> None:
        run = self._state.run
        if run is None or turn is None or run.phase != "running":
            return
        late = run.until and self._now >= run.until
        match turn.status:
            case "completed":
                self._over("succeeded", turn)
            case "failed" | "cancelled" if run.called_off:
                self._over("cancelled", turn)
            case "failed":
                self._failed("timed_out" if late else "failed", turn)
            case "cancelled":
                if late:
                    self._failed("timed_out", turn)
                else:  # by a person, who knows of it
                    self._over("cancelled", turn)
            case "missing":  # lost before anything but the ledger knew of it
                self._state = replace(self._state, run=replace(run, phase="starting", responses=run.responses[:-1]))
            case "open" if run.until and self._now >= run.until + OVERDUE_MS:  # it should have ended by itself
                self._cancel = run.responses[-1]

    def met(self, done: Ended) -> None:
        """Its run has ended, and was forgotten to have; or its due time was not to be run."""
        if done.outcome in NEVER:
            self._state = replace(self._state, run=None)
            return
        tried = left(replace(self._state, ending=()))
        if done.outcome in ("cancelled", "replaced"):  # who was to end it may have been forgotten, too
            self._state = replace(self._state, ending=(*self._state.ending, *tried)[-MOST_ENDING:])
        self._close(done)

    def retrying(self) -> None:
        run = self._state.run
        if run is not None and run.phase == "waiting" and self._now >= run.again:
            self._state = replace(self._state, run=replace(run, phase="starting", number=run.number + 1))

    def timing(self) -> None:
        spec = self._spec
        deadline = int(quantities.seconds(spec.starting_deadline) * 1000)
        found = slots.passed(self._schedule, self._state.cursor, self._now, policy=spec.missed_runs, deadline=deadline)
        self._state = replace(self._state, cursor=found.cursor)
        if self._idle:
            return
        for slot in found.missed:
            self._never("missed", slot)
        for slot in found.run:
            self._due(slot)

    def starting(self) -> None:
        if self._state.run is None and self._state.queue and not self._idle:
            first, *rest = self._state.queue
            self._state = replace(self._state, queue=tuple(rest))
            self.begin(first)
        run = self._state.run
        if run is not None and run.phase == "starting":
            self._start = True

    def begin(self, slot: int, *, manual: bool = False) -> None:
        """The routine's run from now on."""
        # A due time's run is named by it and its routine: when Redis has lost that it runs, it is met again and not run a second time.
        own = digest(self._known.name)[:8] + (self._run_id() if manual else "")
        run = Run(id=f"{RUN}{slot:016x}{own}", slot=slot, manual=manual, began=self._now)
        self._state = replace(self._state, run=run)
        self._start = True

    def call_off(self, run: Run) -> None:
        """See `called_off`."""
        if run.phase == "waiting":
            self._over("cancelled", Turn("cancelled", error=run.error))
            return
        ending = self._state.ending
        if run.responses[-1] not in ending:
            ending = (*ending, run.responses[-1])[-MOST_ENDING:]
        self._state = replace(self._state, ending=ending, run=replace(run, called_off=True))

    def decision(self) -> Decision:
        return Decision(
            state=self._state,
            look=self._look(),
            start=self._start,
            cancel=self._cancel,
            ended=tuple(self._ended),
        )

    @property
    def _idle(self) -> bool:
        """No due time is run."""
        return self._spec.suspend or self._state.suspended or self._state.stopped

    def _due(self, slot: int) -> None:
        if self._state.run is None and not self._state.queue:
            self.begin(slot)
            return
        # Those of an absence run one after the other, and what becomes due meanwhile after them, whatever else is said of two at once.
        made_up_for = self._state.queue or self._now - slot > slots.LATE_MS
        if self._spec.missed_runs == "all" and made_up_for and len(self._state.queue) < MOST_QUEUED:
            self._state = replace(self._state, queue=(*self._state.queue, slot))
            return
        match self._spec.concurrency_policy:
            case "queue" if len(self._state.queue) < MOST_QUEUED:
                self._state = replace(self._state, queue=(*self._state.queue, slot))
            case "replace" if self._state.run is not None:
                if self._state.run.phase == "running":
                    ending = (*self._state.ending, self._state.run.responses[-1])
                    self._state = replace(self._state, ending=ending[-MOST_ENDING:])
                self._over("replaced", Turn("cancelled", error="a later run took its place"))
                self.begin(slot)
            case _:
                self._never("skipped", slot)

    def _failed(self, outcome: Outcome, turn: Turn) -> None:
        run = self._state.run
        assert run is not None
        if outcome == "timed_out":
            turn = replace(turn, error=f"it ran longer than timeoutMinutes ({self._spec.timeout_minutes})")
        retries = self._spec.retries
        if self._spec.on_failure != "retry" or run.number > retries.limit or self._idle_by_hand:
            self._over(outcome, turn)
            return
        wait = min(quantities.seconds(retries.backoff) * 2 ** (run.number - 1), quantities.seconds(retries.max_backoff))
        again = self._now + int(wait * 1000)
        self._state = replace(
            self._state, run=replace(run, phase="waiting", again=again, until=0, error=turn.error or outcome)
        )

    @property
    def _idle_by_hand(self) -> bool:
        return self._spec.suspend or self._state.suspended

    def _over(self, outcome: Outcome, turn: Turn) -> None:
        """The run ends: into the history, and into what people are told."""
        run = self._state.run
        assert run is not None
        ended = Ended(
            id=run.id, slot=run.slot, outcome=outcome, ended=self._now, began=run.began, manual=run.manual,
            tries=run.number, responses=run.responses, output=turn.output, error=turn.error,
        )  # fmt: skip
        self._close(ended)

    def _close(self, ended: Ended) -> None:
        self._ended.append(ended)
        self._state = replace(self._state, run=None, last=ended.last)
        if ended.outcome == "succeeded":
            if self._state.incident:
                self._tell("resolved", ended, self._state.failures)
            self._state = replace(self._state, failures=0, incident="")
        elif ended.outcome in ("failed", "timed_out"):
            self._streak(ended)

    def _streak(self, ended: Ended) -> None:
        failures = self._state.failures + 1
        stopped = failures >= self._spec.stop_after
        loud = self._spec.on_failure != "skip"
        if loud and stopped:
            self._tell("stopped", ended, failures)
        elif loud and not self._state.incident:
            self._tell("failed", ended, failures)
        incident = self._state.incident or (ended.id if loud else "")
        self._state = replace(self._state, failures=failures, stopped=stopped, incident=incident)

    def _tell(self, kind: AlertKind, run: Ended, failures: int) -> None:
        alerts = [
            Alert(
                id=f"{run.id}-{kind}-{target.name}", target=target.name, kind=kind, run=run.id, slot=run.slot,
                ended=run.ended, outcome=run.outcome, failures=failures, error=run.error,
                response=run.responses[-1] if run.responses else "", at=self._now,
            )
            for target in self._spec.alerts
        ]  # fmt: skip
        self._state = replace(self._state, alerts=(*self._state.alerts, *alerts)[-MOST_ALERTS:])

    def _never(self, outcome: Outcome, slot: int) -> None:
        """A due time that was not run. Its id follows from it: said twice, it is one entry."""
        why = "the run before it went on" if outcome == "skipped" else "nobody could run it in time"
        never = Ended(id=f"{RUN}{slot:016x}{outcome}", slot=slot, outcome=outcome, ended=self._now, error=why)
        self._state = replace(self._state, named=(*self._state.named, never)[-MOST_NAMED:])

    def _look(self) -> int:
        looks = [self._now + LONGEST_LOOK_MS]
        run = self._state.run
        if run is not None:
            match run.phase:
                case "starting":
                    looks.append(self._now + START_MS)
                case "running":
                    # A turn whose time is over takes a moment to end: nobody looks without a pause until it has.
                    ends = run.until if run.until > self._now else self._now + START_MS
                    looks.append(min(self._now + FOLLOW_MS, ends) if run.until else self._now + FOLLOW_MS)
                case "waiting":
                    looks.append(run.again)
        looks += [alert.at for alert in self._state.alerts]
        if self._state.owes:  # the store is told at the next look
            looks.append(self._now)
        if self._state.ending:  # whoever cancels them may die in the middle of it
            looks.append(self._now + START_MS)
        following = None if self._idle else self._schedule.next(self._state.cursor)
        if following is not None:
            looks.append(following)
        return max(min(looks), self._now)
