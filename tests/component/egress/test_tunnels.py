"""Tunnels of the egress proxy: bytes pass as they are, TLS only to the host that was asked for, and nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from component.egress.world import TOKEN, World, until
from fakes.hellos import client_hello, with_hidden_name
from moorage_gateway.egress import hello

pytestmark = [pytest.mark.component, pytest.mark.isolation]


async def test_bytes_pass_both_ways_and_each_end_is_passed_on(world: World) -> None:
    reader, writer = await world.tunnel()
    writer.write(b"\x17\x03\x01hello")
    assert await reader.readexactly(8) == b"\x17\x03\x01hello"
    writer.write_eof()
    assert await reader.read() == b"<end>"
    writer.close()
    assert world.wire.asked == [("93.184.215.14", 9443)]
    assert b"Bearer" not in world.received and b"CONNECT" not in world.received
    await until(lambda: world.proxy.connections == 0)


async def test_bytes_sent_together_with_the_head_are_not_lost(world: World) -> None:
    answer = await world.say(
        f"CONNECT ported.example:9443 HTTP/1.1\r\nProxy-Authorization: Bearer {TOKEN}\r\n\r\nearly".encode()
    )
    assert answer.endswith(b"\r\n\r\nearly<end>")


async def test_a_large_transfer_arrives_whole(world: World) -> None:
    reader, writer = await world.tunnel()
    data = bytes(range(256)) * 16_384

    async def send() -> None:
        writer.write(data)
        await writer.drain()
        writer.write_eof()

    sending = asyncio.create_task(send())
    async with asyncio.timeout(20):
        assert await reader.read() == data + b"<end>"
    await sending
    writer.close()


async def test_a_reader_that_does_not_read_holds_the_sender_back(world: World) -> None:
    reader, writer = await world.tunnel()
    writer.transport.set_write_buffer_limits(high=0)
    blocks = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(1.5):
            while blocks < 2_000:
                writer.write(b"x" * 65536)
                await writer.drain()
                blocks += 1
    # 128 MB were offered; socket buffers take some, the proxy and the echo server's own buffers a bounded rest.
    assert blocks < 600
    reader._transport.abort()  # type: ignore[attr-defined]


async def said_first(world: World, first: bytes, target: str) -> bytes:
    """What a client that says this first gets back, after the proxy's 200."""
    head = f"CONNECT {target} HTTP/1.1\r\nProxy-Authorization: Bearer {TOKEN}\r\n\r\n".encode()
    answer = await world.say(head + first)
    assert answer.startswith(b"HTTP/1.1 200 "), answer
    return answer.partition(b"\r\n\r\n")[2]


async def test_tls_to_the_host_of_the_tunnel_passes_and_to_another_does_not(world: World) -> None:
    mine, other = client_hello("echo.example"), client_hello("evil.example")
    assert await said_first(world, mine, "echo.example:443") == mine + b"<end>"
    assert world.received == mine
    world.names.known["mixed.example"] = ["1.1.1.1"]
    for target in ("echo.example:443", "mixed.example:443", "echo.example:80", "ported.example:9443"):
        assert (await said_first(world, other, target)).removesuffix(b"<end>") == hello.OTHER_NAME
    assert await said_first(world, client_hello(None), "echo.example:443") == hello.NO_NAME
    assert await said_first(world, with_hidden_name(mine), "echo.example:443") == hello.OTHER_NAME
    plain = await said_first(world, b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", "echo.example:443")
    assert plain.startswith(b"HTTP/1.1 403 only TLS passes")
    assert world.received == mine, "not one byte of them"
    assert world.proxy.counts.refused == {"name": 7}
    assert world.recorded[0] == ("acme", "hello", "echo.example:443", "name")
    assert len(world.recorded) == 4, "one an hour for each target"


async def test_a_hello_in_pieces_is_held_until_it_is_whole(world: World) -> None:
    mine = client_hello("echo.example")
    reader, writer = await world.tunnel("echo.example:443")
    for at in range(0, len(mine), 40):
        assert world.received == b""
        writer.write(mine[at : at + 40])
        await writer.drain()
        await asyncio.sleep(0)
    assert await reader.readexactly(len(mine)) == mine
    writer.close()


async def test_a_silent_client_on_443_is_given_up_and_elsewhere_the_server_may_speak_first() -> None:
    world = World(head=0.3)
    await world.start()
    reader, writer = await world.tunnel("echo.example:443")
    async with asyncio.timeout(5):
        assert (await reader.read()) == hello.NO_NAME
    writer.close()
    world.first = b"220 hello\r\n"
    reader, writer = await world.tunnel("ported.example:9443")
    async with asyncio.timeout(5):
        assert await reader.readexactly(11) == b"220 hello\r\n"
    writer.close()
    await world.aclose()


async def test_thousands_of_connects_and_leaves_leave_nothing(world: World) -> None:
    async def come_and_go(n: int) -> None:
        _, writer = await world.open()
        if n % 2:
            writer.write(b"CONNECT echo.exam")
        writer.transport.abort()

    for batch in range(20):
        await asyncio.gather(*(come_and_go(n) for n in range(batch * 50, batch * 50 + 50)))
    await until(lambda: world.proxy.connections == 0)
    assert all(not each.open for each in world.proxy.budgets._accounts.values())


async def test_closing_cuts_open_tunnels(world: World) -> None:
    reader, writer = await world.tunnel()
    await world.proxy.aclose()
    async with asyncio.timeout(3):
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
    writer.close()
