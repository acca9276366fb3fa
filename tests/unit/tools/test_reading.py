"""What a tool server says of the token that it was shown."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from moorage_gateway.tools.reading import bearer_error

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("status", "challenge", "found"),
    [
        (401, 'Bearer realm="x", error="invalid_token"', "invalid_token"),
        (403, "bearer error=insufficient_scope", "insufficient_scope"),
        (403, 'Basic realm="x", Bearer realm="y", error="insufficient_scope", scope="a"', "insufficient_scope"),
        (401, 'Bearer error="other"', ""),
        (401, "", ""),
        (500, 'Bearer error="invalid_token"', ""),
        (401, f'{"bearer " * 9_000}error="invalid_token"', ""),  # a search through all of it takes seconds
    ],
)
def test_what_a_challenge_says(status: int, challenge: str, found: str) -> None:
    coming = SimpleNamespace(status=status, header=lambda name: challenge)
    assert bearer_error(coming) == found  # type: ignore[arg-type]
