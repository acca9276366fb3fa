"""The agent's door: a proxy that adds the sandbox's token and moves bytes, and is nothing else."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from fakes.shim_world import World, until

pytestmark = pytest.mark.component


class Egress:
    """A stand-in for the gateway's egress port: keeps heads, answers 200, then echoes; speaks no protocol beyond."""

    async def start(self) -> None:
        self.heads: list[bytes] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self.flood = 0
        self.flooded = 0
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self.server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader, writer) -> None:
        self.tasks.add(asyncio.current_task())
        try:
            self.heads.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            for _ in range(self.flood):
                writer.write(b"x" * 65536)
                await writer.drain()
                self.flooded += 1
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def close(self) -> None:
        self.server.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


@pytest.fixture
async def egress() -> AsyncIterator[Egress]:
    made = Egress()
    await made.start()
    yield made
    await made.close()


@pytest.fixture
async def world(tmp_path, egress) -> AsyncIterator[World]:
    async with World(tmp_path, egress=egress.address) as made:
        yield made


async def knock(world: World, text: bytes):
    reader, writer = await asyncio.open_connection("127.0.0.1", world.init.door_port)
    writer.write(text)
    return reader, writer


async def test_a_tunnel_carries_the_token_and_then_bytes_both_ways(world, egress):
    reader, writer = await knock(world, b"CONNECT example.org:443 HTTP/1.1\r\nhost: example.org:443\r\n\r\nhello")
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 200 Connection established\r\n\r\n"
    assert await reader.readexactly(5) == b"hello"
    assert b"CONNECT example.org:443 HTTP/1.1\r\n" in egress.heads[0]
    assert b"proxy-authorization: Bearer tok.en\r\n" in egress.heads[0]
    writer.write(b"more")
    writer.write_eof()
    assert await reader.read() == b"more"
    writer.close()


async def test_a_plain_request_passes_once_and_without_what_the_agent_says_of_itself(world, egress):
    head = b"GET http://example.org/a HTTP/1.1\r\nHost: example.org\r\nProxy-Authorization: Bearer mine\r\nx-own: 1\r\n"
    reader, writer = await knock(world, head + b"Connection: keep-alive, x-own\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    assert b"Bearer mine" not in egress.heads[0]
    assert b"x-own" not in egress.heads[0]
    assert b"proxy-authorization: Bearer tok.en\r\nconnection: close\r\n" in egress.heads[0]
    writer.close()


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (b"CONNECT example.org HTTP/1.1\r\n\r\n", b"400"),
        (b"CONNECT exa mple.org:443 HTTP/1.1\r\n\r\n", b"400"),
        (b"CONNECT a@b:443 HTTP/1.1\r\n\r\n", b"400"),
        (b"CONNECT a/b:443 HTTP/1.1\r\n\r\n", b"400"),
        (b"CONNECT \x00:443 HTTP/1.1\r\n\r\n", b"400"),
        (b"GET http://a@b/ HTTP/1.1\r\n\r\n", b"400"),
        (b"POST http://a/ HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n", b"400"),
        (b"GET /v1/models HTTP/1.1\r\nconnection: close\r\n\r\n", b"404"),
        (b"GET https://a/ HTTP/1.1\r\nconnection: close\r\n\r\n", b"404"),
        (b"GET / HTTP/1.1\r\nx: " + b"y" * 20_000, b"431"),
    ],
)
async def test_what_is_no_proxy_request_goes_nowhere(world, egress, text, status):
    reader, writer = await knock(world, text)
    assert (await reader.readline()).split()[1] == status
    await reader.read()
    assert egress.heads == []
    writer.close()


async def test_in_a_pod_the_pods_token_goes_with_every_connection_and_is_never_the_agents(tmp_path, egress):
    token = tmp_path / "token"
    token.write_text("aa.bb.cc")
    async with World(tmp_path, egress=egress.address, token_file=str(token)) as world:
        for number, (text, shown) in enumerate(
            [
                (b"CONNECT example.org:443 HTTP/1.1\r\nx-moorage-pod-token: mine\r\n\r\n", b"aa.bb.cc"),
                (b"GET http://example.org/ HTTP/1.1\r\nX-Moorage-Pod-Token: mine\r\n\r\n", b"dd.ee.ff"),
                (b"GET http://a/ HTTP/1.1\r\nconnection: x-moorage-pod-token\r\n\r\n", b"dd.ee.ff"),
            ]
        ):
            reader, writer = await knock(world, text)
            assert shown not in await reader.readuntil(b"\r\n\r\n")
            assert egress.heads[number].lower().count(b"x-moorage-pod-token: ") == 1
            assert b"x-moorage-pod-token: %b\r\n" % shown in egress.heads[number]
            writer.close()
            token.write_text("dd.ee.ff")


async def test_without_the_pods_token_nothing_leaves_and_the_agent_is_told(tmp_path, egress):
    async with World(tmp_path, egress=egress.address, token_file=str(tmp_path / "none")) as world:
        reader, writer = await knock(world, b"CONNECT example.org:443 HTTP/1.1\r\n\r\n")
        assert b"503" in await reader.readline()
        assert b"token" not in (await reader.read()).lower()
        assert egress.heads == []
        writer.close()


async def test_without_an_egress_port_the_answer_says_so(tmp_path):
    async with World(tmp_path) as world:
        reader, writer = await knock(world, b"CONNECT example.org:443 HTTP/1.1\r\n\r\n")
        assert b"502" in await reader.readline()
        writer.close()


async def test_a_slow_agent_stops_the_download(world, egress):
    egress.flood = 3000
    reader, writer = await knock(world, b"CONNECT example.org:443 HTTP/1.1\r\n\r\n")
    last = -1
    while egress.flooded != last:
        last = egress.flooded
        await asyncio.sleep(0.2)
    assert egress.flooded < 500
    size = len(await reader.readuntil(b"\r\n\r\n"))
    while size < 3000 * 65536:
        size += len(await reader.read(1 << 20))
    writer.close()


async def test_the_agent_is_told_where_its_door_is(world):
    environ = (await asyncio.to_thread(read_environ, world.init.process.pid)).split(b"\0")
    url = b"http://127.0.0.1:%d" % world.init.door_port
    assert {b"HTTPS_PROXY=" + url, b"http_proxy=" + url, b"NO_PROXY=127.0.0.1,localhost"} <= set(environ)


def read_environ(pid: int) -> bytes:
    with open(f"/proc/{pid}/environ", "rb") as file:
        return file.read()


async def test_a_hang_up_on_one_side_ends_the_other(world, egress):
    reader, writer = await knock(world, b"CONNECT example.org:443 HTTP/1.1\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    writer.transport.abort()
    await until(lambda: all(task.done() for task in egress.tasks))
