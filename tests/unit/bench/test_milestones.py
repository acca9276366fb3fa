"""The milestones of a wake, out of what a client heard, a watch told and two records say."""

from __future__ import annotations

from typing import Any

import pytest

from bench import milestones
from bench.milestones import Change

pytestmark = pytest.mark.unit

HEARD = {"response.created": 1010.0, "response.in_progress": 1900.0, "response.output_text.delta": 1910.0}
CHANGES = [
    Change(900.0, "older", True),
    Change(1030.0, "own", False),
    Change(1040.0, "own", False),
    Change(1700.0, "own", True),
    Change(1750.0, "own", True),
]


def record(attempts: int = 1) -> dict[str, Any]:
    return {"accepted_at": 1005, "attempts": [{"started_at": 1800, "sandbox": "own"}] * attempts}


def test_each_is_the_time_from_the_call_and_they_come_in_order() -> None:
    found = milestones.reached(1000.0, HEARD, record(), 1790.0, "own", CHANGES)
    assert tuple(found) == milestones.NAMES
    assert list(found.values()) == [5.0, 10.0, 30.0, 700.0, 790.0, 800.0, 900.0, 910.0]


def test_what_was_not_seen_is_no_number() -> None:
    for heard, pod in ((HEARD, "unseen"), ({}, "own")):
        with pytest.raises(LookupError):
            milestones.reached(1000.0, heard, record(), 1790.0, pod, CHANGES)
    with pytest.raises(LookupError, match="as ready"):
        milestones.reached(1000.0, HEARD, record(), 1790.0, "own", CHANGES[:3])


def test_a_call_of_two_attempts_is_not_one_wake() -> None:
    with pytest.raises(ValueError, match="too many values"):
        milestones.reached(1000.0, HEARD, record(2), 1790.0, "own", CHANGES)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("s-1 True\n", Change(1.0, "s-1", True)),
        ("s-1 False\n", Change(1.0, "s-1", False)),
        ("s-1 \n", Change(1.0, "s-1", False)),
        ("\n", None),
    ],
)
def test_a_line_of_the_watch_is_read(line: str, found: Change | None) -> None:
    assert milestones.change(line, 1.0) == found
