"""The stock `mcp` client of either era at a toolbox, before stock `mcp` servers of either era: lists, calls, and meets its calls again."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
import uvicorn
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.server import MCPServer

from component.tools.conftest import WITHIN, Box
from moorage_api.wire import calls as wire

pytestmark = pytest.mark.component


class Door(httpx2.AsyncBaseTransport):
    """What the shim does with a request, less the shim: numbered, and said to the gateway as a call."""

    def __init__(self, box: Box) -> None:
        self._box = box

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        headers = [(name.lower(), value) for name, value in request.headers.items() if name.lower() in wire.PASSED]
        call = self._box.call(
            "", body=await request.aread(), target=request.url.raw_path.decode(), method=request.method, headers=headers
        )
        said = await self._box.ask(call)
        kept = {name: value for name, value in said.headers.items() if name in ("content-type", "allow")}
        return httpx2.Response(said.status, headers=kept, content=said.body, request=request)


@contextlib.asynccontextmanager
async def client(box: Box, mode: str, query: str = "") -> AsyncIterator[Client]:
    """The stock client at `/toolboxes/t/mcp`."""
    async with httpx2.AsyncClient(transport=Door(box), timeout=WITHIN) as http:
        transport = streamable_http_client(f"http://127.0.0.1:8099/toolboxes/t/mcp{query}", http_client=http)
        async with Client(transport, mode=mode) as made:
            yield made


@contextlib.asynccontextmanager
async def stock_server(ran: list[int], *, sse: bool = False, **options: Any) -> AsyncIterator[int]:
    """A server made with the stock library; its port. `sse`: over the older transport."""
    made = MCPServer("stock")

    @made.tool()
    def double(number: int) -> int:
        """Twice the number."""
        ran.append(number)
        return 2 * number

    listener = socket.create_server(("127.0.0.1", 0))
    app = made.sse_app() if sse else made.streamable_http_app(**options)
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="on", ws="none"))
    serving = asyncio.ensure_future(server.serve(sockets=[listener]))
    try:
        async with asyncio.timeout(WITHIN):
            while not server.started:
                await asyncio.sleep(0.02)
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await asyncio.wait_for(serving, WITHIN)
        listener.close()


@pytest.mark.parametrize("mode", ["legacy", "auto", "2026-07-28"])
async def test_a_stock_client_lists_and_calls_and_a_later_attempt_meets_what_it_did(box: Box, mode: str) -> None:
    for _ in range(2):
        async with client(box, mode) as made:
            tools = (await made.list_tools()).tools
            assert [tool.name for tool in tools] == ["add", "get_one", "put"]
            texts = []
            for text in ("x", "y", "x"):
                result = await made.call_tool("add", {"text": text})
                assert not result.is_error
                texts += [part.text for part in result.content]
            assert texts == ["add 1: x", "add 2: y", "add 3: x"]
            result = await made.call_tool("put", {"text": "cut"})
            assert result.is_error and result.content[0].text.startswith("outcome_unknown")
        await box.attempt()
    assert len(box.tools.ran) == 4


@pytest.mark.parametrize("options", [{}, {"json_response": True}, {"stateless_http": True}])
async def test_a_stock_server_is_an_upstream(box: Box, options: dict[str, Any]) -> None:
    ran: list[int] = []
    async with stock_server(ran, **options) as port:
        await box.gateway(allowed_upstreams=f"127.0.0.1:{port}")
        box.gateways.reverse()
        await box.toolbox("t", {"name": "stock", "mcp": {"url": f"http://127.0.0.1:{port}/mcp"}})
        async with client(box, "auto") as made:
            (tool,) = (await made.list_tools()).tools
            assert tool.name == "double" and tool.input_schema["required"] == ["number"]
            result = await made.call_tool("double", {"number": 21})
            assert result.structured_content == {"result": 42} and result.content[0].text == "42"
        await box.attempt()
        async with client(box, "legacy") as made:
            assert (await made.call_tool("double", {"number": 21})).structured_content == {"result": 42}
    assert ran == [21]


async def test_a_stock_server_of_the_older_transport_is_an_upstream(box: Box) -> None:
    ran: list[int] = []
    async with stock_server(ran, sse=True) as port:
        await box.gateway(allowed_upstreams=f"127.0.0.1:{port}")
        box.gateways.reverse()
        await box.toolbox("t", {"name": "s", "mcp": {"url": f"http://127.0.0.1:{port}/sse", "transport": "sse"}})
        for _ in range(2):
            async with client(box, "auto") as made:
                assert [tool.name for tool in (await made.list_tools()).tools] == ["double"]
                assert (await made.call_tool("double", {"number": 21})).structured_content == {"result": 42}
            await box.attempt()
    assert ran == [21]


async def test_a_stock_client_reads_what_an_api_answers(box: Box) -> None:
    await box.toolbox("t", {"name": "one", "openapi": {"server": box.api.url, "url": box.api.document_url}})
    async with client(box, "auto") as made:
        tools = {tool.name: tool for tool in (await made.list_tools()).tools}
        assert tools["get_ticket"].input_schema["required"] == ["id"]
        kinds = []
        for text in ("x", "picture", "bytes", "status 404"):
            result = await made.call_tool("list_tickets", {"text": text})
            kinds.append((result.is_error, [part.type for part in result.content]))
    assert kinds == [(False, ["text"]), (False, ["image"]), (False, ["resource"]), (True, ["text", "text"])]
