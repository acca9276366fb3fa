"""Upstreams that are opened by a token: asked for once, kept until it ends, refreshed on a 401 where nothing is done twice, never told."""

from __future__ import annotations

import asyncio
import base64
import threading
import uuid
from typing import Any

import pytest

from component.tools.conftest import SECRET, WITHIN, Box
from fakes.authorization import serving as serving_tokens
from fakes.otlp import collecting
from moorage_gateway.tools.servers import ToolFault
from moorage_gateway.tools.tokens import Order, Tokens

pytestmark = pytest.mark.component

TOKEN = "access-token-canary"


def oauth(box: Box, **more: Any) -> dict[str, Any]:
    return {"tokenUrl": box.api.token_url, "clientId": "moorage", "clientSecret": {"secret": "s"}, **more}


def api(box: Box, **more: Any) -> dict[str, Any]:
    return {
        "name": "one", "openapi": {"server": box.api.url, "url": box.api.document_url}, "oauth": oauth(box), "readOnly": ["get_*"], **more,
    }  # fmt: skip


async def called(box: Box, tool: str, **arguments: Any) -> tuple[str, bool]:
    said = await box.rpc("tools/call", {"name": tool, "arguments": arguments})
    assert TOKEN not in said.body.decode() and SECRET not in said.body.decode()
    result = said.json["result"]
    return result["content"][0]["text"], result["isError"]


async def test_a_token_is_asked_for_once_by_many_and_kept(box: Box) -> None:
    box.put_secret("one")
    box.api.tokens = set()
    scopes = ["tickets.read", "tickets.write"]
    await box.toolbox("t", api(box, oauth=oauth(box, scopes=scopes, parameters={"audience": "api"})))
    found = await asyncio.gather(*(called(box, "get_ticket", id=str(n)) for n in range(5)))
    assert not any(error for _, error in found) and len(box.api.ran) == 5
    (asked,) = box.api.token_requests
    assert asked["form"] == {
        "grant_type": "client_credentials", "audience": "api", "scope": "tickets.read tickets.write",
    }  # fmt: skip
    pair = base64.b64encode(f"moorage:{SECRET}".encode()).decode()
    assert asked["headers"]["authorization"] == f"Basic {pair}"
    assert {each["headers"]["authorization"] for each in box.api.ran} == {f"Bearer {TOKEN}-1"}


async def test_id_and_secret_go_in_the_form_where_the_manifest_says_so(box: Box) -> None:
    box.put_secret("one")
    await box.toolbox("t", api(box, oauth=oauth(box, auth="post")))
    assert (await called(box, "get_ticket", id="1"))[1] is False
    (asked,) = box.api.token_requests
    assert asked["form"] == {"grant_type": "client_credentials", "client_id": "moorage", "client_secret": SECRET}
    assert "authorization" not in asked["headers"]


async def test_a_tool_that_reads_is_asked_again_after_a_401_and_an_effect_is_not(box: Box) -> None:
    box.put_secret("one")
    box.api.tokens = set()
    await box.toolbox("t", api(box))
    assert (await called(box, "get_ticket", id="1"))[1] is False
    box.api.tokens.clear()
    assert (await called(box, "get_ticket", id="2"))[1] is False and len(box.api.token_requests) == 2
    box.api.tokens.clear()
    text, error = await called(box, "create_ticket", body={"n": 1})
    assert error and "it answered 401" in text and len(box.api.ran) == 2
    assert (await called(box, "create_ticket", body={"n": 2}))[1] is False, "the next one has a new token"
    assert [each["method"] for each in box.api.ran] == ["GET", "GET", "POST"] and len(box.api.token_requests) == 3


async def test_a_401_before_the_call_itself_costs_not_even_an_effect(box: Box) -> None:
    box.put_secret("one")
    box.api.tokens, box.api.guarded, box.api.stale = set(), True, 1
    await box.toolbox("t", api(box))
    assert (await called(box, "create_ticket", body={}))[1] is False, "the document was refused, and nothing else asked"
    assert len(box.api.token_requests) == 2 and len(box.api.ran) == len(box.api.documents) == 1


async def test_a_server_that_accepts_no_token_is_asked_twice_and_no_more(box: Box) -> None:
    box.put_secret("one")
    await box.toolbox("t", api(box))
    box.api.tokens = set()
    box.api.token_answer = (200, {"access_token": "another-token", "token_type": "bearer"})
    text, error = await called(box, "get_ticket", id="1")
    assert error and "it answered 401" in text and len(box.api.token_requests) == 2 and box.api.ran == []


async def test_a_token_that_ends_at_once_is_asked_for_each_time(box: Box) -> None:
    box.put_secret("one")
    await box.toolbox("t", api(box))
    box.api.token_answer = (200, {"access_token": f"{TOKEN}-x", "token_type": "bearer", "expires_in": 0})
    for number in range(2):
        assert (await called(box, "get_ticket", id=str(number)))[1] is False
    assert len(box.api.token_requests) == 2


