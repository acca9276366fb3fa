"""What becomes of a routine at a look: due times, runs, failures, and who is told. Nothing but values."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from moorage_gateway.routines import deciding
from moorage_gateway.routines.deciding import START_MS, by_hand, called_off, decide, held
from moorage_gateway.routines.known import Known
from moorage_gateway.routines.state import Decision, Run, State, Turn

pytestmark = [pytest.mark.unit, pytest.mark.routines]

MINUTE = 60_000
T0 = 1_800_000_000_000 // MINUTE * MINUTE
FAILED, DONE, OPEN = Turn("failed", "half", "it broke"), Turn("completed", "all of it"), Turn("open")


def known(**spec: Any) -> Known:
    whole: dict[str, Any] = {"agent": "a", "every": "1m", "input": "go", **spec}
    whole = {name: value for name, value in whole.items() if value is not None}
    return Known.of("r", whole)


def told(state: State) -> State:
    """The store knows of it."""
    return replace(state, kept=state.hold)


def look(routine: Known, state: State, now: int, turn: Turn | None = None) -> Decision:
    """One look, and when the next one is once the store was told."""
    found = decide(routine, told(state), now, turn, run_id=lambda: "x")
    return replace(found, look=decide(routine, told(found.state), now, run_id=lambda: "x").look)


def fresh(routine: Known, now: int = T0) -> State:
    return look(routine, State(cursor=now), now).state


def running(state: State, *, until: int = 0) -> State:
    """Its run's turn was accepted."""
    assert state.run is not None
    response = f"caresp_{state.run.id}_{state.run.number}"
    return replace(
        state, run=replace(state.run, phase="running", responses=(*state.run.responses, response), until=until)
    )


