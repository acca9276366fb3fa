"""The egress proxy's bounds: of heads, of times, and of what one session may have open, ask and send."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from component.egress.world import KEY, World, until
from moorage_api import tokens
from moorage_gateway.egress.budgets import Bounds

pytestmark = [pytest.mark.component, pytest.mark.isolation]


async def test_malformed_and_oversized_heads_are_refused() -> None:
    world = World()
    await world.start()
    assert (await world.say(b"\x16\x03\x01\r\n\r\n")).startswith(b"HTTP/1.1 400 ")
    assert (await world.say(b"CONNECT a:1 HTTP/1.1\r\nx: " + b"y" * 40_000 + b"\r\n\r\n")).startswith(b"HTTP/1.1 431 ")
    assert await world.say(b"CONNECT a") == b""
    await world.aclose()


async def test_a_slow_head_is_given_up() -> None:
    world = World(head=0.2)
    await world.start()
    reader, writer = await world.open()
    writer.write(b"CONNECT echo.example:443 HT")
    async with asyncio.timeout(3):
        assert (await reader.read()).startswith(b"HTTP/1.1 408 ")
    writer.close()
    await world.aclose()


async def test_a_silent_resolver_is_given_up() -> None:
    class Silent:
        async def resolve(self, host: str) -> list[str]:
            await asyncio.Event().wait()
            return []

        def close(self) -> None:
            """Nothing is held."""

    world = World(resolve=0.2)
    world.proxy._resolver = Silent()
    await world.start()
    assert (await world.connect("echo.example:443")).startswith(b"HTTP/1.1 502 ")
    await world.aclose()


async def test_an_idle_tunnel_is_cut_and_a_busy_one_is_not() -> None:
    world = World(idle=2.0)
    await world.start()
    idle, busy = await world.tunnel(), await world.tunnel()
    for _ in range(15):
        busy[1].write(b"x")
        assert await busy[0].readexactly(1) == b"x"
        await asyncio.sleep(0.2)
    async with asyncio.timeout(5):
        with contextlib.suppress(ConnectionResetError):
            assert await idle[0].read() == b""
    busy[1].write(b"y")
    assert await busy[0].readexactly(1) == b"y"
    for _, writer in (idle, busy):
        writer.close()
    await world.aclose()


async def test_a_session_has_so_many_connections_and_no_more_and_each_end_frees_one() -> None:
    world = World(session=Bounds(connections=3))
    await world.start()
    tunnels = [await world.tunnel() for _ in range(3)]
    assert (await world.connect("echo.example:443")).startswith(b"HTTP/1.1 429 ")
    other = tokens.sign(tokens.Identity("sb-2", "acme", "hello", "rev1", "vol-2"), KEY)
    assert b" 200 " in await world.connect("echo.example:443", other)
    tunnels[0][1].close()
    await until(lambda: world.proxy.connections == 2)
    assert b" 200 " in await world.connect("echo.example:443")
    for _, writer in tunnels:
        writer.close()
    await world.aclose()


async def test_a_session_makes_so_many_requests_and_looks_up_so_many_names_a_minute() -> None:
    world = World(session=Bounds(requests=3))
    await world.start()
    for _ in range(3):
        assert b" 200 " in await world.connect("echo.example:443")
    assert (await world.connect("secret-in-a-name.wild.example:443")).startswith(b"HTTP/1.1 429 ")
    assert len(world.names.asked) == 3
    await world.aclose()


async def test_a_session_sends_and_receives_so_many_bytes_an_hour_and_not_one_more() -> None:
    world = World(session=Bounds(sent=100_000, received=1_000_000))
    await world.start()
    reader, writer = await world.tunnel()
    with contextlib.suppress(ConnectionError):
        for _ in range(20):
            writer.write(b"x" * 10_000)
            await writer.drain()
        async with asyncio.timeout(10):
            while await reader.read(65536):
                pass
    assert len(world.received) <= 100_000
    again = await world.connect("echo.example:443")
    assert again.startswith(b"HTTP/1.1 429 ") and b"MOORAGE_EGRESS_SENT" in again and b"Retry-After: " in again
    replaced = tokens.sign(tokens.Identity("sb-9", "acme", "hello", "rev1", "vol-1"), KEY)
    assert (await world.connect("echo.example:443", replaced)).startswith(b"HTTP/1.1 429 "), "the same session's"
    others = tokens.sign(tokens.Identity("sb-9", "acme", "hello", "rev1", "vol-2"), KEY)
    assert b" 200 " in await world.connect("echo.example:443", others)
    assert world.proxy.counts.refused["budget"] == 3 and world.proxy.counts.bytes["sent"] <= 100_000
    writer.close()
    await world.aclose()

    world = World(session=Bounds(received=1_000))
    await world.start()
    world.first = b"y" * 5_000
    reader, writer = await world.tunnel()
    with contextlib.suppress(ConnectionError):
        assert len(await reader.read()) <= 1_000
    writer.close()
    assert b"MOORAGE_EGRESS_RECEIVED" in await world.connect("ported.example:9443")
    await world.aclose()
