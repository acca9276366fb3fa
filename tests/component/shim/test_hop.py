"""The client of the sandbox hop against a scripted peer on real sockets."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable

import pytest
import uvloop

from fakes.peer import Peer, Script, head
from moorage_api.wire.exchange import HopConnection
from moorage_api.wire.hop import HopError, HopPool, HopTimeout

pytestmark = pytest.mark.component

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def answering(*answers: bytes) -> Script:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await head(reader)
            writer.write(answer)
            await writer.drain()

    return script


async def forever(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        await head(reader)
        writer.write(OK)


@pytest.fixture
async def pool() -> AsyncIterator[HopPool]:
    made = HopPool()
    yield made
    await made.close()
    await asyncio.sleep(0)


async def get(pool: HopPool, endpoint: str, body: object = None, **more: object):
    method = "GET" if body is None else "POST"
    options = {"connect_timeout": 2.0, "head_timeout": 2.0, **more}
    return await pool.request(endpoint, method, "/x", [], body, **options)  # type: ignore[arg-type]


async def until(check: Callable[[], bool], seconds: float = 5) -> None:
    async with asyncio.timeout(seconds):
        while not check():
            await asyncio.sleep(0.005)


async def test_a_connection_read_to_its_end_serves_the_next_request(pool, tmp_path):
    async with Peer(str(tmp_path / "s"), forever) as peer:
        for _ in range(5):
            answer = await get(pool, peer.endpoint)
            assert (answer.status, await answer.read(100)) == (200, b"ok")
        assert peer.connections == 1


async def test_chunks_arrive_one_by_one_and_are_never_merged(pool, tmp_path):
    async def script(reader, writer):
        await head(reader)
        writer.write(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n3\r\ntwo\r\n5\r\nthree\r\n0\r\n\r\n"
        )
        await head(reader)

    async with Peer(str(tmp_path / "s"), script) as peer:
        answer = await get(pool, peer.endpoint)
        assert [piece async for piece in answer.chunks()] == [b"one", b"two", b"three"]


async def test_a_body_until_close_ends_with_the_connection(pool, tmp_path):
    async with Peer(str(tmp_path / "s"), answering(b"HTTP/1.1 200 OK\r\n\r\nall of it")) as peer:
        answer = await get(pool, peer.endpoint)
        assert await answer.read(100) == b"all of it"
        answer = await get(pool, peer.endpoint)
        await answer.aclose()
        assert peer.connections == 2


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ],
)
async def test_a_broken_body_is_an_error_and_never_an_end(pool, tmp_path, raw):
    async with Peer(str(tmp_path / "s"), answering(raw)) as peer:
        answer = await get(pool, peer.endpoint)
        with pytest.raises(HopError) as caught:
            await answer.read(100)
        assert caught.value.sent
        await answer.aclose()


async def test_nothing_listening_means_nothing_was_sent(pool, tmp_path):
    with pytest.raises(HopError) as caught:
        await get(pool, f"unix:{tmp_path}/none")
    assert not caught.value.sent


async def test_a_kept_connection_found_dead_is_replaced_once(pool, tmp_path):
    async def one_then_drop(reader, writer):
        await head(reader)
        writer.write(OK)
        await head(reader)  # the second request is read, then the connection drops without a byte

    async with Peer(str(tmp_path / "s"), one_then_drop, forever) as peer:
        assert await (await get(pool, peer.endpoint)).read(10) == b"ok"
        assert await (await get(pool, peer.endpoint, b"body")).read(10) == b"ok"
        assert peer.connections == 2


async def test_a_kept_connection_found_dead_is_not_replaced_where_a_request_may_run_once_only(pool, tmp_path):
    async def one_then_drop(reader, writer):
        await head(reader)
        writer.write(OK)
        await head(reader)

    async with Peer(str(tmp_path / "s"), one_then_drop, forever) as peer:
        assert await (await get(pool, peer.endpoint)).read(10) == b"ok"
        with pytest.raises(HopError) as caught:
            await get(pool, peer.endpoint, b"body", retry_stale=False)
        assert caught.value.sent
        assert peer.connections == 1


async def test_a_fresh_connection_that_dies_is_not_tried_again(pool, tmp_path):
    async def drop(reader, writer):
        await head(reader)

    async with Peer(str(tmp_path / "s"), drop) as peer:
        with pytest.raises(HopError) as caught:
            await get(pool, peer.endpoint, b"body")
        assert caught.value.sent
        assert peer.connections == 1


async def test_a_silent_peer_is_left_at_the_deadline(pool, tmp_path):
    async def silent(reader, writer):
        await reader.read()

    async with Peer(str(tmp_path / "s"), silent) as peer:
        with pytest.raises(HopTimeout):
            await get(pool, peer.endpoint, head_timeout=0.05)


async def test_a_body_that_falls_silent_is_left_at_the_idle_deadline(pool, tmp_path):
    async def half(reader, writer):
        await head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
        await reader.read()

    async with Peer(str(tmp_path / "s"), half) as peer:
        answer = await get(pool, peer.endpoint)
        assert await answer.next_chunk(idle=1) == b"half"
        with pytest.raises(HopTimeout):
            await answer.next_chunk(idle=0.05)
        await answer.aclose()


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\ncontent-length: 2\n\nok\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\nok",
        b"SSH-2.0-x\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 70_000,
    ],
)
async def test_a_malformed_answer_is_refused(pool, tmp_path, raw):
    async with Peer(str(tmp_path / "s"), answering(raw)) as peer:
        with pytest.raises(HopError):
            await get(pool, peer.endpoint)


async def test_an_interim_answer_is_passed_over(pool, tmp_path):
    async with Peer(str(tmp_path / "s"), answering(b"HTTP/1.1 100 Continue\r\n\r\n" + OK)) as peer:
        assert await (await get(pool, peer.endpoint)).read(10) == b"ok"


async def test_after_bytes_past_an_answer_the_connection_is_not_used_again(pool, tmp_path):
    async with Peer(str(tmp_path / "s"), answering(OK + b"HTTP/1.1 200 OK\r\n"), forever) as peer:
        for _ in range(2):
            assert await (await get(pool, peer.endpoint)).read(10) == b"ok"
        assert peer.connections == 2


async def test_a_slow_reader_leaves_the_rest_in_the_peer(pool, tmp_path):
    written = 0

    async def flood(reader, writer):
        nonlocal written
        await head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        writer.transport.set_write_buffer_limits(high=0)
        for _ in range(400):
            writer.write(b"x" * 16384)
            await writer.drain()
            written += 16384

    async with Peer(str(tmp_path / "s"), flood) as peer:
        answer = await get(pool, peer.endpoint)
        last = -1
        while written != last:  # until the peer stands still
            last = written
            await asyncio.sleep(0.1)
        kernel = 2 * socket_buffer()
        assert written <= 256 * 1024 + kernel
        assert len(await answer.read(10_000_000)) == 400 * 16384


def socket_buffer() -> int:
    left, right = socket.socketpair()
    with left, right:
        return left.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)


async def test_a_streamed_body_is_sent_in_chunks_as_it_comes(pool, tmp_path):
    arrived: list[bytes] = []
    go_on = asyncio.Event()

    async def script(reader, writer):
        assert b"transfer-encoding: chunked" in await head(reader)
        arrived.append(await reader.readexactly(8))
        go_on.set()
        arrived.append(await reader.readuntil(b"0\r\n\r\n"))
        writer.write(OK)
        await reader.read()

    async def body() -> AsyncIterator[bytes]:
        yield b"one"
        await go_on.wait()
        yield b"two"

    async with Peer(str(tmp_path / "s"), script) as peer:
        assert await (await get(pool, peer.endpoint, body())).read(10) == b"ok"
    assert arrived == [b"3\r\none\r\n", b"3\r\ntwo\r\n0\r\n\r\n"]


async def test_a_body_whose_source_breaks_ends_the_request_and_says_why(pool, tmp_path):
    async def body() -> AsyncIterator[bytes]:
        yield b"one"
        raise KeyError("gone")

    async def silent(reader, writer):
        await reader.read()

    async with Peer(str(tmp_path / "s"), silent) as peer:
        with pytest.raises(HopError) as caught:
            await get(pool, peer.endpoint, body())
        assert isinstance(caught.value.__cause__, KeyError)


async def test_a_streamed_body_that_differs_from_its_length_never_ends_as_a_whole_one(pool, tmp_path):
    async def body() -> AsyncIterator[bytes]:
        yield b"longer than four"

    async def silent(reader, writer):
        await reader.read()

    async with Peer(str(tmp_path / "s"), silent) as peer:
        with pytest.raises(HopError):
            await pool.request(
                peer.endpoint, "POST", "/", [(b"content-length", b"4")], body(), connect_timeout=1, head_timeout=1
            )


@pytest.mark.parametrize("header", [(b"x", b"a\r\nb: c"), (b"x", b"a\nb"), (b"x\r\ny", b"a")])
async def test_a_header_that_would_add_another_is_not_sent(pool, tmp_path, header):
    with pytest.raises(HopError) as caught:
        await pool.request(f"unix:{tmp_path}/s", "GET", "/", [header], None, connect_timeout=1, head_timeout=1)
    assert not caught.value.sent


async def test_leaving_an_answer_unread_closes_its_connection(pool, tmp_path):
    gone = asyncio.Event()

    async def endless(reader, writer):
        await head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\npart")
        await reader.read()
        gone.set()

    async with Peer(str(tmp_path / "s"), endless) as peer:
        answer = await get(pool, peer.endpoint)
        await answer.aclose()
        await asyncio.wait_for(gone.wait(), 2)


async def test_idle_connections_are_closed_after_their_time(tmp_path):
    gone = asyncio.Event()

    async def watched(reader, writer):
        await head(reader)
        writer.write(OK)
        await reader.read()
        gone.set()

    pool = HopPool(idle_seconds=0.05)
    async with Peer(str(tmp_path / "s"), watched) as peer:
        await (await get(pool, peer.endpoint)).read(10)
        await asyncio.wait_for(gone.wait(), 2)
    await pool.close()


async def test_a_connector_gives_the_sockets(tmp_path):
    asked: list[str] = []

    async def connect(endpoint: str) -> socket.socket:
        asked.append(endpoint)
        made = socket.socket(socket.AF_UNIX)
        made.setblocking(False)
        made.connect(str(tmp_path / "s"))
        return made

    pool = HopPool(connector=connect)
    async with Peer(str(tmp_path / "s"), forever):
        for _ in range(3):
            assert await (await get(pool, "agent")).read(10) == b"ok"
    assert asked == ["agent"]
    await pool.close()


def test_the_client_works_on_the_gateways_own_event_loop_too(tmp_path):
    """The gateway runs on uvloop, whose transports differ in detail: buffers, pauses, ends."""

    async def scenario() -> None:
        async def flood(reader, writer):
            await head(reader)
            writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            for _ in range(100):
                writer.write(b"4000\r\n" + b"x" * 16384 + b"\r\n")
                await writer.drain()
            writer.write(b"0\r\n\r\n")
            await head(reader)
            writer.write(OK)
            await head(reader)  # and drops the third without a byte

        pool = HopPool()
        async with Peer(str(tmp_path / "s"), flood, forever) as peer:
            answer = await get(pool, peer.endpoint)
            assert len(await answer.next_chunk(idle=5)) <= 16384
            await asyncio.sleep(0.05)
            assert len(await answer.read(2_000_000)) <= 100 * 16384
            for _ in range(2):
                assert await (await get(pool, peer.endpoint, b"body")).read(10) == b"ok"
            assert peer.connections == 2

            async def pieces() -> AsyncIterator[bytes]:
                yield b"x" * 1000

            with pytest.raises(HopError):
                await get(pool, f"unix:{tmp_path}/none", pieces())
        await pool.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario())


async def test_a_request_cancelled_as_its_answer_begins_leaves_no_open_connection() -> None:
    """Between the arrival of the head and the step of the task that waits for it: nobody would ever read or close it else."""

    class Transport(asyncio.Transport):
        aborted = False

        def write(self, data: bytes | bytearray | memoryview) -> None:
            return

        def abort(self) -> None:
            self.aborted = True

    transport, scratch = Transport(), memoryview(bytearray(1024))
    connection = HopConnection(scratch)
    connection.connection_made(transport)
    asking = asyncio.create_task(connection.exchange("GET", b"", None, length=0, timeout=5))
    await asyncio.sleep(0)
    answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    scratch[: len(answer)] = answer
    connection.buffer_updated(len(answer))
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert transport.aborted
