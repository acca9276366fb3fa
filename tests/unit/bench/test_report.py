"""The fixed face of `scripts/bench`: what the JSON holds, when a gate fails, and that a skipped bench never shows a number."""

from __future__ import annotations

import json

import pytest

from bench import report
from bench.report import Line

pytestmark = pytest.mark.unit

GOOD = Line("a", 140.04321, "us", goal=150, gate=600)
SHORT = Line("b", 200, "us", goal=150, gate=600, note="190–210")
BAD = Line("c", 601, "us", goal=150, gate=600)
UNGATED = Line("d", 10_000, "ms", goal=1)


@pytest.mark.parametrize(
    ("line", "ok", "reached"),
    [
        (GOOD, True, True),
        (SHORT, True, False),
        (BAD, False, False),
        (UNGATED, True, False),
        (Line("e", 600, "us", gate=600), True, None),
        (Line("f", 0, "events", goal=0, gate=0), True, True),
        (Line("g", 0.01, "commands", goal=0, gate=0), False, False),
        (report.skipped(["h"], "no nginx")[0], True, None),
        (Line("i", 9, "ms", goal=5, gate=6, pace=1.6), True, False),
        (Line("j", 9, "ms", goal=5, gate=6, pace=1.4), False, False),
        (Line("k", 5, "ms", goal=5, gate=6, pace=0.8), False, False),
    ],
    ids=lambda value: value.name if isinstance(value, Line) else str(value),
)
def test_only_a_measured_value_above_its_gate_fails(line: Line, ok: bool, reached: bool | None) -> None:
    assert (line.ok, line.reached) == (ok, reached)


def test_the_json_is_a_list_of_objects_with_the_promised_fields() -> None:
    found = json.loads(report.as_json([GOOD, UNGATED]))
    assert found == [
        {"name": "a", "value": 140.0, "unit": "us", "goal": 150, "gate": 600, "ok": True},
        {"name": "d", "value": 10000, "unit": "ms", "goal": 1, "gate": None, "ok": True},
    ]
    assert json.loads(report.as_json([])) == []


def test_cpu_is_told_as_it_was_and_as_it_is_judged() -> None:
    line = Line("turn-cpu", 9, "ms/turn", gate=6, note="8–10", pace=1.5)
    said = "at the reference's speed 6 (this machine just now: 1.50 times its CPU); 8–10"
    assert json.loads(report.as_json([line]))[0] == {
        "name": "turn-cpu", "value": 9, "unit": "ms/turn", "goal": None, "gate": 6, "ok": True, "pace": 1.5, "note": said,
    }  # fmt: skip


def test_a_skipped_bench_says_so_with_its_reason_and_shows_no_number() -> None:
    lines = report.skipped(["relay-cpu-nginx"], "nginx is not installed")
    record = json.loads(report.as_json(lines))[0]
    assert (record["value"], record["note"], record["ok"]) == ("skipped", "nginx is not installed", True)
    row = report.as_table(lines).splitlines()[1]
    assert "skipped" in row and not any(letter.isdigit() for letter in row)


def test_each_gate_that_does_not_hold_gives_a_sentence_with_value_and_gate() -> None:
    assert report.failures([GOOD, BAD, UNGATED]) == ["c: 601 us is above its gate of 600"]


def test_the_table_tells_gates_that_fail_from_goals_not_reached() -> None:
    rows = report.as_table([GOOD, SHORT, BAD, UNGATED]).splitlines()[1:]
    assert ["goal reached" in rows[0], "short of the goal" in rows[1], "FAILS" in rows[2], "FAILS" in rows[3]] == [
        True,
        True,
        True,
        False,
    ]


def test_the_markdown_has_a_row_a_line_and_as_many_cells_as_its_head() -> None:
    rows = report.as_markdown([GOOD, BAD]).splitlines()
    assert len(rows) == 4
    assert {row.count("|") for row in rows} == {8}
