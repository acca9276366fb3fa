"""What a tool server says of the token that it was shown, and what it calls itself."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from moorage_gateway.tools.messages import title_of
from moorage_gateway.tools.reading import bearer_error
from moorage_gateway.tools.servers import MOST_TITLE

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


@pytest.mark.parametrize(
    ("greeted", "title"),
    [
        ({"serverInfo": {"name": "gh", "title": "GitHub"}}, "GitHub"),
        ({"serverInfo": {"name": "gh", "title": ""}}, "gh"),
        ({"_meta": {"io.modelcontextprotocol/serverInfo": {"name": "gh"}}}, "gh"),
        ({"serverInfo": {"name": "x" * (MOST_TITLE + 1)}}, "x" * MOST_TITLE),
        ({}, ""),
        ({"serverInfo": [], "_meta": []}, ""),
        ({"serverInfo": "GitHub"}, ""),
        ({"serverInfo": {"name": 1}}, ""),
        ({"serverInfo": {"title": ["GitHub"], "name": "gh"}}, ""),
    ],
)
def test_what_a_server_calls_itself_is_read_of_either_handshake_and_is_nothing_where_it_is_no_text(
    greeted: dict[str, Any], title: str
) -> None:
    assert title_of(greeted) == title