BAD_TOKENS: list[tuple[tuple[int, dict[str, Any]], str]] = [
    ((401, {"error": "invalid_client", "error_description": f"wrong {SECRET}"}), "answered 401 invalid_client"),
    ((400, {"error": f"<{SECRET}>"}), "its token server answered 400."),
    ((200, {"token_type": "bearer"}), "its token server gave no token"),
    ((200, {"access_token": f"{TOKEN}\r\nx: y"}), "its token server gave no token"),
    ((200, {"access_token": f"{TOKEN}-x", "token_type": "mac"}), "gave no bearer token"),
    ((503, {}), "its token server answered 503"),
    ((302, {}), "its token server: it redirects elsewhere"),
]


async def test_a_token_server_that_gives_none_is_named_and_nothing_is_sent(box: Box) -> None:
    for number, (answer, says) in enumerate(BAD_TOKENS):
        name = f"t{number}"
        box.put_secret("one", name)
        await box.toolbox(name, api(box))
        box.api.token_answer = answer
        params = {"name": "create_ticket", "arguments": {"body": {}}}
        said = await box.rpc("tools/call", params, box=name)
        result, text = said.json["result"], said.json["result"]["content"][0]["text"]
        assert result["isError"] and says in text and "It was not carried out." in text
        assert TOKEN not in text and SECRET not in text and box.api.ran == []


@pytest.mark.parametrize("era", ["old", "new"])
async def test_an_mcp_server_may_be_opened_by_a_token_too(box: Box, era: str) -> None:
    box.put_secret("one")
    server = box.old if era == "old" else box.tools
    server.tokens = box.api.tokens = set()
    box.api.stale = 1
    await box.toolbox("t", {"name": "one", "mcp": {"url": server.url}, "oauth": oauth(box), "readOnly": ["get_*"]})
    assert await box.run("x") == ("add 1: x", False), "the handshake met the 401"
    assert server.ran[0]["headers"]["authorization"] == f"Bearer {TOKEN}-2"
    server.tokens.clear()
    text, error = await box.run("y")
    assert error and "it answered 401. It was not carried out." in text
    assert await box.run("z") == ("add 2: z", False)
    server.tokens.clear()
    assert await box.run("w", tool="get_one") == ("get_one 3: w", False)
    assert [each["arguments"]["text"] for each in server.ran] == ["x", "z", "w"]
    assert len(box.api.token_requests) == 4


async def test_neither_token_nor_secret_is_in_answers_logs_or_traces(
    box: Box, caplog: pytest.LogCaptureFixture
) -> None:
    box.put_secret("one")
    trace = uuid.uuid4().hex
    headers = [("traceparent", f"00-{trace}-00f067aa0ba902b7-01"), ("content-type", "application/json")]
    with collecting() as collector:
        at = await box.gateway(otlp_endpoint=collector.url, allowed_upstreams=f"127.0.0.1:{box.api.port}")
        await box.toolbox("t", api(box))
        params = {"name": "list_tickets", "arguments": {"text": "leak"}}
        said = await box.rpc("tools/call", params, at=at, headers=headers)
        async with asyncio.timeout(WITHIN):
            while not (found := collector.trace(trace)):
                await asyncio.sleep(0.05)
    assert said.body.count(b"[credential]") == 1 and TOKEN not in said.body.decode()
    (span,) = found
    held = "".join([str(each) for each in await box.everything()])
    assert "list_tickets" in held, "the journal is looked through"
    for sink in (held, caplog.text, span.raw.decode("latin-1")):
        assert TOKEN not in sink and SECRET not in sink


async def test_a_token_server_that_hangs_costs_nothing_while_the_token_counts(box: Box) -> None:
    now = [0.0]
    with serving_tokens("") as auth:
        auth.assertion = lambda _: True
        gateway = await box.gateway(allowed_upstreams=f"127.0.0.1:{auth.port}")
        tokens, order = Tokens(gateway.core.upstreams, lambda: now[0]), Order("k", f"{auth.url}/token", "c", "s", (), True, ())  # fmt: skip
        first = await tokens.get(order, 10)
        auth.gate, now[0] = threading.Event(), 3500.0  # of 3600
        assert await asyncio.gather(*(tokens.get(order, 0.5) for _ in range(3))) == [first] * 3
        assert len(auth.asked) == 2, "one asks, and nobody waits for it"
        now[0] = 3601.0
        with pytest.raises(ToolFault, match="did not answer in time"):
            await tokens.get(order, 0.5)
        tokens.drop(order, first)
        auth.gate.set()
        assert await tokens.get(order, 10) != first
