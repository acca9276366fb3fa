"""Calls of the agent at its door: numbered, proved, sent again, and broken off before the agent sees it (turns.md §6)."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from fakes.shim_world import FAST, World, until
from moorage_api.wire import calls as wire
from moorage_api.wire.calls import Call

pytestmark = pytest.mark.component

Behave = Callable[["Calls", asyncio.StreamWriter], Any]


class Calls:
    """A stand-in for a gateway's sandbox port: keeps calls and heads, answers announcements, behaves as it is told; decides nothing."""

    def __init__(self) -> None:
        self.calls: list[tuple[Call, bytes]] = []
        self.heads: list[bytes] = []
        self.plan: list[Behave] = []
        self.tasks: set[asyncio.Task[Any]] = set()
        self.may = asyncio.Event()

    async def start(self) -> None:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        self.server.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
                body = await reader.readexactly(int(fields[b"content-length"]))
                if b"/announce" in head:
                    said = b'{"ok":true,"epoch":1,"gateways":[]}'
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(said), said))
                    continue
                self.heads.append(head)
                self.calls.append(Call.decode(body))
                behave = self.plan.pop(0) if self.plan else answer(b"{}")
                if await behave(self, writer) is False:
                    break
        writer.close()


def answer(body: bytes, status: int = 200, **headers: str) -> Behave:
    async def do(_: Calls, writer: asyncio.StreamWriter) -> None:
        lines = {
            "content-length": str(len(body)),
            wire.ENTRY: "fp.0",
            **{k.replace("_", "-"): v for k, v in headers.items()},
        }
        text = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        writer.write(f"HTTP/1.1 {status} OK\r\n{text}\r\n".encode() + body)

    return do


def refuse(word: str, status: int = 503) -> Behave:
    return answer(b'{"error":"x"}', status, x_moorage_refused=word)


async def hang_up(_: Calls, writer: asyncio.StreamWriter) -> bool:
    writer.transport.abort()
    return False


async def half(calls: Calls, writer: asyncio.StreamWriter) -> bool:
    writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nx-moorage-entry: fp.0\r\n\r\n5\r\nhalf1\r\n")
    await writer.drain()
    await calls.may.wait()
    writer.transport.abort()
    return False


async def wait(calls: Calls, writer: asyncio.StreamWriter) -> None:
    await calls.may.wait()
    await answer(b'{"late":1}')(calls, writer)


@pytest.fixture
async def gateways() -> AsyncIterator[list[Calls]]:
    made = [Calls(), Calls()]
    for each in made:
        await each.start()
    yield made
    for each in made:
        await each.close()


@pytest.fixture
async def world(tmp_path: Path, gateways: list[Calls]) -> AsyncIterator[World]:
    urls = tuple(each.url for each in gateways)
    async with World(tmp_path, gateways=urls, variables=("OPENAI_BASE_URL", "OPENAI_API_KEY")) as made:
        assert await made.bind(gateways=list(urls)) == (200, {"bound": True, "epoch": 1})
        yield made


@pytest.fixture
async def agent() -> AsyncIterator[httpx2.AsyncClient]:
    """The agent's own client; what it says of itself must not matter."""
    async with httpx2.AsyncClient(
        timeout=20, headers={"authorization": "Bearer mine", "x-moorage-secret": "z"}
    ) as made:
        yield made


def door(world: World, path: str = "/models/~openai/v1/chat/completions") -> str:
    return f"http://127.0.0.1:{world.init.door_port}{path}"


def seen(gateways: list[Calls]) -> list[tuple[Call, bytes]]:
    return [call for each in gateways for call in each.calls]


async def test_a_call_goes_out_under_its_attempts_number_with_the_sandboxs_proof(world, gateways, agent):
    stream = await world.start([["wait", world.gate("go")]])
    await stream.acknowledged()
    gateways[0].plan = [answer(b'{"a":1}', content_type="application/json", x_request_id="r-1")]
    got = await agent.post(
        door(world) + "?x=1", json={"model": "m"}, headers={"openai-beta": "b", "x-stainless-os": "l"}
    )
    assert (got.status_code, got.json(), got.headers["x-request-id"]) == (200, {"a": 1}, "r-1")
    assert wire.ENTRY not in got.headers
    await agent.post(door(world), json={"model": "n"})
    (first, body), (second, _) = seen(gateways)
    assert (first.turn, first.begun, first.number, second.number) == ("caresp_1", 10, 1, 2)
    assert (first.session, first.epoch, first.resent) == ("dev:0123456789abcdef", 1, False)
    assert (first.method, first.target) == ("POST", "/models/~openai/v1/chat/completions?x=1")
    assert json.loads(body) == {"model": "m"}
    assert {name for name, _ in first.headers} <= wire.PASSED and ("openai-beta", "b") in first.headers
    assert all(b"authorization: Bearer tok.en\r\n" in head for head in gateways[0].heads + gateways[1].heads)
    world.pass_gate("go")
    await stream.rest()


