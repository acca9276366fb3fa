"""The shim's HTTP server against clients that break the rules (T5, F33, F34)."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from moorage_sandbox import connection
from moorage_sandbox.server import Answer, HttpServer, Request

pytestmark = pytest.mark.component


class Site:
    """A server with a small handler: /echo, /fail, /half, /hold."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.errors: list[BaseException] = []
        self.cancelled = asyncio.Event()
        self.served = 0
        self.server = HttpServer(self.handle, self.errors.append, 3)

    async def handle(self, request: Request, answer: Answer) -> None:
        self.served += 1
        if request.path == "/fail":
            raise KeyError("a bug")
        if request.path == "/half":
            answer.start(200, [])
            answer.write(b"half")
            raise KeyError("a bug")
        if request.path == "/hold":
            try:
                await asyncio.sleep(60)
            finally:
                self.cancelled.set()
        answer.send(200, await request.read(100))

    async def ask(self, raw: bytes) -> bytes:
        reader, writer = await asyncio.open_unix_connection(self.path)
        writer.write(raw)
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(5):
                found = await reader.read()
                writer.close()
                return found
        writer.close()
        return b""


@pytest.fixture
async def site(tmp_path) -> AsyncIterator[Site]:
    made = Site(str(tmp_path / "s"))
    await made.server.listen(f"unix:{made.path}")
    yield made
    await made.server.close()


@pytest.mark.parametrize(
    "raw",
    [
        b"POST /echo HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /echo HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        b"POST /echo HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"POST /echo HTTP/1.1\r\ntransfer-encoding: gzip\r\n\r\n",
        b"POST /echo HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /echo HTTP/1.1\nhost: x\r\n\r\n",
        b"GET /echo HTTP/1.1\r\nhost: x\r\n folded\r\n\r\n",
        b"GET /echo HTTP/3.0\r\n\r\n",
        b"\x16\x03\x01\x02\x00\r\n\r\n",
    ],
)
async def test_an_ambiguous_request_is_refused_and_never_served(site, raw):
    assert (await site.ask(raw)).startswith(b"HTTP/1.1 400 ")
    assert site.served == 0


async def test_a_head_over_the_limit_is_refused_before_it_ends(site):
    assert (await site.ask(b"GET / HTTP/1.1\r\nx: " + b"y" * 70_000)).startswith(b"HTTP/1.1 431 ")


async def test_a_bad_chunk_ends_the_connection(site):
    answer = await site.ask(b"POST /echo HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\n\r\n")
    assert answer == b""


async def test_a_body_over_the_handlers_limit_is_413_whatever_its_framing(site):
    announced = b"POST /echo HTTP/1.1\r\ncontent-length: 101\r\n\r\n" + b"x" * 101
    chunked = b"POST /echo HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n65\r\n" + b"x" * 101 + b"\r\n0\r\n\r\n"
    for raw in (announced, chunked):
        assert (await site.ask(raw)).startswith(b"HTTP/1.1 413 ")


async def test_a_second_request_before_the_first_is_answered_is_not_served(site):
    answer = await site.ask(b"GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\n")
    assert answer.count(b"HTTP/1.1 200") == 1
    assert site.served == 1


async def test_a_connection_serves_one_request_after_the_other(site):
    reader, writer = await asyncio.open_unix_connection(site.path)
    for _ in range(3):
        writer.write(b"POST /echo HTTP/1.1\r\ncontent-length: 2\r\n\r\nhi")
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"connection: keep-alive" in head
        assert await reader.readexactly(2) == b"hi"
    writer.close()


async def test_a_client_that_waits_for_permission_gets_it(site):
    reader, writer = await asyncio.open_unix_connection(site.path)
    writer.write(b"POST /echo HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n")
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"hi")
    assert (await reader.readuntil(b"hi")).startswith(b"HTTP/1.1 200")
    writer.close()


async def test_a_bug_in_a_handler_is_500_and_is_told(site):
    assert (await site.ask(b"GET /fail HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 500 ")
    assert isinstance(site.errors[0], KeyError)


async def test_an_answer_that_broke_in_the_middle_never_looks_whole(site):
    assert b"0\r\n\r\n" not in await site.ask(b"GET /half HTTP/1.1\r\n\r\n")


async def test_a_handler_is_cancelled_when_its_client_leaves(site):
    reader, writer = await asyncio.open_unix_connection(site.path)
    writer.write(b"GET /hold HTTP/1.1\r\n\r\n")
    writer.close()
    await asyncio.wait_for(site.cancelled.wait(), 2)


async def test_connections_over_the_limit_are_closed_at_once(site):
    held = [await asyncio.open_unix_connection(site.path) for _ in range(3)]
    for reader, writer in held:
        writer.write(b"POST /echo HTTP/1.1\r\ncontent-length: 2\r\n\r\nhi")
        await reader.readuntil(b"hi")
    assert await site.ask(b"GET /echo HTTP/1.1\r\n\r\n") == b""
    for _, writer in held:
        writer.close()


async def test_a_head_that_does_not_end_in_time_is_408(tmp_path, monkeypatch):
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.05)
    site = Site(str(tmp_path / "s"))
    await site.server.listen(f"unix:{site.path}")
    assert (await site.ask(b"GET /echo HT")).startswith(b"HTTP/1.1 408 ")
    await site.server.close()
