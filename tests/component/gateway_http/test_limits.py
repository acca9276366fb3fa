"""Bounds of the HTTP face (F33, F34, T18): slow, large, deep and many; each has its documented answer and nothing grows."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Awaitable, Callable

import orjson
import pytest

from fakes.gateway import FakeGateway
from fakes.raw_http import exchange
from fakes.turns import FakeTurns

pytestmark = pytest.mark.component

Start = Callable[..., Awaitable[FakeGateway]]

URL = b"/v1/agents/hello/responses"
AUTH = b"Authorization: Bearer key-ada\r\n"


def head(gateway: FakeGateway, *lines: bytes, method: bytes = b"POST", path: bytes = URL) -> bytes:
    host = b"Host: 127.0.0.1:%d\r\n" % gateway.listener.port
    return method + b" " + path + b" HTTP/1.1\r\n" + host + AUTH + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def create(gateway: FakeGateway, body: bytes, *lines: bytes) -> bytes:
    return head(gateway, b"Content-Length: %d" % len(body), *lines) + body


async def until(holds: Callable[[], bool], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.01)


async def test_a_head_over_the_limit_is_a_431_before_it_is_complete(start: Start) -> None:
    gateway = await start(header_bytes=4096)
    reply = await exchange(gateway.listener.port, b"GET / HTTP/1.1\r\nX: " + b"a" * 8192)
    assert (reply.statuses, reply.closed) == ([431], True)
    assert reply.error["code"] == "headers_too_large"


async def test_too_many_headers_are_a_431(start: Start) -> None:
    gateway = await start(header_count=20)
    reply = await exchange(gateway.listener.port, head(gateway, *(b"X-%d: a" % n for n in range(40))))
    assert (reply.statuses, reply.closed) == ([431], True)


async def test_a_head_that_comes_too_slowly_is_a_408(start: Start) -> None:
    gateway = await start(header_seconds=0.2, sweep_seconds=0.05)
    reply = await exchange(gateway.listener.port, b"GET / HTTP/1.1\r\nX: a")
    assert (reply.statuses, reply.closed) == ([408], True)


async def test_a_connection_that_says_nothing_is_closed(start: Start) -> None:
    gateway = await start(header_seconds=0.2, sweep_seconds=0.05)
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.listener.port)
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()


async def test_a_body_that_comes_too_slowly_is_a_408(start: Start) -> None:
    gateway = await start(body_grace=0.2, sweep_seconds=0.05)
    reply = await exchange(gateway.listener.port, head(gateway, b"Content-Length: 100000") + b"{")
    assert (reply.statuses, reply.closed) == ([408], True)
    assert gateway.turns.requests == []


async def test_an_idle_connection_is_closed_after_the_keep_alive_time(start: Start) -> None:
    gateway = await start(keep_alive_seconds=0.2, sweep_seconds=0.05)
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.listener.port)
    writer.write(head(gateway, method=b"GET", path=b"/healthz"))
    assert b"alive" in await asyncio.wait_for(reader.read(), 5)
    writer.close()


async def test_an_announced_body_over_the_limit_is_refused_unread(start: Start) -> None:
    gateway = await start(input_bytes=2048)
    reply = await exchange(gateway.listener.port, head(gateway, b"Content-Length: 10000000000"))
    assert (reply.statuses, reply.closed) == ([413], True)


async def test_ten_gigabytes_of_chunks_are_refused_at_the_limit_with_flat_memory(start: Start) -> None:
    gateway = await start(input_bytes=64 * 1024)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.listener.port)
    writer.write(head(gateway, b"Transfer-Encoding: chunked"))
    chunk, sent = b"10000\r\n" + b"x" * 65536 + b"\r\n", 0
    try:
        while sent < 10_000_000_000:
            writer.write(chunk)
            await asyncio.wait_for(writer.drain(), 10)
            sent += 65536
    except ConnectionError:
        pass
    received = b""
    try:
        received = await asyncio.wait_for(reader.read(), 5)
    except ConnectionError:
        received = bytes(reader._buffer)  # type: ignore[attr-defined]
    writer.close()
    assert received.startswith(b"HTTP/1.1 413")
    assert sent < 32 * 1024 * 1024
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 * 1024


BAD_BODIES: dict[str, tuple[bytes, str, str | None]] = {
    "nothing": (b"", "invalid_json", None),
    "half an object": (b'{"input": "x"', "invalid_json", None),
    "a list": (b"[]", "invalid_request", None),
    "a number": (b"17", "invalid_request", None),
    "not UTF-8": (b'{"input": "\xff"}', "invalid_json", None),
    "a lone surrogate": (b'{"input": "\\ud800"}', "invalid_json", None),
    "NaN": (b'{"temperature": NaN}', "invalid_json", None),
    "a thousand brackets": (b'{"input": ' + b"[" * 1000 + b"]" * 1000 + b"}", "invalid_request", None),
    "a million brackets": (b'{"input": ' + b"[" * 500_000 + b"]" * 500_000 + b"}", "invalid_request", None),
    "many empty lists": (b'{"x": [' + b"[]," * 200_000 + b"[]]}", "invalid_request", None),
    "an input of a wrong type": (b'{"input": 5}', "invalid_request", "input"),
    "an item of a wrong type": (b'{"input": [5]}', "invalid_request", "input[0]"),
    "a message without a role": (
        b'{"input": [{"type": "message", "content": "x"}]}',
        "invalid_request",
        "input[0].role",
    ),
    "a wrong stream": (b'{"stream": "yes"}', "invalid_request", "stream"),
    "a wrong temperature": (b'{"temperature": 9}', "invalid_request", "temperature"),
    "background without store": (b'{"background": true, "store": false}', "unsupported_parameter", "background"),
    "a malformed previous response": (
        b'{"previous_response_id": "resp_1"}',
        "invalid_parameters",
        "previous_response_id",
    ),
}


@pytest.mark.parametrize(("body", "code", "param"), BAD_BODIES.values(), ids=BAD_BODIES.keys())
async def test_a_bad_body_is_a_400_that_names_the_field(
    start: Start, body: bytes, code: str, param: str | None
) -> None:
    gateway = await start()
    reply = await exchange(gateway.listener.port, create(gateway, body))
    assert reply.statuses == [400]
    assert not reply.closed
    assert (reply.error["code"], reply.error["param"]) == (code, param)
    assert gateway.turns.requests == []


async def test_brackets_inside_strings_are_not_counted(start: Start) -> None:
    gateway = await start()
    body = orjson.dumps({"input": "[{" * 150_000 + '\\"'})
    reply = await exchange(gateway.listener.port, create(gateway, body))
    assert reply.statuses == [200]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        (b"GET", b"/v1/agents/hello/responses", 405),
        (b"PUT", b"/v1/agents/hello/responses/caresp_1", 405),
        (b"GET", b"/v1/agents/hello/responses/resp_1", 400),
        (b"GET", b"/v1/agents/hello/responses/" + b"caresp_" + b"0" * 18 + b"a" * 32, 404),
        (b"GET", b"/v1/agents/hello/responses/" + b"caresp_" + b"0" * 18 + b"a" * 32 + b"/nothing", 404),
        (b"GET", b"/v1/agents/hello/responses/" + b"caresp_" + b"0" * 18 + b"a" * 32 + b"?stream=maybe", 400),
        (b"POST", b"/v1/agents/HELLO/responses", 404),
        (b"POST", b"/v1/agents/hello/invocations/../../x", 400),
        (b"GET", b"/v1/agents/hello/invocations?agent_session_id=x", 400),
        (b"GET", b"/nothing", 404),
    ],
)
async def test_a_bad_address_has_its_documented_answer(start: Start, method: bytes, path: bytes, status: int) -> None:
    gateway = await start()
    reply = await exchange(gateway.listener.port, head(gateway, method=method, path=path))
    assert reply.statuses == [status]
    assert reply.error["message"]
    assert (status == 405) == (b"\r\nallow: " in reply.data)


async def test_an_unexpected_error_is_a_500_without_internals(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    gateway = await start()
    reply = await exchange(gateway.listener.port, head(gateway, method=b"GET", path=b"/v1/explode"))
    assert reply.statuses == [500]
    assert b"4711" not in reply.data and b"ZeroDivision" not in reply.data
    assert "4711" in caplog.text


async def test_a_foreign_host_is_refused_on_a_loopback_listener(start: Start) -> None:
    gateway = await start()
    reply = await exchange(gateway.listener.port, b"GET /healthz HTTP/1.1\r\nHost: evil.example\r\n\r\n")
    assert reply.statuses == [400]


async def test_connections_over_the_limit_get_a_503_with_retry_after(start: Start) -> None:
    gateway = await start(max_connections=3)
    held = [await asyncio.open_connection("127.0.0.1", gateway.listener.port) for _ in range(3)]
    await until(lambda: gateway.listener.connections == 3)
    reply = await exchange(gateway.listener.port, b"")
    assert (reply.statuses, reply.closed) == ([503], True)
    assert b"retry-after: 1" in reply.data
    for _, writer in held:
        writer.close()
    await until(lambda: gateway.listener.connections == 0)
    assert (await exchange(gateway.listener.port, head(gateway, method=b"GET", path=b"/healthz"))).statuses == [200]


async def test_one_address_cannot_take_all_connections(start: Start) -> None:
    gateway = await start(client_connections=2)
    held = [await asyncio.open_connection("127.0.0.1", gateway.listener.port) for _ in range(2)]
    await until(lambda: gateway.listener.connections == 2)
    assert (await exchange(gateway.listener.port, b"")).statuses == [503]
    for _, writer in held:
        writer.close()


async def test_a_key_over_its_concurrency_gets_a_429_and_its_place_back(start: Start) -> None:
    gate = asyncio.Event()
    gateway = await start(FakeTurns(gate=gate), key_concurrency=1)
    running = asyncio.create_task(exchange(gateway.listener.port, create(gateway, b'{"input": "x"}')))
    await until(lambda: bool(gateway.turns.requests))
    refused = await exchange(gateway.listener.port, create(gateway, b'{"input": "x"}'))
    assert refused.statuses == [429]
    assert b"retry-after" in refused.data
    gate.set()
    assert (await running).statuses == [200]
    assert (await exchange(gateway.listener.port, create(gateway, b'{"input": "x"}'))).statuses == [200]


async def test_a_key_over_its_rate_gets_a_429(start: Start) -> None:
    gateway = await start(key_rate=0.01, key_burst=2)
    found = [(await exchange(gateway.listener.port, create(gateway, b"{}"), quiet=0.01)).statuses for _ in range(4)]
    assert found == [[200], [200], [429], [429]]


async def test_requests_over_the_limit_of_the_process_get_a_503(start: Start) -> None:
    gate = asyncio.Event()
    gateway = await start(FakeTurns(gate=gate), max_requests=1)
    running = asyncio.create_task(exchange(gateway.listener.port, create(gateway, b'{"input": "x"}')))
    await until(lambda: bool(gateway.turns.requests))
    assert (await exchange(gateway.listener.port, create(gateway, b"{}"))).statuses == [503]
    gate.set()
    assert (await running).statuses == [200]


async def test_a_draining_gateway_fails_readiness_first_and_then_refuses(start: Start) -> None:
    gateway = await start()
    ready = head(gateway, method=b"GET", path=b"/readyz")
    assert (await exchange(gateway.listener.port, ready)).statuses == [200]
    gateway.draining.notify()
    assert (await exchange(gateway.listener.port, ready)).statuses == [503]
    assert (await exchange(gateway.listener.port, create(gateway, b"{}"))).statuses == [200]
    gateway.draining.close()
    refused = await exchange(gateway.listener.port, create(gateway, b"{}"))
    assert refused.statuses == [503]
    assert refused.error["code"] == "draining"


async def test_draining_lets_a_running_answer_end_and_closes_idle_connections(start: Start) -> None:
    gate = asyncio.Event()
    gateway = await start(FakeTurns(gate=gate))
    idle_reader, idle_writer = await asyncio.open_connection("127.0.0.1", gateway.listener.port)
    running = asyncio.create_task(exchange(gateway.listener.port, create(gateway, b'{"input": "x"}')))
    await until(lambda: bool(gateway.turns.requests))
    drained = asyncio.create_task(gateway.listener.drain(10))
    assert await asyncio.wait_for(idle_reader.read(), 5) == b""
    gate.set()
    reply = await running
    assert (reply.statuses, reply.closed) == ([200], True)
    await asyncio.wait_for(drained, 5)
    idle_writer.close()


async def test_a_slow_reader_holds_a_bounded_buffer_and_is_cut_off(start: Start) -> None:
    turns = FakeTurns()
    gateway = await start(turns, slow_reader_seconds=0.3, stream_buffer=64 * 1024, sweep_seconds=0.05)
    body = orjson.dumps({"input": " ".join(["w" * 500] * 12_000), "stream": True})
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.listener.port, limit=1024)
    writer.write(create(gateway, body))
    await until(lambda: bool(turns.turns) and next(iter(turns.turns.values())).readers == 1)
    await until(lambda: next(iter(turns.turns.values())).readers == 0, 20)
    assert turns.delivered_ids == []
    writer.transport.abort()


async def test_a_caller_that_leaves_ends_its_reader_within_a_second(start: Start) -> None:
    turns = FakeTurns(gate=asyncio.Event())
    gateway = await start(turns)
    for stream in (b"true", b"false"):
        _, writer = await asyncio.open_connection("127.0.0.1", gateway.listener.port)
        writer.write(create(gateway, b'{"input": "x", "stream": ' + stream + b"}"))
        await until(lambda: any(turn.readers for turn in turns.turns.values()))
        writer.close()
        await until(lambda: not any(turn.readers for turn in turns.turns.values()), 1.0)
    assert turns.delivered_ids == []


async def test_thousands_of_connects_and_leaves_leave_nothing_behind(start: Start) -> None:
    turns = FakeTurns(gate=asyncio.Event())
    gateway = await start(turns)
    request = create(gateway, b'{"input": "x", "stream": true}')

    async def visit(index: int) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", gateway.listener.port)
        if index % 3:
            writer.write(request if index % 3 == 1 else request[:100])
        writer.close()

    for batch in range(30):
        await asyncio.gather(*(visit(batch * 100 + index) for index in range(100)))
    await until(lambda: gateway.listener.connections == 0, 60)
    await until(lambda: not gateway.listener.state.tasks, 60)
    await until(lambda: not any(turn.readers for turn in turns.turns.values()), 60)


async def test_a_silent_stream_gets_comments(start: Start) -> None:
    gate = asyncio.Event()
    gateway = await start(FakeTurns(gate=gate), comment_seconds=0.1)
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.listener.port)
    writer.write(create(gateway, b'{"input": "x", "stream": true}'))
    await asyncio.wait_for(reader.readuntil(b": keep-alive\n\n"), 5)
    gate.set()
    rest = await asyncio.wait_for(reader.readuntil(b"data: [DONE]\n\n"), 5)
    assert rest.count(b"event: response.completed\n") == 1
    writer.close()


async def test_the_head_of_a_stream_forbids_buffering(start: Start) -> None:
    gateway = await start()
    reply = await exchange(gateway.listener.port, create(gateway, b'{"input": "x", "stream": true}'), quiet=0.2)
    for line in (b"content-type: text/event-stream", b"cache-control: no-cache", b"x-accel-buffering: no"):
        assert line in reply.data


async def test_each_request_leaves_one_access_line(start: Start) -> None:
    gateway = await start()
    await exchange(gateway.listener.port, create(gateway, b'{"input": "x"}'))
    await exchange(gateway.listener.port, b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await gateway.access_log.aclose()
    lines = [orjson.loads(line) for line in b"".join(gateway.lines).splitlines()]
    assert [(line["operation"], line["status"], line["tenant"]) for line in lines] == [
        ("create", 200, "acme"),
        ("control", 401, ""),
    ]
    assert all(line["request_id"] and line["trace_id"] for line in lines)
    assert b"key-ada" not in b"".join(gateway.lines)