async def test_the_numbers_of_another_attempt_begin_anew(world, gateways, agent):
    stream = await world.start([["event", {"type": "response.completed", "response": {"status": "completed"}}]])
    await stream.acknowledged()
    await stream.rest()
    stream = await world.start([["wait", world.gate("go")]], fence=20)
    await stream.acknowledged()
    await agent.post(door(world), json={})
    (call, _) = seen(gateways)[-1]
    assert (call.begun, call.number) == (20, 1)
    world.pass_gate("go")
    await stream.rest()


async def test_without_an_attempt_a_call_belongs_to_no_turn(world, gateways, agent):
    assert (await agent.post(door(world), json={})).status_code == 200
    (call, _) = seen(gateways)[0]
    assert (call.turn, call.begun, call.number) == ("", 0, 0)


async def test_when_a_gateway_dies_the_call_is_sent_again_under_its_number(world, gateways, agent):
    stream = await world.start([["wait", world.gate("go")]])
    await stream.acknowledged()
    for each in gateways:
        each.plan = [hang_up]
    got = await agent.post(door(world), json={"q": 1})
    assert got.status_code == 200
    numbers = [(call.number, call.resent) for call, _ in seen(gateways)]
    assert len(numbers) >= 3 and {number for number, _ in numbers} == {1}
    assert sum(resent for _, resent in numbers) == len(numbers) - 1
    world.pass_gate("go")
    await stream.rest()


async def test_a_gateway_that_says_not_now_is_asked_again(world, gateways, agent):
    gateways[0].plan, gateways[1].plan = [refuse(wire.AGAIN)], [refuse(wire.AGAIN)]
    assert (await agent.post(door(world), json={})).status_code == 200
    assert len(seen(gateways)) == 3


async def test_a_refusal_that_is_an_answer_reaches_the_agent(world, gateways, agent):
    for each in gateways:
        each.plan = [answer(b'{"error":{"message":"add it"}}', 403, x_moorage_refused=wire.NO)]
    got = await agent.post(door(world), json={})
    assert (got.status_code, got.json()["error"]["message"]) == (403, "add it")
    assert wire.REFUSED not in got.headers and len(seen(gateways)) == 1


async def test_a_fenced_call_is_answered_by_nobody(world, gateways, agent):
    for each in gateways:
        each.plan = [refuse(wire.FENCED, 409)]
    with pytest.raises(httpx2.HTTPError):
        await agent.post(door(world), json={})
    assert len(seen(gateways)) == 1


async def test_a_clients_retry_of_what_it_left_gets_the_same_number(world, gateways, agent):
    stream = await world.start([["wait", world.gate("go")]])
    await stream.acknowledged()
    for each in gateways:
        each.plan = [wait]
    with pytest.raises(httpx2.TimeoutException):
        await agent.post(door(world), json={"q": 1}, timeout=0.3)
    for each in gateways:
        each.may.set()
    await until(lambda: len(seen(gateways)) == 1)

    async def retried() -> Any:
        return await agent.post(door(world), json={"q": 1}, headers={"x-stainless-retry-count": "1"})

    assert (await retried()).status_code == 200
    await agent.post(door(world), json={"q": 1})
    assert [(call.number, call.resent) for call, _ in sorted(seen(gateways), key=lambda each: each[0].number)] == [
        (1, False),
        (1, True),
        (2, False),
    ]
    world.pass_gate("go")
    await stream.rest()


async def test_a_tool_call_that_a_client_asks_again_gets_the_same_number_though_its_id_is_another(
    world, gateways, agent
):
    stream = await world.start([["wait", world.gate("go")]])
    await stream.acknowledged()
    for each in gateways:
        each.plan = [wait]

    def asked(number: int, text: str = "x") -> dict[str, Any]:
        params = {"name": "add", "arguments": {"text": text}, "_meta": {"progressToken": number}}
        return {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}

    place, headers = door(world, "/toolboxes/t/mcp"), {"mcp-protocol-version": "2025-11-25", "mcp-session-id": "s"}
    with pytest.raises(httpx2.TimeoutException):
        await agent.post(place, json=asked(1), headers=headers, timeout=0.3)
    for each in gateways:
        each.may.set()
    await until(lambda: len(seen(gateways)) == 1)
    for number, text in ((2, "y"), (3, "x"), (4, "x")):
        assert (await agent.post(place, json=asked(number, text))).status_code == 200
    calls = sorted((call for call, _ in seen(gateways)), key=lambda each: (each.number, each.resent))
    assert [(call.number, call.resent) for call in calls] == [(1, False), (1, True), (2, False), (3, False)]
    assert calls[0].target == "/toolboxes/t/mcp" and ("mcp-protocol-version", "2025-11-25") in calls[0].headers
    assert "mcp-session-id" not in dict(calls[0].headers)
    world.pass_gate("go")
    await stream.rest()


