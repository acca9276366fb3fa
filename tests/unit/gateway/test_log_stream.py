"""A log that nobody writes to keeps its connection open, and is closed with its caller."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from moorage_api.pod_tokens import PodTokens
from moorage_gateway.logs import AGENT_LABEL, LogLine, PodLogs
from moorage_gateway.routes.control_agents import stream
from moorage_operator import marks

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


class Cluster:
    """What the catalog holds of one; None: of none."""

    def __init__(self, **namespaces: str) -> None:
        self.pod_tokens = PodTokens("issuer", "moorage", {"keys": []}, namespaces) if namespaces else None


def test_the_command_names_the_namespaces_of_the_tenant_and_what_the_operator_makes() -> None:
    logs = PodLogs(Cluster(one="acme", two="acme", three="other"))
    told = logs.elsewhere("acme", "hello", "sb-1", tail=5, follow=True).splitlines()
    assert told == [
        f"kubectl logs --namespace {name} sb-1 --container shim --tail=5 --follow" for name in ("one", "two")
    ]
    unknown = PodLogs(Cluster(three="other")).elsewhere("acme", "hello", "", tail=5, follow=False)
    assert unknown.startswith("kubectl logs --namespace NAMESPACE --selector moorage.dev/agent=hello ")
    assert PodLogs(Cluster()).elsewhere("acme", "hello", "", tail=5, follow=False) == "", "sandboxes are no pods there"
    assert AGENT_LABEL == marks.AGENT
