"""Promises of the operator."""

from __future__ import annotations

from promises.shape import API, Row

SWEEP = f"{API.format('crash_points')}::test_an_operator_killed_at_any_write_changes_nothing_in_the_end"

ROWS = {
    "F5": Row(
        "operator killed between any two writes: the same final state",
        (SWEEP,),
        lacking="a sample of the points a change; all with --long",
    ),
    "F12": Row(
        "two operators at once: the Lease decides",
        (f"{API.format('operator')}::test_another_operator_goes_on_when_the_holder_ends",),
        lacking="a leader that is stopped and goes on later",
    ),
    "R1": Row(
        "crash-point sweep: all converge, nobody's is left",
        (SWEEP, f"{API.format('cycles')}::test_sessions_that_came_and_went_leave_nothing"),
        lacking="the operator's part; turns have the simulation's; checkpoints and routines come with their issues",
    ),
}
