"""Invocations through a real hop to a shim of the test's making: what passes, what does not, and what a break looks like."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from fakes.gateway import FakeActivation, FakeGateway
from fakes.raw_http import exchange
from moorage_api.errors import ApiError, Kind
from moorage_gateway.server import ConnectionLimits, Listener
from moorage_gateway.upstream import Route

pytestmark = pytest.mark.component

Start = Callable[..., Awaitable[FakeGateway]]


class Shim:
    """Answers as `serve` says; notes each call's head and body. `left` counts calls whose gateway went away."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.calls: list[tuple[str, str, bytes, dict[bytes, bytes]]] = []
        self.bodies: list[bytes] = []
        self.left = 0
        self.serve: Callable[[Any, Any, Any], Awaitable[None]] = self.echo
        self.listener = Listener(self, ConnectionLimits(), name="shim")

    def route(self, epoch: int = 1) -> Route:
        return Route("acme:k", "sb-1", f"unix:{self.path}", "the-secret", epoch)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.calls.append((scope["method"], scope["path"], scope["query_string"], dict(scope["headers"])))
        await self.serve(scope, receive, send)

    async def body(self, receive: Any) -> bytes:
        parts = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.left += 1
                raise ConnectionError
            parts += message["body"]
            if not message["more_body"]:
                self.bodies.append(parts)
                return parts

    async def echo(self, scope: Any, receive: Any, send: Any) -> None:
        await answer(send, 200, await self.body(receive), (b"content-type", b"application/x-any"))

    def refusing(self, status: int, /, **body: Any) -> Callable[[Any, Any, Any], Awaitable[None]]:
        async def serve(scope: Any, receive: Any, send: Any) -> None:
            await self.body(receive)
            await answer(send, status, orjson.dumps(body))

        return serve


