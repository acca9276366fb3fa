"""MCP's own conformance suite at a toolbox, both revisions. What does not pass is named here with its reason, and nothing else may fail.

Behind the toolbox is a stock server with the tools that the scenarios name. Between suite and gateway stands what a shim does.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvicorn
from mcp.server import MCPServer
from mcp_types import AudioContent, EmbeddedResource, ImageContent, TextContent, TextResourceContents

from component.tools import conformance
from component.tools.conftest import WITHIN, Box
from moorage_api.wire import calls as wire
from moorage_sandbox.boundary import from_elsewhere

pytestmark = [pytest.mark.component, pytest.mark.index, pytest.mark.timeout(600)]

TOOLS_ONLY = "a toolbox has tools, and neither resources nor prompts nor completion"
ONE_ANSWER = "a call has one answer: progress and logs of a tool are not passed on"
NO_QUESTIONS = "a tool asks nobody: sampling, elicitation and roots are not passed on"

LACKING = {
    "2025-11-25": {
        **dict.fromkeys(
            (
                "completion-complete", "resources-list", "resources-read-text", "resources-read-binary", "resources-templates-read",
                "resources-subscribe", "resources-unsubscribe", "prompts-list", "prompts-get-simple", "prompts-get-with-args",
                "prompts-get-embedded-resource", "prompts-get-with-image",
            ),
            TOOLS_ONLY,
        ),
        **dict.fromkeys(("logging-set-level", "tools-call-with-logging", "tools-call-with-progress"), ONE_ANSWER),
        **dict.fromkeys(
            ("tools-call-sampling", "tools-call-elicitation", "elicitation-sep1034-defaults", "elicitation-sep1330-enums"), NO_QUESTIONS
        ),
    },
    "2026-07-28": {
        **dict.fromkeys(
            (
                "completion-complete", "resources-list", "resources-read-text", "resources-read-binary", "resources-templates-read",
                "prompts-list", "prompts-get-simple", "prompts-get-with-args", "prompts-get-embedded-resource", "prompts-get-with-image",
                "caching",  # its parts for tools and discovery pass
            ),
            TOOLS_ONLY,
        ),
        "tools-call-with-progress": ONE_ANSWER,
        **dict.fromkeys(
            (
                "server-stateless",  # its 23 parts but the two of a tool that needs sampling pass
                "input-required-result-basic-elicitation", "input-required-result-basic-sampling",
                "input-required-result-basic-list-roots", "input-required-result-request-state",
                "input-required-result-multiple-input-requests", "input-required-result-multi-round",
                "input-required-result-non-tool-request", "input-required-result-result-type",
                "input-required-result-tampered-state", "input-required-result-capability-check",
            ),
            NO_QUESTIONS,
        ),
    },
}  # fmt: skip
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
SILENCE = "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAA="


def fixture() -> MCPServer:
    """The tools that the scenarios name."""
    made = MCPServer("conformance")
    image = ImageContent(type="image", data=PIXEL, mimeType="image/png")
    audio = AudioContent(type="audio", data=SILENCE, mimeType="audio/wav")

    def resource(uri: str, kind: str, text: str) -> EmbeddedResource:
        return EmbeddedResource(type="resource", resource=TextResourceContents(uri=uri, mimeType=kind, text=text))

    def gives(name: str, *parts: Any) -> None:
        made.tool(name=name, description=name)(lambda: list(parts))

    gives("test_simple_text", TextContent(type="text", text="This is a simple text response for testing."))
    gives("test_image_content", image)
    gives("test_audio_content", audio)
    gives("test_embedded_resource", resource("test://embedded-resource", "text/plain", "An embedded resource."))
    mixed = resource("test://mixed-content-resource", "application/json", '{"test":"data","value":123}')
    gives("test_multiple_content_types", TextContent(type="text", text="Multiple content types test:"), image, mixed)

    @made.tool()
    def test_error_handling() -> str:
        """Fails."""
        raise ValueError("This tool intentionally returns an error for testing")

    return made


@contextlib.asynccontextmanager
async def served(app: Any, lifespan: str) -> AsyncIterator[int]:
    """An ASGI app on a port of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(app, log_level="critical", log_config=None, lifespan=lifespan, ws="none")
        server = uvicorn.Server(config)
        serving = asyncio.ensure_future(server.serve(sockets=[listener]))
        try:
            async with asyncio.timeout(WITHIN):
                while not server.started:
                    await asyncio.sleep(0.02)
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            await asyncio.wait_for(serving, WITHIN)


def door(box: Box) -> Any:
    """What a shim does with a request: a relayed call, so that nothing is recorded."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        status, headers, data = 403, [], b""
        if not from_elsewhere(scope["headers"]):
            passed = [(n.decode(), v.decode()) for n, v in scope["headers"] if n.decode() in wire.PASSED]
            said = await box.ask(
                box.call(
                    "", body=body, target="/toolboxes/t/mcp", method=scope["method"], headers=passed, turn="", begun=0, number=0
                )
            )  # fmt: skip
            headers = [(n.encode(), v.encode()) for n, v in said.headers.items() if n in ("content-type", "allow")]
            status, data = said.status, said.body
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": data})

    return app


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_the_suite_passes_for_both_revisions_but_for_what_is_named(box: Box) -> None:
    try:
        suite = await asyncio.to_thread(conformance.installed)
    except conformance.NoSuite as why:
        pytest.skip(str(why))
    async with (
        served(fixture().streamable_http_app(), "on") as upstream,
        served(door(box), "off") as port,
    ):
        await box.gateway(allowed_upstreams=f"127.0.0.1:{upstream}")
        box.gateways.reverse()
        await box.toolbox("t", {"name": "stock", "mcp": {"url": f"http://127.0.0.1:{upstream}/mcp"}})
        for revision, lacking in LACKING.items():
            found = await asyncio.to_thread(conformance.run, suite, f"http://127.0.0.1:{port}/mcp", revision)
            assert {name for name, passed in found.items() if not passed} == set(lacking), revision
            assert len(found) - len(lacking) >= 10, revision
