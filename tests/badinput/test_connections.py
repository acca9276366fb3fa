"""Callers that are slow, that do not read, that come and go by the thousand: an answer, no growth, nobody else waits (F33, F35, T18)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from fakes.platform import poll

pytestmark = pytest.mark.journey


def place(url: str) -> tuple[str, int]:
    """Host and port."""
    found = urlsplit(url)
    return found.hostname or "", found.port or 0


def resident(pid: int) -> int:
    """Bytes a process holds in memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def open_files(pid: int) -> int:
    """How many descriptors a process has."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def request(world: Any, method: str, path: str, *lines: str, body: bytes = b"") -> bytes:
    """A request as bytes."""
    head = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", f"Authorization: Bearer {world.platform.api_key}", *lines]
    return "\r\n".join([*head, "", ""]).encode() + body


async def slow(world: Any, first: bytes, drip: bytes = b"", every: float = 0.3) -> tuple[int, float]:
    """Sends a beginning, then a little at a time; (status or 0 when just closed, seconds until then)."""
    reader, writer = await asyncio.open_connection(*place(world.small.url))
    began = time.monotonic()
    writer.write(first)
    answer = asyncio.ensure_future(reader.read())
    try:
        async with asyncio.timeout(15):
            while not answer.done():
                if drip:
                    writer.write(drip)
                await asyncio.wait([answer], timeout=every)
        data = b"" if answer.exception() else answer.result()
    finally:
        answer.cancel()
        writer.transport.abort()
    return (int(data[9:12]) if data else 0), time.monotonic() - began


async def test_slow_senders_are_told_and_closed_while_others_are_served(world: Any) -> None:
    """Head within 1 s, body at 1 KiB/s over 1 s: so is this gateway set."""
    url = "/v1/agents/shapes/responses"
    json = "Content-Type: application/json"
    cases = {
        "a head that never ends": slow(world, b"GET /v1/agents HTTP/1.1\r\nHost: x\r\nX-A: "),
        "a head a byte at a time": slow(world, b"GET /v1/agents HTTP/1.1\r\nHost: x\r\nX-A: ", b"a"),
        "nothing at all": slow(world, b""),
        "a body that does not come": slow(world, request(world, "POST", url, json, "Content-Length: 60000", body=b"{")),
        "a body a byte at a time": slow(
            world, request(world, "POST", url, json, "Content-Length: 60000", body=b'{"input": "'), b"x"
        ),
        "chunks a byte at a time": slow(
            world, request(world, "POST", url, json, "Transfer-Encoding: chunked"), b"1\r\nx\r\n"
        ),
        "an invocation's body": slow(
            world, request(world, "POST", "/v1/agents/paced/invocations", "Content-Length: 60000", body=b"x"), b"y"
        ),
    }
    results = dict(zip(cases, await asyncio.gather(*cases.values()), strict=True))
    for name, (status, seconds) in results.items():
        assert status in (408, 0, 404), (name, status)
        assert seconds < 8, (name, seconds)
    assert results["a body a byte at a time"][0] == 408 and results["a head a byte at a time"][0] == 408
    assert results["nothing at all"][0] == 0


async def stream_of(world: Any, words: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, str]:
    """A stream whose head was read, and its session."""
    body = b'{"input": "%d words every 0 ms", "stream": true}' % words
    reader, writer = await asyncio.open_connection(*place(world.small.url), limit=1024)
    lines = ("Content-Type: application/json", f"Content-Length: {len(body)}")
    writer.write(request(world, "POST", "/v1/agents/paced/responses", *lines, body=body))
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
    lines_of = (line.partition(b": ") for line in head.split(b"\r\n"))
    session = next(value for name, _, value in lines_of if name.lower() == b"x-agent-session-id")
    return reader, writer, session.decode()


async def test_a_stream_that_nobody_reads_costs_no_more_than_one_that_is_read(world: Any) -> None:
    pid, words = world.small.process.pid, 8_000
    reader, writer, _ = await stream_of(world, words)
    while await asyncio.wait_for(reader.read(65536), 30):
        if b"[DONE]" in bytes(reader._buffer):  # type: ignore[attr-defined]
            break
    writer.transport.abort()
    before = resident(pid)
    held = []
    for _ in range(2):
        _, writer, session = await stream_of(world, words)

        def ended(session: str = session) -> bool:
            held.append(resident(pid))
            found = world.door.ask("GET", f"/v1/sessions/{session}").body
            return found["response_id"] is None and found["status"] == "idle"

        await asyncio.to_thread(poll, "the turn ends though nobody reads it", ended, within=60, every=0.2)
        writer.transport.abort()
    assert max(held) - before < 24 << 20, (max(held), before)


async def test_slow_readers_hold_up_nobody_else(world: Any) -> None:
    held = [await stream_of(world, 3_000) for _ in range(3)]
    door = world.small_door()
    for _ in range(20):
        began = time.monotonic()
        answer = await asyncio.to_thread(door.ask, "GET", "/v1/agents")
        assert answer.status == 200 and time.monotonic() - began < 3
    for _, writer, _ in held:
        writer.transport.abort()


def goodbyes(world: Any) -> list[tuple[bytes, bool]]:
    """(what is sent before leaving, whether a little is read first): the ways to leave."""
    stream = b'{"input": "2 0", "stream": true}'
    lines = ("Content-Type: application/json", f"Content-Length: {len(stream)}")
    return [
        (b"", False),
        (b"GET /v1/ag", False),
        (request(world, "GET", "/v1/agents"), False),
        (request(world, "GET", "/v1/agents"), True),
        (request(world, "POST", "/v1/agents/shapes/responses", *lines, body=stream[:10]), False),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", False),
    ]


async def leave(world: Any, said: bytes, reads: bool, gate: asyncio.Semaphore) -> None:
    """Comes, says that, and goes: with a reset half of the time."""
    async with gate:
        reader, writer = await asyncio.open_connection(*place(world.small.url))
        sock = writer.get_extra_info("socket")
        try:
            writer.write(said)
            await writer.drain()
            if reads:
                await asyncio.wait_for(reader.read(20), 20)
            elif len(said) % 2:
                sock.setsockopt(1, 13, struct.pack("ii", 1, 0))  # SO_LINGER 0: a reset
        except ConnectionError:
            pass
        finally:
            writer.transport.abort()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


async def test_two_thousand_who_come_and_leave_cost_nothing(world: Any) -> None:
    pid = world.small.process.pid
    ways, gate = goodbyes(world), asyncio.Semaphore(50)

    async def crowd(count: int) -> None:
        await asyncio.gather(*(leave(world, *ways[n % len(ways)], gate) for n in range(count)))

    await crowd(200)  # what is made once is made now
    await asyncio.to_thread(_calm, world, pid)
    memory, files = resident(pid), open_files(pid)
    await crowd(2_000)
    await asyncio.to_thread(_calm, world, pid)
    assert resident(pid) - memory < 8 << 20, "memory is flat"
    await asyncio.to_thread(poll, "descriptors are flat", lambda: open_files(pid) <= files + 5, within=10)
    assert (await asyncio.to_thread(world.small_door().ask, "GET", "/v1/agents")).status == 200


async def test_streams_that_are_left_do_not_end_their_turns_and_leave_nothing_open(world: Any) -> None:
    pid = world.small.process.pid
    before = open_files(pid)
    sessions = []
    for _ in range(6):
        reader, writer, session = await stream_of(world, 30)
        await asyncio.wait_for(reader.read(100), 30)
        sessions.append(session)
        writer.transport.abort()
    for session in sessions:
        path = f"/v1/sessions/{session}"
        found = lambda path=path: world.door.ask("GET", path).body["response_id"] is None  # noqa: E731
        await asyncio.to_thread(poll, "the turn ends", found, within=30)
    # A route to each sandbox may stay open for reuse.
    await asyncio.to_thread(poll, "nothing else stays open", lambda: open_files(pid) <= before + 8, within=30)


def _calm(world: Any, pid: int) -> None:
    """Until what was left behind is over: idle connections are closed after 2 s here."""
    last = -1

    def settled() -> bool:
        nonlocal last
        now, before = open_files(pid), last
        last = now
        return abs(now - before) <= 2

    poll("the gateway is calm", settled, within=60, every=1.5)