async def answer(send: Any, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    lines = [(b"content-length", b"%d" % len(body)), *headers]
    await send({"type": "http.response.start", "status": status, "headers": lines})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
async def shim(tmp_path: Path) -> AsyncIterator[Shim]:
    made = Shim(tmp_path / "s")
    await made.listener.start(path=str(made.path))
    yield made
    await made.listener.close()


@pytest.fixture
async def gateway(start: Start, shim: Shim) -> FakeGateway:
    return await start(activation=FakeActivation([shim.route()]), body_bytes=1024 * 1024)


def call(
    gateway: FakeGateway, method: str = "POST", path: str = "", *lines: bytes, body: bytes = b"", agent: str = "hello"
) -> bytes:
    head = f"{method} /v1/agents/{agent}/invocations{path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer key-ada\r\n"
    length = [b"Content-Length: %d" % len(body)] if body else []
    return head.encode() + b"".join(line + b"\r\n" for line in [*lines, *length]) + b"\r\n" + body


async def until(holds: Callable[[], bool], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("method", ["POST", "GET", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_any_method_and_body_passes(gateway: FakeGateway, shim: Shim, method: str) -> None:
    body = bytes(range(256)) if method not in ("GET", "OPTIONS") else b""
    reply = await exchange(
        gateway.listener.port, call(gateway, method, "/some-id/cancel?a=b%20c&agent_session_id=my-session-1", body=body)
    )
    assert reply.statuses == [200]
    assert reply.data.endswith(b"\r\n\r\n" + body)
    assert shim.calls[0][:3] == (method, "/relay/invocations/some-id/cancel", b"a=b%20c&agent_session_id=my-session-1")


async def test_only_listed_headers_reach_the_agent(gateway: FakeGateway, shim: Shim) -> None:
    await exchange(
        gateway.listener.port,
        call(
            gateway,
            "POST",
            "",
            b"Content-Type: text/plain",
            b"X-Client-Shade: blue",
            b"Cookie: a=b",
            b"api-key: key-ada",
            b"Connection: x-client-hidden, authorization",
            b"X-Moorage-Epoch: 99",
            b"X-Moorage-Secret: guess",
            b"X-Agent-User-Id: root",
            b"X-Forwarded-For: 1.2.3.4",
            b"TE: trailers",
            body=b"x",
        ),
    )
    got = shim.calls[0][3]
    assert got[b"content-type"] == b"text/plain"
    assert got[b"x-client-shade"] == b"blue"
    assert got[b"x-agent-user-id"] == b"ada"
    assert (got[b"x-moorage-secret"], got[b"x-moorage-session"], got[b"x-moorage-epoch"]) == (
        b"the-secret",
        b"acme:k",
        b"1",
    )
    assert not {b"authorization", b"cookie", b"api-key", b"x-forwarded-for", b"te"} & got.keys()
    assert got[b"x-agent-invocation-id"] and got[b"traceparent"]


async def test_what_belongs_to_a_hop_or_to_us_does_not_reach_the_caller(gateway: FakeGateway, shim: Shim) -> None:
    async def serve(scope: Any, receive: Any, send: Any) -> None:
        await shim.body(receive)
        await answer(
            send,
            201,
            b"ok",
            (b"set-cookie", b"a=b"),
            (b"x-moorage-secret", b"s"),
            (b"x-own", b"1"),
            (b"x-request-id", b"no"),
        )

    shim.serve = serve
    reply = await exchange(gateway.listener.port, call(gateway, body=b"x"))
    head = reply.data.lower()
    assert reply.statuses == [201]
    assert b"x-own: 1" in head
    assert b"set-cookie" not in head and b"x-moorage-secret" not in head and b"x-request-id: no" not in head
    assert b"x-agent-session-id: " in head and b"x-agent-invocation-id: inv_" in head


async def test_the_session_is_the_callers_or_a_fresh_one(gateway: FakeGateway, shim: Shim) -> None:
    named = await exchange(gateway.listener.port, call(gateway, "POST", "?agent_session_id=my-session-1"))
    header = await exchange(gateway.listener.port, call(gateway, "POST", "", b"x-agent-session-id: my-session-2"))
    fresh = await exchange(gateway.listener.port, call(gateway))
    assert b"x-agent-session-id: my-session-1\r\n" in named.data
    assert b"x-agent-session-id: my-session-2\r\n" in header.data
    assert b"x-agent-session-id: my-session" not in fresh.data and b"x-agent-session-id: " in fresh.data
    both = call(gateway, "POST", "?agent_session_id=my-session-1", b"x-agent-session-id: my-session-2")
    assert (await exchange(gateway.listener.port, both)).statuses == [400]


async def test_pieces_pass_up_one_by_one_as_they_come(gateway: FakeGateway, shim: Shim) -> None:
    turn = asyncio.Event()

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        await shim.body(receive)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        for number in range(20):
            await send({"type": "http.response.body", "body": b"data: %d\n\n" % number, "more_body": True})
            await turn.wait()
            turn.clear()
        await send({"type": "http.response.body", "body": b""})

    shim.serve = serve
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.listener.port)
    writer.write(call(gateway, body=b"x"))
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    assert b"transfer-encoding: chunked" in head and b"x-accel-buffering: no" in head
    for number in range(20):
        event = b"data: %d\n\n" % number
        assert await asyncio.wait_for(reader.readexactly(len(event) + 5), 5) == b"%x\r\n%b\r\n" % (len(event), event)
        turn.set()
    assert await asyncio.wait_for(reader.readexactly(5), 5) == b"0\r\n\r\n"
    writer.close()


async def test_a_body_passes_down_while_it_is_still_coming(gateway: FakeGateway, shim: Shim) -> None:
    got: list[bytes] = []

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            got.append(message.get("body", b""))
            if not message.get("more_body"):
                break
        await answer(send, 200, b"done")

    shim.serve = serve
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.listener.port)
    writer.write(call(gateway, "POST", "", b"Transfer-Encoding: chunked") + b"3\r\none\r\n")
    await until(lambda: b"".join(got) == b"one")
    writer.write(b"3\r\ntwo\r\n")
    await until(lambda: b"".join(got) == b"onetwo")
    writer.write(b"0\r\n\r\n")
    assert await asyncio.wait_for(reader.readuntil(b"done"), 5)
    writer.close()


async def test_a_streamed_body_over_the_limit_is_a_413_and_never_looks_whole(gateway: FakeGateway, shim: Shim) -> None:
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    reply = await exchange(
        gateway.listener.port, call(gateway, "POST", "", b"Transfer-Encoding: chunked"), *([chunk] * 40)
    )
    assert reply.statuses == [413]
    await until(lambda: shim.left == 1)
    assert shim.bodies == []


@pytest.mark.parametrize("begun", [True, False])
async def test_a_caller_that_leaves_cancels_the_call_within_a_second(
    gateway: FakeGateway, shim: Shim, begun: bool
) -> None:
    async def serve(scope: Any, receive: Any, send: Any) -> None:
        await shim.body(receive)
        if begun:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"first", "more_body": True})
        assert (await receive())["type"] == "http.disconnect"
        shim.left += 1

    shim.serve = serve
    _, writer = await asyncio.open_connection("127.0.0.1", gateway.listener.port)
    writer.write(call(gateway, body=b"x"))
    await until(lambda: len(shim.bodies) == 1)
    writer.close()
    await until(lambda: shim.left == 1, 1.0)


