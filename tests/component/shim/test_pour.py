"""Bodies that are poured into a sink as they arrive: paused and resumed, silent, and where reading had paused before."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fakes.peer import Peer, Script, head
from moorage_api.wire.hop import HopPool, HopTimeout

pytestmark = pytest.mark.component


def streaming(total: int, *, pause: bool = False) -> Script:
    """Answers one request with a chunked body of `total` bytes; with `pause` it then says nothing more and does not end."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(total // 1000):
            writer.write(b"3e8\r\n%b\r\n" % (b"x" * 1000))
            await writer.drain()
        if pause:
            await asyncio.Event().wait()
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    return script


async def test_a_poured_body_goes_on_where_reading_had_paused(tmp_path: Path) -> None:
    """The body fills the buffer before anybody takes it: pouring must let the rest come."""
    async with Peer(str(tmp_path / "s"), streaming(2_000_000)) as peer:
        pool = HopPool()
        answer = await pool.request(peer.endpoint, "GET", "/", [], None, connect_timeout=5, head_timeout=5)
        connection = answer._connection
        assert connection is not None
        async with asyncio.timeout(5):
            while not connection._paused:
                await asyncio.sleep(0)
        got: list[int] = []

        def sink(piece: bytes) -> bool:
            got.append(len(piece))
            return True

        async with asyncio.timeout(10):
            await answer.pour(sink, idle=5)
        assert sum(got) == 2_000_000
        await pool.close()


async def test_a_sink_that_has_enough_stops_the_peer_until_it_takes_more(tmp_path: Path) -> None:
    async with Peer(str(tmp_path / "s"), streaming(2_000_000)) as peer:
        pool = HopPool()
        answer = await pool.request(peer.endpoint, "GET", "/", [], None, connect_timeout=5, head_timeout=5)
        got = 0
        full = asyncio.Event()

        def sink(piece: bytes) -> bool:
            nonlocal got
            got += len(piece)
            if got > 100_000:
                full.set()
            return got <= 100_000 or go.is_set()

        go = asyncio.Event()
        pouring = asyncio.create_task(answer.pour(sink, idle=0.2))
        async with asyncio.timeout(5):
            await full.wait()
        stopped = got
        await asyncio.sleep(0.5)  # longer than the silence: who has enough is not told that the peer is silent
        assert got <= stopped + 200_000
        assert not pouring.done()
        go.set()
        answer.resume()
        async with asyncio.timeout(10):
            await pouring
        assert got == 2_000_000
        await pool.close()


async def test_a_silent_peer_ends_the_pouring(tmp_path: Path) -> None:
    async with Peer(str(tmp_path / "s"), streaming(1000, pause=True)) as peer:
        pool = HopPool()
        answer = await pool.request(peer.endpoint, "GET", "/", [], None, connect_timeout=5, head_timeout=5)
        with pytest.raises(HopTimeout):
            async with asyncio.timeout(5):
                await answer.pour(lambda piece: True, idle=0.2)
        await answer.aclose()
        await pool.close()
