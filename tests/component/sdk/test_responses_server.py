"""`python host.py` alone serves the Responses API to the stock client."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

pytestmark = pytest.mark.component

ECHO = """
from moorage import HostedAgent, text_of

def agent(items, ctx):
    yield "You said "
    yield text_of(items)
    yield f" after {len(ctx.history)} items"

HostedAgent(agent=agent).serve()
"""

EVENTS = """
from moorage import HostedAgent, ReasoningDelta, TextDelta, ToolCall, ToolResult, Usage

async def agent(items, ctx):
    yield ReasoningDelta("hm")
    yield ToolCall("c1", "look", {"at": 1})
    yield ToolResult("c1", "seen")
    yield TextDelta("done")
    yield Usage(3, 4)

HostedAgent(agent=agent).serve()
"""

SLOW = """
import asyncio, pathlib
from moorage import HostedAgent, text_of

async def agent(items, ctx):
    mark = pathlib.Path(text_of(items))
    try:
        yield "began"
        mark.with_suffix(".began").touch()
        await asyncio.Event().wait()
    finally:
        mark.with_suffix(".ended").touch()

HostedAgent(agent=agent).serve()
"""

SLOW_SYNC = """
import pathlib
from moorage import HostedAgent, text_of

def agent(items, ctx):
    mark = pathlib.Path(text_of(items))
    yield "began"
    mark.with_suffix(".began").touch()
    ctx.cancelled.wait(60)
    mark.with_suffix(".ended").touch()

HostedAgent(agent=agent).serve()
"""


def client(url: str, **options: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=url, api_key="any", max_retries=0, timeout=20, **options)


async def appears(path: Path) -> None:
    end = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < end, f"{path} never appeared"
        await asyncio.sleep(0.01)


def test_the_stock_client_creates_and_continues(run_agent: Any) -> None:
    agent = run_agent(ECHO)
    with client(agent.url) as c:
        first = c.responses.create(model="any", input="one")
        assert first.output_text == "You said one after 0 items" and first.status == "completed"
        second = c.responses.create(model="any", input="two", previous_response_id=first.id)
        assert second.output_text == "You said two after 2 items"
        assert c.responses.retrieve(first.id).output_text == first.output_text
        listed = c.responses.input_items.list(first.id)
        assert [item.type for item in listed.data] == ["message"]
        c.responses.delete(first.id)
        with pytest.raises(openai.NotFoundError):
            c.responses.retrieve(first.id)
        with pytest.raises(openai.BadRequestError) as refused:
            c.responses.create(model="any", input="x", previous_response_id=first.id)
        assert refused.value.code == "previous_response_not_found"
    assert f"serves at {agent.url}" in agent.log and "curl" in agent.log


def test_the_stock_clients_streaming_helper_reads_every_event(run_agent: Any) -> None:
    with client(run_agent(EVENTS).url) as c, c.responses.stream(model="any", input="x") as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert kinds[0] == "response.created" and kinds[-1] == "response.completed"
    assert [item.type for item in final.output] == ["reasoning", "function_call", "function_call_output", "message"]
    assert final.output_text == "done" and final.usage is not None and final.usage.total_tokens == 7


async def test_the_async_client_streams(run_agent: Any) -> None:
    async with openai.AsyncOpenAI(base_url=run_agent(ECHO).url, api_key="any", max_retries=0) as c:
        stream = await c.responses.create(model="any", input="x", stream=True)
        events = [event async for event in stream]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == "You said x after 0 items"


def test_an_exception_is_a_failed_response_and_its_traceback_is_in_the_log(run_agent: Any) -> None:
    agent = run_agent(
        """
from moorage import HostedAgent
def agent(items, ctx):
    yield "so far"
    raise KeyError("gone")
