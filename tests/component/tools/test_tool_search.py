"""`toolSearch`: a model is shown two tools in place of all, finds those it needs, and calls them under the same promises."""

from __future__ import annotations

import json
from typing import Any

import pytest

from component.tools.conftest import Box
from component.tools.test_stock_clients import client
from fakes.http_api import DOCUMENT
from moorage_gateway.tools.pins import digest

pytestmark = pytest.mark.component

SCHEMA = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}


def tool(name: str, said: str) -> dict[str, Any]:
    return {"name": name, "description": said, "inputSchema": SCHEMA}


TOOLS = [
    tool("add", "Adds a text to the notebook."),
    tool("put", "Sends a parcel to a customer."),
    tool("issues_close", "Closes an issue of the tracker."),
    tool("issues_list", "Lists the issues of the tracker."),
    tool("invoice_create", "Makes an invoice."),
    tool("room_reserve", "Reserves a meeting room."),
]


async def searching(box: Box, **upstream: Any) -> None:
    box.tools.tools = list(TOOLS)
    await box.toolbox("t", box.upstream(**upstream), toolSearch=True)


async def found(box: Box, query: str, **more: Any) -> list[str]:
    said = await box.rpc("tools/call", {"name": "tool_search", "arguments": {"query": query, **more}})
    result = said.json["result"]
    assert not result["isError"], result
    return [each["name"] for each in json.loads(result["content"][0]["text"])["tools"]]


async def by_name(box: Box, name: str, text: str) -> tuple[str, bool, bool]:
    said = await box.rpc("tools/call", {"name": "call_tool", "arguments": {"name": name, "arguments": {"text": text}}})
    result = said.json["result"]
    return result["content"][0]["text"], result["isError"], said.replayed


@pytest.mark.parametrize("mode", ["legacy", "auto", "2026-07-28"])
async def test_a_stock_client_lists_searches_and_calls_and_a_later_attempt_meets_what_it_did(
    box: Box, mode: str
) -> None:
    await searching(box)
    for _ in range(2):
        async with client(box, mode) as made:
            assert [each.name for each in (await made.list_tools()).tools] == ["tool_search", "call_tool"]
            result = await made.call_tool("tool_search", {"query": "ship a package to a client", "limit": 2})
            best, _ = json.loads(result.content[0].text)["tools"]
            assert (best["name"], best["inputSchema"]) == ("put", SCHEMA)
            result = await made.call_tool("call_tool", {"name": best["name"], "arguments": {"text": "x"}})
            assert not result.is_error and result.content[0].text == "put 1: x"
        await box.attempt()
        box.tools.tools = []  # what the first attempt read is what the second one reads
    assert [each["tool"] for each in box.tools.ran] == ["put"]
    assert box.tools.methods.count("tools/list") == 1, "searches ask no server"


async def test_a_tool_called_by_call_tool_and_by_its_name_is_one_call(box: Box) -> None:
    await searching(box)
    assert await by_name(box, "add", "x") == ("add 1: x", False, False)
    text, error, _ = await by_name(box, "put", "cut")
    assert error and text.startswith("outcome_unknown")
    await box.attempt()
    assert await box.run("x") == ("add 1: x", False)
    assert (await by_name(box, "put", "cut"))[1:] == (True, True)
    text, error, _ = await by_name(box, "put", "y")
    assert not error, "its earlier call was met"
    await box.attempt()
    text, error, _ = await by_name(box, "add", "z")
    assert error and text.startswith("already_done_in_earlier_attempt")
    assert [(each["tool"], each["arguments"]["text"]) for each in box.tools.ran] == [
        ("add", "x"), ("put", "cut"), ("put", "y"),
    ]  # fmt: skip


@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_a_client_that_asks_to_search_is_shown_the_two_whatever_the_manifest_says_and_its_calls_are_the_same_calls(
    box: Box, mode: str
) -> None:
    box.tools.tools = list(TOOLS)
    await box.toolbox("t", box.upstream())
    given = {"name": "add", "arguments": {"text": "x"}}
    for order in (("?toolSearch=true", ""), ("", "?toolSearch=true")):
        for query in order:  # one attempt may be shown both lists: neither is met as the other one
            async with client(box, mode, query) as made:
                listed = [each.name for each in (await made.list_tools()).tools]
                assert listed == (["tool_search", "call_tool"] if query else [each["name"] for each in TOOLS])
        async with client(box, mode, order[0]) as made:
            result = await made.call_tool(*(("call_tool", given) if order[0] else ("add", given["arguments"])))
            assert result.content[0].text == "add 1: x"
        await box.attempt()
    assert [each["tool"] for each in box.tools.ran] == ["add"], "by `call_tool` or by its name, it is one call"


async def test_a_client_may_be_shown_all_where_the_manifest_has_it_search(box: Box) -> None:
    await searching(box)
    async with client(box, "auto", "?toolSearch=false") as made:
        assert [each.name for each in (await made.list_tools()).tools] == [each["name"] for each in TOOLS]
        result = await made.call_tool("add", {"text": "x"})
        assert result.content[0].text == "add 1: x"


@pytest.mark.parametrize("query", ["toolSearch=yes", "toolSearch", "toolSearch=true&toolSearch=true", "limit=3"])
async def test_what_else_stands_behind_a_toolboxs_url_is_refused_with_what_may(box: Box, query: str) -> None:
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    said = await box.chat("", body=json.dumps(message).encode(), target=f"/toolboxes/t/mcp?{query}")
    assert said.status == 400 and "?toolSearch=true or ?toolSearch=false" in said.json["error"]["message"]