async def test_a_caller_that_leaves_while_sending_cancels_the_call(gateway: FakeGateway, shim: Shim) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", gateway.listener.port)
    writer.write(call(gateway, "POST", "", b"Transfer-Encoding: chunked") + b"3\r\none\r\n")
    await until(lambda: len(shim.calls) == 1)
    writer.close()
    await until(lambda: shim.left == 1, 1.0)
    assert shim.bodies == []


async def test_a_stale_route_is_looked_up_anew_and_the_call_repeated(gateway: FakeGateway, shim: Shim) -> None:
    gateway.activation.routes = [shim.route(1), shim.route(2)]

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        if dict(scope["headers"])[b"x-moorage-epoch"] == b"1":
            await shim.refusing(409, error="stale_epoch", detail="epoch 2 is known")(scope, receive, send)
        else:
            await shim.echo(scope, receive, send)

    shim.serve = serve
    reply = await exchange(gateway.listener.port, call(gateway, body=b"hello"))
    assert reply.statuses == [200]
    assert reply.data.endswith(b"hello")
    assert len(gateway.activation.forgotten) == 1


async def test_a_sandbox_that_does_not_listen_is_reported_and_another_tried(
    gateway: FakeGateway, shim: Shim, tmp_path: Path
) -> None:
    dead = Route("acme:k", "sb-0", f"unix:{tmp_path / 'gone'}", "s", 1)
    gateway.activation.routes = [dead, shim.route(2)]
    reply = await exchange(gateway.listener.port, call(gateway, body=b"hello"))
    assert reply.statuses == [200]
    assert [route.sandbox for route, _ in gateway.activation.lost_routes] == ["sb-0"]
    assert gateway.activation.wanted[1].dead_epoch == 1


@pytest.mark.parametrize(
    ("status", "body", "expected", "code"),
    [
        (503, {"error": "not_ready", "detail": "x", "log_tail": ["ImportError: boom"]}, 424, "session_not_ready"),
        (502, {"error": "agent_exit", "log_tail": ["MemoryError: boom"], "status": 1}, 502, "agent_failed"),
        (504, {"error": "agent_timeout"}, 504, "gateway_timeout"),
        (409, {"error": "draining", "detail": ""}, 503, "unavailable"),
    ],
)
async def test_a_shims_refusal_has_its_answer_with_the_last_log_lines(
    gateway: FakeGateway, shim: Shim, status: int, body: dict[str, Any], expected: int, code: str
) -> None:
    shim.serve = shim.refusing(status, **body)
    reply = await exchange(gateway.listener.port, call(gateway, body=b"x"))
    assert reply.statuses == [expected]
    assert reply.error["code"] == code
    assert ("boom" in reply.error["message"]) == ("log_tail" in body)
    assert b"x-agent-session-id: " in reply.data


async def test_an_agents_own_conflict_passes_as_it_is(gateway: FakeGateway, shim: Shim) -> None:
    shim.serve = shim.refusing(409, error="stale_epoch", agent="says so itself")
    reply = await exchange(gateway.listener.port, call(gateway, body=b"x"))
    assert reply.statuses == [409]
    assert reply.data.endswith(b'{"error":"stale_epoch","agent":"says so itself"}')
    assert len(shim.calls) == 1


