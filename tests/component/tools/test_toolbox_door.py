"""The door that agents speak MCP at: both eras of the protocol, handshakes, and what is no request (turns.md §6)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from component.tools.conftest import Box

pytestmark = pytest.mark.component
NEW = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "c", "version": "1"},
}


def headed(method: str, name: str = "") -> list[tuple[str, str]]:
    found = [("mcp-protocol-version", "2026-07-28"), ("mcp-method", method)]
    return [*found, ("mcp-name", name)] if name else found


async def test_both_eras_of_the_protocol_meet_the_same_call(box: Box) -> None:
    assert await box.run("x") == ("add 1: x", False)
    await box.attempt()
    params = {"name": "add", "arguments": {"text": "x"}, "_meta": {**NEW, "traceparent": "00-1"}}
    said = await box.rpc("tools/call", params, headers=headed("tools/call", "add"))
    assert said.replayed and said.json["result"] == {
        "content": [{"type": "text", "text": "add 1: x"}], "isError": False, "resultType": "complete",
    }  # fmt: skip


async def test_a_toolbox_that_an_agent_may_not_use_is_refused_with_what_to_do(box: Box) -> None:
    for name, says in (("other", "add it to spec.toolboxes"), ("gone", "There is no Toolbox 'gone'")):
        box.given = ["gone", "t"]
        await box.toolbox("t")
        said = await box.rpc("tools/list", box=name)
        assert said.status == 403 and says in said.json["error"]["message"]
    other = await box.rpc("tools/list", box="t/../t")
    assert other.status == 404


async def test_handshakes_are_answered_here_and_nobody_is_asked(box: Box) -> None:
    await box.toolbox("t", box.upstream(), description="Use it well.")
    for asked, given in (("2025-03-26", "2025-03-26"), ("2099-01-01", "2025-11-25")):
        said = (await box.rpc("initialize", {"protocolVersion": asked, "capabilities": {}})).json["result"]
        assert said["protocolVersion"] == given and said["capabilities"] == {"tools": {}}
        assert said["instructions"] == "Use it well." and said["serverInfo"]["name"] == "moorage/t"
    assert (await box.rpc("ping")).json["result"] == {}
    body = json.dumps({"jsonrpc": "2.0", "method": "notifications/initialized"}).encode()
    done = await box.chat("", body=body, target="/toolboxes/t/mcp")
    assert (done.status, done.body) == (202, b"")
    said = (await box.rpc("server/discover", {"_meta": NEW}, headers=headed("server/discover"))).json["result"]
    assert said["supportedVersions"][0] == "2026-07-28" and said["resultType"] == "complete"
    assert box.tools.methods == [] and await box.journal.entries(box.turn) == []


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (b"{", [], 400, -32700),
        (b"[]", [], 400, -32600),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": ' + b'{"a":' * 300 + b"1" + b"}" * 301, [], 400, -32600),
        (b'{"id": 1, "method": "ping"}', [], 400, -32600),
        (b'{"jsonrpc": "2.0", "id": null, "method": "ping"}', [], 400, -32600),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "ping", "params": []}', [], 400, -32602),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "resources/list"}', [], 200, -32601),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "ping"}', [("mcp-protocol-version", "1999-01-01")], 400, -32022),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"cursor": "2"}}', [], 200, -32602),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": 7}}', [], 200, -32602),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "tools/list"}', headed("tools/list"), 400, -32602),
        (json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": NEW}}).encode(),
         headed("tools/call"), 400, -32020),
        (json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "add", "_meta": NEW}}).encode(),
         headed("tools/call", "put"), 400, -32020),
        (json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"_meta": NEW}}).encode(),
         headed("initialize"), 404, -32601),
        (json.dumps({"jsonrpc": "2.0", "id": 1, "method": "prompts/list", "params": {"_meta": NEW}}).encode(),
         headed("prompts/list"), 404, -32601),
    ],
)  # fmt: skip
async def test_what_is_no_request_is_refused_in_the_protocols_own_form(
    box: Box, body: bytes, headers: Any, status: int, code: int
) -> None:
    said = await box.chat("", body=body, headers=headers, target="/toolboxes/t/mcp")
    assert (said.status, said.json["error"]["code"]) == (status, code), said


async def test_there_is_no_stream_to_get_and_no_session_to_delete(box: Box) -> None:
    for method in ("GET", "DELETE"):
        said = await box.chat("", method=method, body=b"", target="/toolboxes/t/mcp")
        assert said.status == 405 and said.headers["allow"] == "POST"
