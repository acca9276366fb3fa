"""Who may write itself into a lease; the loop around it runs on a real API server in the cluster tier."""

from __future__ import annotations

import pytest

from moorage_operator.lease import LASTS_SECONDS, Watched, may_take

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("holder", "silent", "expected"),
    [
        ("me", 0.0, True),
        ("me", 1000.0, True),
        ("", 0.0, True),
        ("other", 0.0, False),
        ("other", LASTS_SECONDS - 0.1, False),
        ("other", float(LASTS_SECONDS), True),
    ],
)
def test_a_lease_is_taken_only_from_nobody_or_the_silent(holder: str, silent: float, expected: bool) -> None:
    assert may_take(Watched(holder, "7", since=100.0), "me", now=100.0 + silent) is expected
