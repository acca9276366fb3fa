"""The machine's pace: what the same work takes now, over what it took where the gates were set."""

from __future__ import annotations

import pytest

from bench import pace

pytestmark = pytest.mark.unit


def test_samples_are_the_cpu_milliseconds_of_the_fixed_work() -> None:
    ticks = iter(range(100))
    assert pace.samples(3, clock=lambda: next(ticks) / 50) == pytest.approx([20.0, 20.0, 20.0])


def test_the_pace_of_a_real_machine_is_a_number_near_one() -> None:
    assert 0.02 < pace.now() < 50


def test_it_is_looked_at_while_something_runs() -> None:
    with pace.watched() as paced:
        pass
    assert 0.02 < paced() < 50