HostedAgent(agent=agent).serve()
"""
    )
    with client(agent.url) as c:
        failed = c.responses.create(model="any", input="x")
        assert failed.status == "failed" and failed.error is not None
        assert failed.error.code == "server_error" and failed.error.message == "KeyError: 'gone'"
        assert failed.output_text == "so far"
        events = list(c.responses.create(model="any", input="x", stream=True))
    assert [event.type for event in events[-2:]] == ["error", "response.failed"]
    assert "Traceback" in agent.log and "KeyError: 'gone'" in agent.log


@pytest.mark.parametrize("source", [SLOW, SLOW_SYNC])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_cancels_a_foreground_run(
    run_agent: Any, tmp_path: Path, source: str, stream: bool
) -> None:
    agent = run_agent(source)
    mark = tmp_path / "mark"

    async def call() -> None:
        async with httpx2.AsyncClient(timeout=30) as http:
            await http.post(f"{agent.url}/responses", json={"input": str(mark), "stream": stream})

    task = asyncio.create_task(call())
    await appears(mark.with_suffix(".began"))
    assert not mark.with_suffix(".ended").exists()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await appears(mark.with_suffix(".ended"))
    assert "Traceback" not in agent.log


def test_a_background_run_is_polled_streamed_again_and_cancelled(run_agent: Any, tmp_path: Path) -> None:
    with client(run_agent(SLOW).url) as c:
        mark = tmp_path / "mark"
        begun = list_until_text(c.responses.create(model="any", input=str(mark), background=True, stream=True))
        response_id = begun[0].response.id
        assert c.responses.retrieve(response_id).status == "in_progress"
        again = list_until_text(c.responses.retrieve(response_id, stream=True, starting_after=1))
        assert again[0].sequence_number == 2
        cancelled = c.responses.cancel(response_id)
        assert cancelled.status == "cancelled" and mark.with_suffix(".ended").exists()
        assert c.responses.cancel(response_id).status == "cancelled"
        whole = list(c.responses.retrieve(response_id, stream=True))
        assert [e.sequence_number for e in whole] == list(range(len(whole))) and whole[-1].type == "response.failed"
        c.responses.delete(response_id)


def list_until_text(stream: Any) -> list[Any]:
    found = []
    for event in stream:
        found.append(event)
        if event.type == "response.output_text.delta":
            stream.close()
            break
    return found


def test_a_foreground_response_cannot_be_cancelled_or_streamed_again(run_agent: Any) -> None:
    with client(run_agent(ECHO).url) as c:
        made = c.responses.create(model="any", input="x")
        with pytest.raises(openai.BadRequestError, match="synchronous"):
            c.responses.cancel(made.id)
        with pytest.raises(openai.BadRequestError, match="background"):
            c.responses.retrieve(made.id, stream=True)


def test_what_the_platform_gives_reaches_the_agent(run_agent: Any, tmp_path: Path) -> None:
    agent = run_agent(
        """
import json
from moorage import HostedAgent
def agent(items, ctx):
    ctx.state["n"] = ctx.state.get("n", 0) + 1
    (ctx.workspace / "mine").write_text("x")
    whose = [ctx.response_id, ctx.user, ctx.session]
    return json.dumps([ctx.history, ctx.attempt, *whose, dict(ctx.headers), str(ctx.workspace), ctx.state["n"]])