async def test_an_answer_that_breaks_off_ends_the_attempt_before_the_agent_sees_it(world, gateways, agent):
    stream = await world.start([["wait", world.gate("go")]])
    await stream.acknowledged()
    for each in gateways:
        each.plan = [half]
    process = world.init.process
    async with agent.stream("POST", door(world), json={}) as got:
        pieces = got.aiter_raw()
        assert await anext(pieces) == b"half1"
        rest = asyncio.ensure_future(anext(pieces, None))
        for each in gateways:
            each.may.set()
        _, end = await stream.rest()
        assert end.kind == "boundary" and "broke off" in end.detail
        await until(lambda: process.poll() is not None)
        assert not rest.done(), "the agent was told of the break before it was killed"
        rest.cancel()
        await asyncio.gather(rest, return_exceptions=True)


async def test_outside_of_an_attempt_the_break_is_passed_on(world, gateways, agent):
    for each in gateways:
        each.plan = [half]
        each.may.set()
    with pytest.raises(httpx2.HTTPError):
        await agent.post(door(world), json={})


async def test_bodies_have_a_bound_and_other_paths_lead_nowhere(tmp_path, gateways, agent):
    from dataclasses import replace

    limits = replace(FAST, call_room=4096)
    async with World(tmp_path, gateways=(gateways[0].url,), limits=limits) as world:
        assert (await agent.get(door(world))).status_code == 503, "no session yet"
        await world.bind(gateways=[gateways[0].url])
        assert (await agent.post(door(world), content=b"x" * 5000)).status_code == 413
        assert (await agent.post(door(world), content=b"x" * 3000)).status_code == 200
        assert (await agent.get(door(world, "/shim/status"))).status_code == 404
        assert (await agent.get(door(world, "/"))).status_code == 404
        assert len(seen(gateways)) == 1


@pytest.mark.parametrize(
    ("headers", "status"),
    [({}, 200), ({"origin": "http://localhost:3000"}, 200), ({"origin": "http://evil.example"}, 403), ({"origin": "null"}, 403),
     ({"host": "evil.example"}, 403), ({"host": "localhost"}, 200)],
)  # fmt: skip
async def test_a_page_of_another_site_uses_no_tools(world, gateways, agent, headers, status):
    got = await agent.post(door(world, "/toolboxes/t/mcp"), json={"jsonrpc": "2.0", "id": 1}, headers=headers)
    assert got.status_code == status and len(seen(gateways)) == (status == 200)


async def test_one_connection_of_the_agent_carries_many_calls(world, gateways, agent):
    for n in range(20):
        got = await agent.post(door(world), json={"n": n, "fill": "y" * (n * 20_000)})
        assert got.status_code == 200
    assert [json.loads(body)["n"] for _, body in seen(gateways)] == list(range(20))


async def test_a_step_goes_out_as_any_call_and_every_agent_is_told_where(world, gateways, agent):
    environ = Path(f"/proc/{world.init.process.pid}/environ").read_bytes().split(b"\0")
    assert b"MOORAGE_STEPS_URL=" + door(world, "/steps").encode() in environ
    stream = await world.start([["wait", world.gate("go")]])
    await stream.acknowledged()
    gateways[0].plan = [answer(b'{"state":"run","step":"m"}')]
    assert (await agent.post(door(world, "/steps/begin"), json={"name": "mail"})).json()["step"] == "m"
    ((call, body),) = seen(gateways)
    assert (call.target, call.number, json.loads(body)) == ("/steps/begin", 1, {"name": "mail"})
    world.pass_gate("go")
    await stream.rest()


async def test_the_agent_is_told_where_models_are(world):
    environ = Path(f"/proc/{world.init.process.pid}/environ").read_bytes().split(b"\0")
    assert b"OPENAI_BASE_URL=" + door(world, "/models/~openai/v1").encode() in environ
    assert b"OPENAI_API_KEY=moorage" in environ
    assert not [each for each in environ if each.startswith(b"ANTHROPIC_BASE_URL=")]
