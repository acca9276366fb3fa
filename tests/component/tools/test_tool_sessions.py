"""What a server of the older era keeps for an agent's session, while gateways come and go."""

from __future__ import annotations

import asyncio
import json
import threading

import pytest

from component.tools.conftest import WITHIN, Box
from fakes.tools import Tools
from moorage_api.ledger.tool_sessions import ServerSession, ToolSessionLedger
from moorage_gateway.app import Gateway
from moorage_gateway.tools import shared_sessions

pytestmark = pytest.mark.component


async def another(box: Box) -> tuple[Gateway, Gateway]:
    """Two gateways, and a toolbox whose one server keeps sessions. The first has the tests' calls unless they say otherwise."""
    first = box.gateways[0]
    second = await box.gateway(allowed_upstreams=f"127.0.0.1:{box.old.port}")
    await box.toolbox("t", {"name": "two", "mcp": {"url": box.old.url}, "readOnly": ["get_*"]})
    return first, second


def used(old: Tools) -> list[str]:
    """Which of its sessions each call came in."""
    return [str(each["headers"]["mcp-session-id"]) for each in old.ran]


async def emptied(box: Box) -> None:
    """Redis has lost which sessions there are."""
    for name in await box.ledger.read("KEYS", "mcp:*"):
        await box.ledger.read("DEL", name)


async def test_a_servers_session_outlives_the_gateway_that_began_it(box: Box) -> None:
    first, second = await another(box)
    assert await box.run("x") == ("add 1: x", False)
    async with asyncio.timeout(WITHIN):
        while len(first.core.neighbours.urls()) < 2:  # it ends as one of several does
            await first.core.neighbours.beat()
    box.gateways.remove(first)
    await first.stop()
    assert await box.run("y") == ("add 2: y", False)
    assert len(set(used(box.old))) == 1 and box.old.methods.count("initialize") == 1
    assert len(set(box.old.numbers)) == len(box.old.numbers), "no two requests in a session have one id"
    await second.core.neighbours.beat()
    box.gateways.remove(second)
    await second.stop()
    assert box.old.sessions == set(), "the last one says goodbye"


async def test_a_session_that_its_server_forgot_is_begun_once_for_all_gateways(box: Box) -> None:
    first, second = await another(box)
    await box.run("x")
    await box.run("y", at=second)
    box.old.sessions.clear()
    assert await box.run("z", at=second) == ("add 3: z", False)
    assert await box.run("w", at=first) == ("add 4: w", False)
    assert box.old.methods.count("initialize") == 2 and len(box.old.sessions) == 1
    assert used(box.old)[2:] == [*box.old.sessions] * 2


async def test_a_gateway_that_goes_on_in_a_session_knows_what_its_server_calls_itself(box: Box) -> None:
    ports = [f"127.0.0.1:{each.port}" for each in (box.tools, box.old)]
    first, second = box.gateways[0], await box.gateway(allowed_upstreams=",".join(ports))
    box.tools.title, box.old.title = "Hospital Kitchen", "Hospital Ward"
    for server in (box.tools, box.old):
        server.tools = [{"name": "entries_list", "description": "Lists entries.", "inputSchema": {"type": "object"}}]
    await box.toolbox("t", box.upstream(), {"name": "two", "mcp": {"url": box.old.url}}, toolSearch=True)
    for gateway, query in ((first, "entries of the hospital ward"), (second, "entries of that hospital ward")):
        asked = {"query": query, "limit": 1}
        said = await box.rpc("tools/call", {"name": "tool_search", "arguments": asked}, at=gateway)
        (found,) = json.loads(said.json["result"]["content"][0]["text"])["tools"]
        assert found["name"].startswith("two"), query
    assert box.old.methods.count("initialize") == 1


async def test_two_gateways_that_begin_at_once_go_on_in_one_session(box: Box) -> None:
    first, second = await another(box)
    box.old.meeting = threading.Barrier(2)
    found = await asyncio.gather(*(box.run(text, at=at) for text, at in (("x", first), ("y", second))))
    assert not any(error for _, error in found) and box.old.methods.count("initialize") == 2
    assert len(box.old.sessions) == 1 and set(used(box.old)) == box.old.sessions


async def test_a_session_that_another_gateway_uses_gets_no_goodbye(box: Box) -> None:
    ledger, place = ToolSessionLedger(box.gateways[0].core.runner), "p"
    assert await ledger.use(place) is None
    one, two = ServerSession("2025-11-25", "one"), ServerSession("2025-11-25", "two")
    assert await ledger.use(place, one) == one and await ledger.use(place, two) == one
    assert not await ledger.end(place, "one", 60_000), "it was used within the minute"
    assert not await ledger.end(place, "two"), "it is another one"
    assert await ledger.end(place, "one") and not await ledger.end(place, "one"), "one of them says it"
    assert await ledger.use(place, two) == two and await box.ledger.read("PTTL", "mcp:p") > 0


async def test_a_gateway_goes_over_to_the_session_that_the_others_have_begun_since(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await another(box)
    monkeypatch.setattr(shared_sessions, "AGAIN_S", 0.0)
    await box.run("x")
    await emptied(box)
    assert await box.run("y", at=second) == ("add 2: y", False)
    assert await box.run("z", at=first) == ("add 3: z", False)
    own, *others = used(box.old)
    assert [own] * 2 != others and len(set(others)) == 1, "it goes on where the others are"
    await emptied(box)
    assert await box.run("w", at=first) == ("add 4: w", False) and used(box.old)[3:] == others[:1]
    assert len(await box.ledger.read("KEYS", "mcp:*")) == 1, "it tells them anew"
    assert len(set(box.old.numbers[1:])) == 3, "no two requests in a session have one id"


async def test_a_session_that_was_begun_as_somebody_is_not_gone_on_with_as_somebody_else(box: Box) -> None:
    _, second = await another(box)
    opened = {"name": "two", "mcp": {"url": box.old.url}, "readOnly": ["get_*"]}
    for name in ("one", "two"):
        box.put_secret("two", text=f"tok-{name}-0123456789")
        await box.toolbox("t", {**opened, "credential": {"secret": name}})
        assert not (await box.run(name))[1] and not (await box.run(f"{name} again", at=second))[1]
    one, again, two, once_more = used(box.old)
    assert one == again != two == once_more


async def test_without_redis_for_a_moment_a_server_is_begun_with_anew(box: Box) -> None:
    first, second = await another(box)
    await box.run("x")
    await emptied(box)
    assert await box.run("y", at=second) == ("add 2: y", False)
    assert await box.run("z", at=first) == ("add 3: z", False)
    assert box.old.methods.count("initialize") == 2