@pytest.mark.parametrize(
    ("status", "body"),
    [(503, {"error": "not_ready"}), (401, {"error": "unauthenticated"}), (502, {"error": "unknown"})],
)
async def test_what_a_shim_calls_its_agents_answer_is_no_refusal_whatever_it_reads_like(
    gateway: FakeGateway, shim: Shim, status: int, body: dict[str, Any]
) -> None:
    async def serve(scope: Any, receive: Any, send: Any) -> None:
        await shim.body(receive)
        data = json.dumps(body).encode()
        headers = [(b"content-length", str(len(data)).encode()), (b"x-moorage-answered", b"agent")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": data})

    shim.serve = serve
    reply = await exchange(gateway.listener.port, call(gateway, body=b"x"))
    assert reply.statuses == [status] and reply.data.endswith(json.dumps(body).encode())
    assert len(shim.calls) == 1 and b"x-moorage-answered" not in reply.data


async def test_an_answer_that_breaks_off_is_not_taken_for_whole(gateway: FakeGateway, shim: Shim) -> None:
    async def serve(scope: Any, receive: Any, send: Any) -> None:
        await shim.body(receive)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        scope["moorage.exchange"].abort()

    shim.serve = serve
    reply = await exchange(gateway.listener.port, call(gateway, body=b"x"), quiet=3)
    assert reply.closed
    assert b"half" in reply.data and not reply.data.endswith(b"0\r\n\r\n")


async def test_an_agent_that_dies_before_it_answers_is_a_502_that_is_not_repeated(
    gateway: FakeGateway, shim: Shim
) -> None:
    async def serve(scope: Any, receive: Any, send: Any) -> None:
        await shim.body(receive)
        scope["moorage.exchange"].abort()

    shim.serve = serve
    reply = await exchange(gateway.listener.port, call(gateway, body=b"x"))
    assert reply.statuses == [502]
    assert b"x-should-retry: false" in reply.data
    assert len(shim.calls) == 1


async def test_no_sandbox_in_time_is_a_424_with_the_session(gateway: FakeGateway) -> None:
    gateway.activation.error = ApiError(Kind.SESSION_NOT_READY, "The sandbox is not ready.", retry_after=5)
    reply = await exchange(gateway.listener.port, call(gateway, "POST", "?agent_session_id=my-session-1"))
    assert reply.statuses == [424]
    assert b"x-agent-session-id: my-session-1" in reply.data
    assert b"retry-after: 5" in reply.data


async def test_a_body_nobody_waits_for_yet_is_not_slow(start: Start, shim: Shim) -> None:
    """Who sent its beginning and waits for the answer's head, while a sandbox is made, is not cut off."""
    grace = 0.2
    activation = FakeActivation([shim.route()], made=asyncio.Event())
    gateway = await start(activation=activation, body_bytes=2**20, body_grace=grace, sweep_seconds=0.02)
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.listener.port)
    writer.write(call(gateway, "POST", "", b"Transfer-Encoding: chunked") + b"3\r\none\r\n")
    await until(lambda: bool(activation.wanted))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 4 * grace)  # what a body that is waited for would not be given
    assert activation.made is not None
    activation.made.set()
    writer.write(b"3\r\ntwo\r\n0\r\n\r\n")
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    assert head.startswith(b"HTTP/1.1 200")
    assert await asyncio.wait_for(reader.readexactly(6), 5) == b"onetwo"
    writer.close()


async def test_another_tenants_agent_is_not_found(gateway: FakeGateway) -> None:
    assert (await exchange(gateway.listener.port, call(gateway, agent="nobody"))).statuses == [404]


async def test_a_large_answer_passes_under_back_pressure(gateway: FakeGateway, shim: Shim) -> None:
    size = 16 * 1024 * 1024

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        await shim.body(receive)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % size)]})
        for _ in range(size // 65536):
            await send({"type": "http.response.body", "body": b"z" * 65536, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    shim.serve = serve
    reply = await exchange(gateway.listener.port, call(gateway, body=b"x"), quiet=1)
    assert len(reply.data) - reply.data.index(b"\r\n\r\n") - 4 == size
