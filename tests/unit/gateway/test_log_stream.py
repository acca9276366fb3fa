"""A log that nobody writes to keeps its connection open, and is closed with its caller."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from moorage_gateway.logs import LogLine
from moorage_gateway.routes.control_agents import stream

pytestmark = pytest.mark.unit


async def test_a_silent_log_sends_comments_and_closes_its_source() -> None:
    closed, more = asyncio.Event(), asyncio.Event()

    async def lines() -> AsyncIterator[LogLine]:
        try:
            yield LogLine(1, "stdout", "hello")
            await more.wait()
            yield LogLine(2, "stdout", "again")
            await asyncio.Event().wait()
        finally:
            closed.set()

    body = stream(lines(), silence=0.01).body_iterator
    assert b'"text":"hello"' in await anext(body)
    assert await anext(body) == b": keep-alive\n\n"
    more.set()
    while (piece := await anext(body)) == b": keep-alive\n\n":
        continue
    assert b'"text":"again"' in piece
    assert await anext(body) == b": keep-alive\n\n"
    await body.aclose()
    assert closed.is_set()


async def test_a_log_that_ends_says_so() -> None:
    async def lines() -> AsyncIterator[LogLine]:
        yield LogLine(1, "stdout", "hello")

    pieces = [piece async for piece in stream(lines()).body_iterator]
    assert len(pieces) == 2
    assert pieces[-1] == b"data: [DONE]\n\n"
