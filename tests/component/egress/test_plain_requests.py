"""Plain HTTP requests through the egress proxy: one passes, up to its end, and nothing that could be a second one."""

from __future__ import annotations

import pytest

from component.egress.world import TOKEN, World

pytestmark = [pytest.mark.component, pytest.mark.isolation]

PLAIN = f"POST http://echo.example/x HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Bearer {TOKEN}\r\n"
SECOND = "GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n"


async def test_a_plain_http_request_is_passed_on_without_the_token(world: World) -> None:
    answer = await world.say(
        f"GET http://echo.example/simple/?q=1 HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Bearer {TOKEN}\r\n\r\n".encode()
    )
    assert answer.startswith(b"GET /simple/?q=1 HTTP/1.1\r\nHost: echo.example\r\nConnection: close\r\n")
    assert b"Bearer" not in world.received and world.wire.asked == [("93.184.215.14", 80)]


@pytest.mark.parametrize(
    ("framing", "body", "passed"),
    [
        ("", "", b""),
        ("Content-Length: 5\r\n", "hello", b"hello"),
        ("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\nx: y\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n"),
    ],
    ids=["none", "by length", "chunked", "with a trailer"],
)
async def test_a_plain_request_passes_up_to_its_end_and_nothing_behind_it(
    world: World, framing: str, body: str, passed: bytes
) -> None:
    alone = await world.say(f"{PLAIN}{framing}\r\n{body}".encode())
    assert alone.endswith(b"\r\n\r\n" + passed + b"<end>")
    world.received = b""
    await world.say(f"{PLAIN}{framing}\r\n{body}{SECOND}".encode())
    assert b"evil" not in world.received
    assert world.proxy.counts.refused == {"malformed": 1}


@pytest.mark.parametrize(
    "framing",
    [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "Content-Length: 5\r\nContent-Length: 5\r\n", "Content-Length: +5\r\n",
        "Content-Length: 5, 5\r\n", "Content-Length: 0x5\r\n", "Transfer-Encoding: gzip, chunked\r\n", "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", "Transfer-Encoding : chunked\r\n", "Content-Length: \r\n",
    ],
)  # fmt: skip
async def test_a_plain_request_that_could_end_in_two_places_is_refused(world: World, framing: str) -> None:
    answer = await world.say(f"{PLAIN}{framing}\r\nhello".encode())
    assert answer.startswith(b"HTTP/1.1 400 ") and world.received == b""


@pytest.mark.parametrize(
    "body", ["5\nhello\n0\n\n", "5;x=y\r\nhello\r\n0\r\n\r\n", "-1\r\nhello", "5\r\nhelloxx0\r\n\r\n", "g\r\n"]
)
async def test_chunks_that_could_be_read_in_two_ways_are_not_passed(world: World, body: str) -> None:
    await world.say(f"{PLAIN}Transfer-Encoding: chunked\r\n\r\n{body}{SECOND}".encode())
    assert b"evil" not in world.received
