"""Which benches `--only` means, and what becomes of one that cannot run, and of one that breaks."""

from __future__ import annotations

import pytest

from bench import plan, report
from bench.effort import FULL, QUICK, Effort
from bench.plan import BENCHES, Bench
from bench.report import Line
from bench.subjects import CannotRun

pytestmark = pytest.mark.unit


def quiet(_: str) -> None:
    pass


def test_every_bench_has_a_name_of_its_own() -> None:
    assert len({bench.name for bench in BENCHES}) == len(BENCHES)


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("relay", {"relay-cpu", "relay-latency", "relay-first-event"}),
        ("relay-cpu", {"relay-cpu"}),
        ("relay-cpu-ratio-to-nginx", {"relay-cpu"}),
        ("route-hit-commands", {"route"}),
        ("delta", {"delta"}),
        ("delta-everysec", {"delta-everysec"}),
        ("turn-first-event", {"turn-first-event"}),
        ("sandbox-memory-isolated", {"sandbox"}),
        ("turn-commands", {"turn"}),
        ("call-turn-commands", {"call"}),
        ("checkpoint-size", {"checkpoint"}),
        ("turn-cpu-everysec", {"turn-everysec"}),
        ("nothing-like-it", set()),
    ],
)
def test_only_takes_a_bench_its_beginning_or_the_name_of_a_line(asked: str, meant: set[str]) -> None:
    assert {bench.name for bench in plan.chosen([asked])} == meant


def test_all_benches_run_when_nothing_is_asked_for_and_each_once_when_named_twice() -> None:
    assert plan.chosen([]) == list(BENCHES)
    assert [bench.name for bench in plan.chosen(["delta", "relay-cpu", "relay"])] == [
        "relay-cpu",
        "relay-latency",
        "relay-first-event",
        "delta",
    ]


def test_a_bench_that_cannot_run_is_skipped_with_its_reason_and_the_others_go_on() -> None:
    def cannot(effort: Effort) -> list[Line]:
        raise CannotRun("this machine gives no namespaces")

    def can(effort: Effort) -> list[Line]:
        return [Line("memory", 12.0, "MB")]

    lines = plan.run([Bench("first", "real", cannot), Bench("second", "real", can)], QUICK, quiet)
    assert [(line.name, line.value, line.note) for line in lines] == [
        ("first", None, "this machine gives no namespaces"),
        ("memory", 12.0, ""),
    ]


def test_a_bench_that_breaks_is_not_ok_and_the_others_go_on() -> None:
    def broken(effort: Effort) -> list[Line]:
        raise RuntimeError("the load did not run clean")

    def can(effort: Effort) -> list[Line]:
        return [Line("memory", 12.0, "MB")]

    lines = plan.run([Bench("first", "real", broken), Bench("second", "real", can)], QUICK, quiet)
    assert [(line.name, line.shown, line.ok) for line in lines] == [("first", "broken", False), ("memory", 12.0, True)]
    assert report.failures(lines) == ["first broke: RuntimeError: the load did not run clean"]


def test_figures_of_the_relaxed_setting_carry_its_name_and_no_gate() -> None:
    def measure(stage: object, effort: Effort) -> list[Line]:
        return [Line("turn-cpu", 9.0, "ms/turn", goal=3, gate=6)]

    found = plan.relaxed(measure)(None, QUICK)  # type: ignore[arg-type]
    assert found == [Line("turn-cpu-everysec", 9.0, "ms/turn")]
    assert found[0].ok


def test_a_recorded_figure_has_at_least_five_repetitions_and_two_seconds_of_cpu() -> None:
    assert FULL.repetitions >= 5 and FULL.cpu_seconds >= 2.0
    assert QUICK.repetitions >= 3 and QUICK.cpu_seconds >= 0.5
