"""Servers of the older transport, HTTP with SSE, as upstreams: called once, bounded, and never asked elsewhere than where they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from component.tools.conftest import SECRET, Box
from fakes.sse_tools import SseTools, serving

pytestmark = pytest.mark.component


@pytest.fixture
def older() -> Iterator[SseTools]:
    """Such a server."""
    with serving() as made:
        yield made


async def named(box: Box, older: SseTools, name: str = "t", **more: Any) -> None:
    """A toolbox before it, and a gateway that may reach it."""
    if len(box.gateways) == 1:
        await box.gateway(allowed_upstreams=f"127.0.0.1:{older.port}")
        box.gateways.reverse()
    await box.toolbox(name, {"name": "one", "mcp": {"url": older.url, "transport": "sse"}, **more})


async def test_its_tools_are_listed_run_once_and_met_again(box: Box, older: SseTools) -> None:
    box.put_secret("one")
    await named(box, older, credential={"secret": "s"})
    assert [tool["name"] for tool in (await box.rpc("tools/list")).json["result"]["tools"]] == ["add"]
    assert await box.run("x") == ("add 1: x", False)
    assert await box.run("y") == ("add 2: y", False)
    text, error = await box.run("leak")
    assert not error and "[credential]" in text and SECRET not in text
    assert older.headers[-1]["authorization"] == f"Bearer {SECRET}"
    await box.attempt()
    assert await box.run("x") == ("add 1: x", False)
    assert older.ran == ["x", "y", "leak"]


BAD = [
    ("end", "outcome_unknown", "unknown"),
    ("hang", "outcome_unknown", "unknown"),
    ("status 502", "outcome_unknown", "unknown"),
    ("status 400", "it answered 400. It was not carried out.", "refused"),
    ("big 3000", "its answer is longer than 2048 bytes", "too_large"),
    ("refuse", "not today", "refused"),
]


async def test_what_an_agent_reads_of_a_bad_one_that_is_asked_once(box: Box, older: SseTools) -> None:
    await named(box, older, maxResult="2Ki", timeout="2s")
    for text, says, outcome in BAD:
        result = (await box.rpc("tools/call", {"name": "add", "arguments": {"text": text}})).json["result"]
        assert result["isError"] and says in result["content"][0]["text"], text
        assert result["_meta"] == {"dev.moorage/outcome": outcome}, text
    assert older.ran == [text for text, _, _ in BAD]


async def test_a_place_to_post_to_that_is_elsewhere_is_not_asked(box: Box, older: SseTools) -> None:
    places = (f"http://127.0.0.1:{box.tools.port}/mcp?s=", "//elsewhere.invalid/", "http://u:p@127.0.0.1/", "/a b")
    for number, place in enumerate(places):
        older.posted_to = place
        await named(box, older, f"t{number}")
        text, error = await box.run("x", box=f"t{number}")
        assert error and "a place to post to that is not its own. It was not carried out." in text, place
    assert box.tools.ran == [] and older.ran == []


async def test_one_that_opens_no_stream_is_named(box: Box, older: SseTools) -> None:
    older.stream_type = "text/html"
    await named(box, older)
    text, error = await box.run("x")
    assert error and "it opens no stream of events, as transport: sse says it does" in text
    older.stream_status = 404
    text, error = await box.run("y")
    assert error and "it answered 404. It was not carried out." in text