HostedAgent(agent=agent).serve()
""",
        MOORAGE_WORKSPACE=str(tmp_path),
        HOME=str(tmp_path),
    )
    response_id = "caresp_0123456789abcdef00" + "A" * 32

    def call(turn: str, attempt: int) -> list[Any]:
        body = {
            "input": "x",
            "stream": True,
            "background": True,
            "moorage": {"history": [{"type": "message"}], "attempt": attempt},
        }
        headers = {
            "x-agent-response-id": response_id,
            "x-agent-user-id": "u1",
            "x-moorage-turn": turn,
            "x-moorage-session": "session-1",
            "x-client-tag": "t",
        }
        answer = httpx2.post(f"{agent.url}/responses", json=body, headers=headers, timeout=20)
        events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]
        assert events[-1]["response"]["id"] == response_id  # and no [DONE]: the gateway ends the stream
        found: list[Any] = json.loads(events[-1]["response"]["output"][0]["content"][0]["text"])
        return found

    assert call("t1", 2) == [
        [{"type": "message"}], 2, response_id, "u1", "session-1", {"x-client-tag": "t"}, str(tmp_path), 1,
    ]  # fmt: skip
    assert call("t1", 3)[-1] == 1, "another attempt starts from the state that the first one found"
    assert call("t2", 1)[-1] == 2
    assert (tmp_path / "mine").exists()
    assert httpx2.get(f"{agent.url}/responses/{response_id}").status_code == 404


def test_health_and_unknown_paths(run_agent: Any) -> None:
    agent = run_agent(ECHO)
    assert httpx2.get(f"{agent.url}/readiness").json() == {"status": "healthy"}
    for path in ("/liveness", "/", "/invocations", "/responses/x/y/z"):
        answer = httpx2.get(f"{agent.url}{path}")
        assert answer.status_code == 404 and answer.json()["error"]["message"]
    assert httpx2.put(f"{agent.url}/responses").status_code == 405
    assert httpx2.post(f"{agent.url}/responses", content=b"{").status_code == 400


def test_a_flag_that_differs_from_the_manifest_makes_it_not_ready(run_agent: Any) -> None:
    source = "from moorage import HostedAgent\nHostedAgent(agent=lambda i, c: 'x', durable_state=True).serve()\n"
    agent = run_agent(source, MOORAGE_MANIFEST='{"turn": {"durableState": false}}')
    answer = httpx2.get(f"{agent.url}/readiness")
    assert answer.status_code == 503 and answer.json()["error"]["field"] == "turn.durableState"
    assert httpx2.post(f"{agent.url}/responses", json={}).status_code == 503


async def test_sigterm_lets_a_running_turn_end_and_exits_0(run_agent: Any, tmp_path: Path) -> None:
    agent = run_agent(
        """
import asyncio, pathlib
from moorage import HostedAgent, text_of
async def agent(items, ctx):
    mark = pathlib.Path(text_of(items))
    mark.with_suffix(".began").touch()
    while not mark.with_suffix(".go").exists():
        await asyncio.sleep(0.01)
    yield "whole"
HostedAgent(agent=agent).serve()
"""
    )
    mark = tmp_path / "mark"
    async with httpx2.AsyncClient(timeout=30) as http:
        call = asyncio.create_task(http.post(f"{agent.url}/responses", json={"input": str(mark)}))
        await appears(mark.with_suffix(".began"))
        agent.process.terminate()
        await listening_ends(agent.url)
        mark.with_suffix(".go").touch()
        assert (await call).json()["output"][0]["content"][0]["text"] == "whole"
    assert agent.process.wait(20) == 0


async def listening_ends(url: str) -> None:
    port = int(url.rsplit(":", 1)[1])
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except ConnectionRefusedError:
            return
        await asyncio.sleep(0.01)
    pytest.fail("it still listens")


def test_a_taken_port_is_said_in_one_line(run_agent: Any) -> None:
    first = run_agent(ECHO)
    second = run_agent(ECHO, ready=False, PORT=first.url.rsplit(":", 1)[1])
    assert second.process.wait(20) == 1
    assert second.log.strip().startswith("moorage: cannot listen on") and "set PORT" in second.log
    assert "Traceback" not in second.log


def test_a_silent_stream_is_kept_alive_by_comments(run_agent: Any, tmp_path: Path) -> None:
    agent = run_agent(
        """
import dataclasses
from moorage.serve import settings
real = settings.from_environ
settings.from_environ = lambda *a, **k: dataclasses.replace(real(*a, **k), keep_alive=0.05)
"""
        + SLOW
    )
    with httpx2.stream(
        "POST", f"{agent.url}/responses", json={"input": str(tmp_path / "m"), "stream": True}, timeout=20
    ) as answer:
        comments = (line for line in answer.iter_lines() if line.startswith(":"))
        assert next(comments) == next(comments) == ": keep-alive"