async def test_what_agents_may_not_call_is_neither_found_nor_called(box: Box) -> None:
    pinned = {"put": digest(TOOLS[1]), "room_reserve": f"sha256:{'0' * 64}"}
    await searching(box, deny=["issues_*"], rename={"invoice_create": "bill"}, pin=pinned)
    said = (await box.rpc("tools/list")).json["result"]
    assert said["_meta"] == {"dev.moorage/heldBack": ["room_reserve"]}
    every = {
        name
        for query in ("close issues of the tracker", "reserve room", "invoice")
        for name in await found(box, query, limit=20)
    }
    assert every <= {"add", "put", "bill"} and "bill" in every
    assert (await by_name(box, "bill", "x"))[0] == "invoice_create 1: x"
    for name, words in (
        ("issues_close", "There is no tool"),
        ("invoice_create", "There is no tool"),
        ("room_reserve", "approved"),
    ):
        text, error, _ = await by_name(box, name, "x")
        assert error and words in text
    assert len(box.tools.ran) == 1


async def test_a_search_reads_the_tools_as_they_are_and_asks_once(box: Box) -> None:
    await searching(box)
    assert await found(box, "close an issue", limit=1) == ["issues_close"]
    assert await found(box, "list issues", limit=1) == ["issues_list"]
    assert box.tools.methods.count("tools/list") == 1
    box.tools.tools = [tool("issues_shut", "Closes an issue of the tracker.")]
    await box.rpc("tools/list")
    assert await found(box, "close an issue", limit=1) == ["issues_shut"]
    await box.toolbox("t", box.upstream(), toolSearch=False)
    assert [each["name"] for each in (await box.rpc("tools/list")).json["result"]["tools"]] == ["issues_shut"]


async def test_a_tool_is_found_by_what_its_server_calls_itself_in_both_eras_and_in_a_document(box: Box) -> None:
    for server, title in ((box.tools, "Corner Shop"), (box.old, "Hospital Ward")):
        server.tools, server.title = [tool("entries_list", "Lists entries.")], title
    listed = {"get": {"operationId": "entries_list", "summary": "Lists entries."}}
    box.api.document = DOCUMENT | {"info": {"title": "Garden Shed API", "version": "1"}, "paths": {"/entries": listed}}
    await box.toolbox(
        "t",
        box.upstream(),
        {"name": "two", "mcp": {"url": box.old.url}},
        {"name": "three", "openapi": {"url": box.api.document_url, "server": box.api.url}},
        toolSearch=True,
    )
    for place, name in (("corner shop", "one"), ("hospital ward", "two"), ("garden shed", "three")):
        assert (await found(box, f"entries of the {place}", limit=1))[0].startswith(name), place


async def test_a_tool_is_found_by_the_manifests_examples_under_the_name_that_it_gives_and_names_of_no_tool_are_told(
    box: Box,
) -> None:
    await searching(box)
    asked = {"invoice_create": ["bounce the warehouse"], "invoice_creat": ["x"]}
    more = box.upstream(rename={"invoice_create": "bill"}, examples=asked)
    await box.toolbox("t", more, toolSearch=True)
    assert await found(box, "bounce our warehouse", limit=1) == ["bill"]
    trials, (entry,) = box.gateways[0].core.trials, box.gateways[0].core.catalog.toolboxes("acme")
    told = (await trials.tools(entry, "u")).left_out
    assert list(told) == ["one: invoice_creat"] and "no tool of that name" in told["one: invoice_creat"]


async def test_a_manifest_whose_examples_change_is_searched_anew_though_its_server_says_the_same(box: Box) -> None:
    for name in ("add", "room_reserve"):
        box.tools.tools = list(TOOLS)
        await box.toolbox("t", box.upstream(examples={name: ["bounce the warehouse"]}), toolSearch=True)
        assert await found(box, "bounce the warehouse", limit=1) == [name]


async def test_a_server_that_tells_no_list_is_said_to_the_model(box: Box) -> None:
    await searching(box)
    box.tools.listing = "status 500"
    said = await box.rpc("tools/call", {"name": "tool_search", "arguments": {"query": "close an issue"}})
    result = said.json["result"]
    assert result["isError"] and result["_meta"] == {"dev.moorage/outcome": "unreachable"}
    assert "told its tools" in result["content"][0]["text"]


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("tool_search", {}, "needs a 'query'"),
        ("tool_search", {"query": " "}, "needs a 'query'"),
        ("tool_search", {"query": "x" * 2001}, "needs a 'query'"),
        ("tool_search", {"query": "x", "limit": 21}, "from 1 to 20"),
        ("tool_search", {"query": "x", "limit": True}, "from 1 to 20"),
        ("call_tool", {"arguments": {}}, "needs the 'name'"),
        ("call_tool", {"name": "add", "arguments": "{}"}, "is an object"),
        ("call_tool", {"name": "call_tool", "arguments": {}}, "There is no tool"),
    ],
)
async def test_a_model_that_asks_wrongly_reads_what_is_right(
    box: Box, name: str, arguments: dict[str, Any], words: str
) -> None:
    box.tools.tools = list(TOOLS)
    await box.toolbox("t", box.upstream(deny=["*_tool"]), toolSearch=True)
    said = await box.rpc("tools/call", {"name": name, "arguments": arguments})
    assert said.status == 200 and said.json["result"]["isError"]
    assert words in said.json["result"]["content"][0]["text"]
    said = await box.rpc("tools/call", {"name": name, "arguments": []})
    assert said.json["error"]["code"] == -32602
    assert box.tools.ran == []
