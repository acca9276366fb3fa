"""Instants in words."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from moorage.cli import times

pytestmark = pytest.mark.unit

NOW = datetime(2026, 11, 27, 15, 0, 30, tzinfo=UTC)  # a Friday


@pytest.mark.parametrize(
    ("at", "zone", "words"),
    [
        ("2026-11-27T15:00:31Z", "UTC", "today at 15:00:31 UTC, in 1 second"),
        ("2026-11-27T15:00:30Z", "", "today at 15:00:30 UTC, now"),
        ("2026-11-27T15:30:00Z", "Europe/Berlin", "today at 16:30 Europe/Berlin, in 30 minutes"),
        ("2026-11-27T23:30:00Z", "Europe/Berlin", "tomorrow at 00:30 Europe/Berlin, in 8 hours"),
        ("2026-11-28T05:00:00Z", "Europe/Berlin", "tomorrow at 06:00 Europe/Berlin, in 14 hours"),
        ("2026-11-30T05:00:00Z", "Europe/Berlin", "on Monday at 06:00 Europe/Berlin, in 3 days"),
        ("2026-12-04T05:00:00Z", "Europe/Berlin", "on 2026-12-04 at 06:00 Europe/Berlin, in 7 days"),
        ("2026-11-28T05:00:00Z", "Nowhere/AtAll", "tomorrow at 05:00 UTC, in 14 hours"),
    ],
)
def test_an_instant_to_come(at: str, zone: str, words: str) -> None:
    assert times.ahead(at, zone, NOW) == words
