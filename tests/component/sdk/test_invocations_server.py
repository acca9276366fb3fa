"""`/invocations` passes any method, body and content type, streamed both ways as it comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

pytestmark = pytest.mark.component

HANDLER = """
import asyncio, pathlib
from moorage import HostedAgent, Response

async def handler(request):
    match request.path:
        case "/json":
            return {"method": request.method, "query": request.query, "got": await request.json()}
        case "/bytes":
            return bytes(range(256))
        case "/nothing":
            return None
        case "/teapot":
            return Response("short and stout", status=418, headers={"X-Pot": "1"})
        case "/echo":
            return echo(request)
        case "/fail":
            raise LookupError("nope")
        case "/cut":
            return cut()
        case "/forever":
            return forever(pathlib.Path(request.headers["x-mark"]))

async def echo(request):
    async for chunk in request.stream():
        yield chunk

async def cut():
    yield b"half"
    raise LookupError("nope")

async def forever(mark):
    try:
        while True:
            yield b"x"
            await asyncio.sleep(0.01)
    finally:
        mark.touch()

HostedAgent(invocations=handler).serve()
"""

BLOCKING = """
from moorage import HostedAgent

def handler(request):
    if request.path == "/parts":
        return iter([b"a", "b"])
    return request.text().upper()

HostedAgent(agent=lambda items, ctx: "hi", invocations=handler).serve()
"""

ASGI = """
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from moorage import HostedAgent

async def hello(request):
    return PlainTextResponse(f"{request.method} {request.url.path}")

HostedAgent(invocations=Starlette(routes=[Route("/invocations/{rest:path}", hello, methods=["GET", "DELETE"])])).serve()
"""


def test_functions_answer_json_bytes_text_and_statuses(run_agent: Any) -> None:
    url = run_agent(HANDLER).url + "/invocations"
    answer = httpx2.patch(f"{url}/json?a=1", json={"x": 1})
    assert answer.json() == {"method": "PATCH", "query": "a=1", "got": {"x": 1}}
    assert answer.headers["content-type"] == "application/json"
    assert httpx2.get(f"{url}/bytes").content == bytes(range(256))
    assert httpx2.get(f"{url}/nothing").status_code == 204
    pot = httpx2.get(f"{url}/teapot")
    assert (pot.status_code, pot.text, pot.headers["x-pot"]) == (418, "short and stout", "1")
    assert httpx2.post(f"{url}/json", content=b"{").status_code == 400


def test_an_exception_is_a_500_before_the_answer_and_a_cut_answer_after_it(run_agent: Any) -> None:
    agent = run_agent(HANDLER)
    answer = httpx2.get(f"{agent.url}/invocations/fail")
    assert answer.status_code == 500 and answer.json()["error"]["message"] == "LookupError: nope"
    with pytest.raises(httpx2.RemoteProtocolError):
        httpx2.get(f"{agent.url}/invocations/cut")
    assert agent.log.count("Traceback") == 2


async def test_bytes_are_streamed_both_ways_while_the_request_is_still_being_sent(run_agent: Any) -> None:
    agent = run_agent(HANDLER)
    turns: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def body() -> AsyncIterator[bytes]:
        while (chunk := await turns.get()) is not None:
            yield chunk

    host, port = agent.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"POST /invocations/echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
    async with asyncio.timeout(20):
        for number in range(5):
            writer.write(b"2\r\n%d!\r\n" % number)
            seen = b""
            while b"%d!\r\n" % number not in seen:
                chunk = await reader.read(1024)
                assert chunk, "the answer ended early"
                seen += chunk
        writer.write(b"0\r\n\r\n")
        assert (await reader.read(1024)).endswith(b"0\r\n\r\n")
    writer.close()


async def test_a_caller_that_leaves_closes_the_handlers_generator(run_agent: Any, tmp_path: Any) -> None:
    agent = run_agent(HANDLER)
    mark = tmp_path / "closed"
    async with httpx2.AsyncClient(timeout=20) as http:
        async with http.stream("GET", f"{agent.url}/invocations/forever", headers={"x-mark": str(mark)}) as answer:
            async for _ in answer.aiter_bytes():
                break
    async with asyncio.timeout(20):
        while not mark.exists():
            await asyncio.sleep(0.01)
    assert "Traceback" not in agent.log


def test_blocking_handlers_and_both_protocols_from_one_program(run_agent: Any) -> None:
    url = run_agent(BLOCKING).url
    assert httpx2.post(f"{url}/invocations", content=b"loud").text == "LOUD"
    assert httpx2.get(f"{url}/invocations/parts").text == "ab"
    assert httpx2.post(f"{url}/responses", json={"input": "x"}).json()["status"] == "completed"


def test_an_asgi_application_gets_the_whole_path(run_agent: Any) -> None:
    url = run_agent(ASGI).url
    assert httpx2.delete(f"{url}/invocations/a/b").text == "DELETE /invocations/a/b"
    assert httpx2.post(f"{url}/responses", json={}).status_code == 404