def slots(decision: Decision) -> list[tuple[int, str]]:
    return [((one.slot - T0) // MINUTE, one.outcome) for one in (*decision.ended, *decision.state.named)]


def test_a_due_time_is_claimed_once_and_the_next_look_is_the_next_one() -> None:
    routine = known()
    state = fresh(routine)
    assert state.run is None and look(routine, state, T0).look == T0 + MINUTE
    first = look(routine, state, T0 + MINUTE + 5)
    assert first.start and first.state.run is not None and first.state.run.slot == T0 + MINUTE
    again = look(routine, running(first.state), T0 + MINUTE + 6, OPEN)
    assert not again.start and again.state.run is not None and again.state.run.slot == T0 + MINUTE
    ended = look(routine, running(first.state), T0 + MINUTE + 900, DONE)
    assert ended.state.run is None and slots(ended) == [(1, "succeeded")] and ended.look == T0 + 2 * MINUTE
    assert ended.state.last is not None and ended.state.last.output == "all of it"


def test_a_run_that_nobody_accepted_is_started_by_the_next_look() -> None:
    routine = known()
    claimed = look(routine, fresh(routine), T0 + MINUTE).state
    later = look(routine, claimed, T0 + MINUTE + 20_000)
    assert later.start and later.state.run == claimed.run
    lost = look(routine, running(claimed), T0 + MINUTE + 30_000, Turn("missing"))
    assert lost.start and lost.state.run == claimed.run, "its turn is accepted again under the same name"


def test_a_clock_that_jumps_back_runs_nothing_twice() -> None:
    routine = known()
    state = look(routine, fresh(routine), T0 + 3 * MINUTE).state
    state = look(routine, running(state), T0 + 3 * MINUTE + 1, DONE).state
    for now in (T0 - 60 * MINUTE, T0, T0 + MINUTE, T0 + 3 * MINUTE):
        assert not look(routine, state, now).start
    assert look(routine, state, T0 + 4 * MINUTE).start


@pytest.mark.parametrize(("policy", "run"), [("skip", [96]), ("latest", [96]), ("all", list(range(87, 97)))])
def test_due_times_of_an_absence(policy: str, run: list[int]) -> None:
    routine, now = known(missedRuns=policy), T0 + 96 * MINUTE + 50_000
    found, minutes = look(routine, State(spec=routine.digest, timing=routine.timing, cursor=T0), now), []
    assert [one.outcome for one in found.state.named] == ["missed"] * 10, "of the rest the newest ten are named"
    while found.state.run is not None:
        minutes.append((found.state.run.slot - T0) // MINUTE)
        found = look(routine, running(found.state), now, DONE)
    assert minutes == run


def test_only_the_last_of_a_day_of_downtime_is_made_up_for() -> None:
    routine = known(every=None, schedule="0 6 * * *", startingDeadline="12h")
    six = T0 - T0 % 86_400_000 + 6 * 3_600_000
    found = look(
        routine, State(spec=routine.digest, timing=routine.timing, cursor=six - 3 * 86_400_000 - 1), six + 3_600_000
    )
    assert found.state.run is not None and found.state.run.slot == six
    assert [one.slot for one in found.state.named] == [six - day * 86_400_000 for day in (3, 2, 1)]
    too_late = look(routine, State(spec=routine.digest, timing=routine.timing, cursor=six - 1), six + 13 * 3_600_000)
    assert too_late.state.run is None and [one.outcome for one in too_late.state.named] == ["missed"]


@pytest.mark.parametrize(
    ("policy", "outcomes", "cancelled", "queue"),
    [("forbid", [(2, "skipped")], False, 0), ("queue", [], False, 1), ("replace", [(1, "replaced")], True, 0)],
)
def test_two_at_once(policy: str, outcomes: list[tuple[int, str]], cancelled: bool, queue: int) -> None:
    routine = known(concurrencyPolicy=policy)
    state = running(look(routine, fresh(routine), T0 + MINUTE).state)
    found = look(routine, state, T0 + 2 * MINUTE, OPEN)
    assert slots(found) == outcomes and bool(found.state.ending) is cancelled and len(found.state.queue) == queue
    assert found.start is (policy == "replace")
    if policy == "queue":
        then = look(routine, found.state, T0 + 2 * MINUTE + 5, DONE)
        assert then.start and then.state.run is not None and then.state.run.slot == T0 + 2 * MINUTE


def test_a_failed_run_is_tried_again_later_each_time_told_why_and_only_then_failed() -> None:
    routine = known(
        onFailure="retry", retries={"limit": 2, "backoff": "10s", "maxBackoff": "15s"}, every="1h", alerts=ALERTS
    )
    now = T0 - T0 % 3_600_000 + 3_600_000
    state, waits = look(routine, State(spec=routine.digest, timing=routine.timing, cursor=now - 1), now).state, []
    for number in (1, 2):
        found = look(routine, running(state), now, FAILED)
        assert found.state.run is not None and found.state.run.phase == "waiting" and not found.state.alerts
        waits.append(found.look - now)
        now = found.look
        assert not look(routine, found.state, now - 1).start
        found = look(routine, found.state, now)
        assert found.start and found.state.run is not None
        assert (found.state.run.number, found.state.run.error) == (number + 1, "it broke")
        state = found.state
    assert waits == [10_000, 15_000]
    over = look(routine, running(state), now, FAILED)
    assert over.state.run is None and [one.outcome for one in over.ended] == ["failed"]
    assert over.ended[0].tries == 3 and len(over.ended[0].responses) == 3 and over.state.failures == 1
    assert [alert.kind for alert in over.state.alerts] == ["failed"]


ALERTS = [{"name": "ops", "url": {"secret": "ops"}}]


def test_people_are_told_once_an_incident_and_when_it_is_over() -> None:
    routine, state, now = known(alerts=ALERTS), State(), T0
    state = fresh(routine)
    kinds = []
    for turn in (FAILED, FAILED, DONE, DONE, FAILED):
        now += MINUTE
        state = running(look(routine, state, now).state)
        state = look(routine, state, now + 5, turn).state
        kinds.append([alert.kind for alert in state.alerts])
        state = replace(state, alerts=())
    assert kinds == [["failed"], [], ["resolved"], [], ["failed"]]


def test_nobody_is_told_where_failures_are_to_be_skipped() -> None:
    routine = known(onFailure="skip", alerts=ALERTS)
    state = running(look(routine, fresh(routine), T0 + MINUTE).state)
    found = look(routine, state, T0 + MINUTE + 5, FAILED)
    assert not found.state.alerts and slots(found) == [(1, "failed")]


def test_a_routine_that_always_fails_is_stopped_says_so_and_goes_on_when_told_to() -> None:
    routine, now = known(stopAfter=3, alerts=ALERTS), T0
    state = fresh(routine)
    kinds: list[str] = []
    for _ in range(3):
        now += MINUTE
        state = look(routine, running(look(routine, state, now).state), now + 5, FAILED).state
        kinds += [alert.kind for alert in state.alerts]
        state = replace(state, alerts=())
    assert kinds == ["failed", "stopped"] and state.stopped
    assert not look(routine, state, now + MINUTE).start
    assert deciding.standing(routine, state).stopped and deciding.standing(routine, state).next == 0
    assert look(routine, held(state, suspended=False), now + MINUTE).start
    other = known(stopAfter=3, alerts=ALERTS, input="otherwise")
    assert look(other, state, now + MINUTE).start, "another manifest is another chance"


def test_a_replaced_turn_is_remembered_until_it_is_cancelled() -> None:
    routine = known(concurrencyPolicy="replace", every="1h")
    state = running(look(routine, fresh(routine), T0 + 60 * MINUTE).state)
    assert state.run is not None
    replaced = state.run.responses[-1]
    state = running(look(routine, state, T0 + 120 * MINUTE, OPEN).state)
    assert state.ending == (replaced,) and State.from_json(state.to_json()) == state
    later = look(routine, state, T0 + 120 * MINUTE + 100, DONE)
    assert later.state.run is None and later.state.ending == (replaced,), "the next run's end forgets nothing"
    assert later.look <= T0 + 120 * MINUTE + 100 + deciding.START_MS, "somebody looks soon, whoever was to cancel it"
    assert deciding.cancelled(later.state, replaced).ending == ()


def test_a_run_whose_time_is_over_has_timed_out_and_one_that_hangs_on_is_cancelled() -> None:
    routine = known(timeoutMinutes=5, every="1h")
    hour = T0 - T0 % 3_600_000 + 3_600_000
    state = look(routine, State(spec=routine.digest, timing=routine.timing, cursor=hour - 1), hour).state
    state = running(state, until=hour + 5 * MINUTE)
    assert not look(routine, state, hour + 5 * MINUTE, OPEN).cancel, "the turn ends by itself, with what it said"
    assert look(routine, state, hour + 6 * MINUTE, OPEN).cancel
    for now in (hour + 5 * MINUTE, hour + 6 * MINUTE):
        assert look(routine, state, now, OPEN).look > now, "nobody looks again and again without a pause"
    for turn in (FAILED, Turn("cancelled", "half")):
        found = look(routine, state, hour + 5 * MINUTE, turn)
        assert [one.outcome for one in found.ended] == ["timed_out"] and "timeoutMinutes (5)" in found.ended[0].error
    by_a_person = look(routine, state, hour + MINUTE, Turn("cancelled", "half"))
    assert [one.outcome for one in by_a_person.ended] == ["cancelled"] and by_a_person.state.failures == 0


def test_a_run_that_is_called_off_is_cancelled_once_it_has_ended_and_not_tried_again() -> None:
    routine = known(onFailure="retry", alerts=[{"name": "ops", "url": {"secret": "s"}}])
    claimed = look(routine, fresh(routine), T0 + MINUTE).state
    assert called_off(routine, fresh(routine), T0) is None and called_off(routine, claimed, T0 + MINUTE) is None
    going = running(claimed)
    decision = called_off(routine, going, T0 + MINUTE + 5)
    assert going.run is not None and decision is not None and decision.ended == ()
    assert decision.state.run == replace(going.run, called_off=True) and decision.state.ending == going.run.responses
    again = called_off(routine, told(decision.state), T0 + MINUTE + 6)
    assert again == replace(decision, state=told(decision.state), look=T0 + MINUTE + 6 + START_MS)
    over = look(routine, decision.state, T0 + MINUTE + 9, Turn("cancelled", "half"))
    assert over.state.run is None and [(one.outcome, one.output) for one in over.ended] == [("cancelled", "half")]
    assert over.state.failures == 0 and over.state.alerts == ()
    # It may fail just then, or its time be over: no further try is made of either.
    for at, turn in ((T0 + MINUTE + 9, FAILED), (going.run.until + 1, Turn("cancelled", "half"))):
        assert slots(look(routine, decision.state, at, turn)) == [(1, "cancelled")]
    waiting = look(routine, going, T0 + MINUTE + 9, FAILED).state
    stopped = called_off(routine, waiting, T0 + MINUTE + 10)
    assert stopped is not None and stopped.state.run is None and slots(stopped) == [(1, "cancelled")]


def test_suspended_routines_run_nothing_but_what_people_ask_for() -> None:
    routine = known(suspend=True)
    state = fresh(routine)
    assert not look(routine, state, T0 + 5 * MINUTE).start
    asked = by_hand(routine, state, T0 + 5 * MINUTE, run_id=lambda: "abc")
    assert asked is not None and asked.state.run is not None and asked.state.run.manual
    assert by_hand(routine, asked.state, T0 + 6 * MINUTE, run_id=lambda: "def") is None, "one at a time"
    resumed = look(known(), replace(state, cursor=T0 + 5 * MINUTE), T0 + 5 * MINUTE + 1)
    assert not resumed.start, "what was due meanwhile is not made up for"


def test_another_schedule_counts_from_now_on_and_another_input_changes_no_due_time() -> None:
    state = fresh(known())
    assert look(known(input="other"), state, T0 + MINUTE).start
    moved = look(known(every="30s"), state, T0 + 10 * MINUTE)
    assert not moved.start and moved.look == T0 + 10 * MINUTE + 30_000


def test_a_state_comes_back_from_the_ledger_as_it_went() -> None:
    routine = known(alerts=ALERTS, concurrencyPolicy="queue")
    state = running(look(routine, fresh(routine), T0 + MINUTE).state)
    state = look(routine, state, T0 + 2 * MINUTE, OPEN).state
    state = look(routine, state, T0 + 2 * MINUTE, FAILED).state
    assert state.alerts and state.last is not None
    assert State.from_json(state.to_json()) == state and State.from_json("") == State()


def test_runs_are_named_by_their_due_time_so_that_a_lost_one_is_met_again() -> None:
    routine = known()
    one, other = (
        look(routine, State(spec=routine.digest, timing=routine.timing, cursor=T0), T0 + MINUTE) for _ in "ab"
    )
    assert one.state.run == other.state.run and isinstance(one.state.run, Run)
    second = Known.of("r2", routine.spec.model_dump(mode="json", by_alias=True, exclude_none=True))
    third = look(second, State(spec=second.digest, timing=second.timing, cursor=T0), T0 + MINUTE)
    assert third.state.run is not None and third.state.run.id != one.state.run.id, (
        "and no two routines' runs are called alike"
    )


@pytest.mark.parametrize(("late", "runs"), [(5_000, True), (30 * MINUTE, True), (2 * 60 * MINUTE, False)])
def test_an_instant_that_passed_before_its_manifest_was_known_is_not_passed_over_in_silence(
    late: int, runs: bool
) -> None:
    at = T0 - T0 % 1000
    routine = known(every=None, at=datetime.fromtimestamp(at / 1000, UTC).isoformat(), startingDeadline="1h")
    now = at + late
    state = State(spec=routine.digest, timing=routine.timing, cursor=deciding.begins(routine, now))
    found = look(routine, state, now)
    assert found.start is runs and slots(found) == ([] if runs else [(0, "missed")])
    moved = look(routine, State(spec="another", timing="another", cursor=now), now)
    assert moved.start is runs, "of a manifest that says another instant than the one before"
