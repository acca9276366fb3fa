"""The egress proxy over real sockets: what passes, what is refused with which words, what is bounded."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from fakes import pod_tokens as cluster
from fakes.hellos import client_hello, with_hidden_name
from moorage_api import tokens
from moorage_api.catalog import AgentEntry
from moorage_api.pod_tokens import PodTokens
from moorage_gateway.boundary.proofs import Proofs
from moorage_gateway.clock import SystemClock
from moorage_gateway.egress import connecting, hello, proxy
from moorage_gateway.egress.budgets import Bounds
from moorage_gateway.egress.rules import Target

pytestmark = [pytest.mark.component, pytest.mark.isolation]

KEY = "ab" * 32
TOKEN = tokens.sign(tokens.Identity("sb-1", "acme", "hello", "rev1", "vol-1"), KEY)
EGRESS = ["echo.example", "*.wild.example", "ported.example:9443", "package-index", "rebind.example", "mixed.example"]


class Catalog:
    token_key: str | None = KEY
    pod_tokens: PodTokens | None = None

    def get(self, tenant: str, agent: str) -> AgentEntry | None:
        if (tenant, agent) != ("acme", "hello"):
            return None
        return AgentEntry(tenant, agent, (), frozenset(), "moorage", {"egress": EGRESS})


class Names:
    def __init__(self) -> None:
        self.asked: list[str] = []
        self.known: dict[str, list[str]] = {}

    async def resolve(self, host: str) -> list[str]:
        self.asked.append(host)
        if host not in self.known:
            raise OSError("no such name")
        return self.known[host]

    def close(self) -> None:
        """Nothing is held."""


class Wire:
    """Connects every public address to the local echo server, and notes which address was asked for."""

    def __init__(self) -> None:
        self.port = 0
        self.asked: list[tuple[str, int]] = []
        self.dead: set[str] = set()

    async def connect(self, address: str, port: int) -> connecting.Streams:
        self.asked.append((address, port))
        if address in self.dead:
            raise ConnectionRefusedError
        return await asyncio.open_connection("127.0.0.1", self.port)


class World:
    def __init__(self, *, session: Bounds | None = None, **limits: Any) -> None:
        self.recorded: list[tuple[str, str, str, str]] = []
        self.catalog, self.names, self.wire = Catalog(), Names(), Wire()
        self.proxy = proxy.EgressProxy(
            self.catalog,
            Proofs(self.catalog, SystemClock()),
            SystemClock(),
            named={"package-index": frozenset({Target("index.example", 443)})},
            own=proxy.Own(
                self._look, frozenset({Target("git.example", 443)}), lambda *said: self.recorded.append(said)
            ),
            resolver=self.names,
            connector=self.wire,
            limits=proxy.EgressLimits(**{"head": 2.0, "session": session or Bounds(), **limits}),
        )
        self.received = b""
        self.first = b""
        self.looked = 0
        self.port = 0
        self._server: asyncio.Server | None = None

    async def _look(self) -> None:
        self.looked += 1

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._echo, "127.0.0.1", 0)
        self.wire.port = self._server.sockets[0].getsockname()[1]
        self.port = await self.proxy.start("127.0.0.1", 0)
        for host in ("echo.example", "a.wild.example", "ported.example"):
            self.names.known[host] = ["93.184.215.14"]

    async def _echo(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            writer.write(self.first)
            while data := await reader.read(65536):
                self.received += data
                writer.write(data)
                await writer.drain()
            writer.write(b"<end>")
            writer.close()

    async def open(self) -> connecting.Streams:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def say(self, head: bytes) -> bytes:
        reader, writer = await self.open()
        writer.write(head)
        writer.write_eof()
        async with asyncio.timeout(10):
            answer = await reader.read()
        writer.close()
        return answer

    async def connect(self, target: str, token: str | None = TOKEN) -> bytes:
        authorization = f"Proxy-Authorization: Bearer {token}\r\n" if token else ""
        return await self.say(f"CONNECT {target} HTTP/1.1\r\n{authorization}\r\n".encode())

    async def tunnel(self, target: str = "ported.example:9443") -> connecting.Streams:
        reader, writer = await self.open()
        writer.write(f"CONNECT {target} HTTP/1.1\r\nProxy-Authorization: Bearer {TOKEN}\r\n\r\n".encode())
        async with asyncio.timeout(5):
            assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
        return reader, writer

    async def aclose(self) -> None:
        await self.proxy.aclose()
        assert self._server is not None
        self._server.close()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    await made.start()
    yield made
    await made.aclose()


async def until(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)


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


async def test_where_sandboxes_are_pods_the_pods_token_is_needed_and_goes_no_further(world: World) -> None:
    world.catalog.pod_tokens = cluster.published()
    mine, others = (cluster.token(cluster.claims(pod, SystemClock().now_ms() / 1000)) for pod in ("sb-1", "sb-2"))
    proxied = f"Proxy-Authorization: Bearer {TOKEN}\r\n"
    for shown in ("", "x-moorage-pod-token: \r\n", f"x-moorage-pod-token: {others}\r\n"):
        answer = await world.say(f"CONNECT echo.example:443 HTTP/1.1\r\n{proxied}{shown}\r\n".encode())
        assert answer.startswith(b"HTTP/1.1 407 ") and others.encode() not in answer
    twice = f"x-moorage-pod-token: {mine}\r\n" * 2
    assert b" 400 " in await world.say(f"CONNECT echo.example:443 HTTP/1.1\r\n{proxied}{twice}\r\n".encode())
    assert world.wire.asked == []
    own = f"{proxied}x-moorage-pod-token: {mine}\r\n"
    assert b" 200 " in await world.say(f"CONNECT echo.example:443 HTTP/1.1\r\n{own}\r\n".encode())
    seen = await world.say(f"GET http://echo.example/ HTTP/1.1\r\nhost: x\r\n{own}\r\n".encode())
    assert seen.startswith(b"GET / HTTP/1.1\r\n")
    assert b"pod-token" not in world.received and mine.encode() not in world.received


async def test_a_build_reaches_what_its_token_says_and_a_private_address_only_where_the_platform_says_so(
    world: World,
) -> None:
    world.catalog.pod_tokens = cluster.published()
    job, reach = "moorage-build-1", ("git.example:443", "other.example:443", "package-index")
    who = tokens.BuildIdentity(job, "moorage-sandbox", "acme", "hello", "", reach)
    for host in ("git.example", "other.example", "index.example"):
        world.names.known[host] = ["10.0.0.7"]
    world.names.known["echo.example"] = ["93.184.215.14"]

    async def asked(target: str, pod: str = f"{job}-abcde", key: str = KEY) -> bytes:
        shown = cluster.token(cluster.claims(pod, SystemClock().now_ms() / 1000))
        head = f"Proxy-Authorization: Bearer {tokens.sign_build(who, key)}\r\nx-moorage-pod-token: {shown}\r\n"
        return await world.say(f"CONNECT {target} HTTP/1.1\r\n{head}\r\n".encode())

    assert b" 200 " in await asked("git.example:443")
    assert world.looked, "the index is looked up before its set is read"
    assert b" 200 " in await asked("index.example:443")
    refused = await asked("other.example:443")
    assert refused.startswith(b"HTTP/1.1 403 ") and b"resolves to" in refused
    unlisted = await asked("echo.example:443")
    assert unlisted.startswith(b"HTTP/1.1 403 ") and b"builds reach nothing else" in unlisted, (
        "its agent's list is not its own"
    )
    for answer in (
        await asked("git.example:443", pod="sb-1"),
        await asked("git.example:443", pod="moorage-build-12-abcde"),
        await asked("git.example:443", key="cd" * 32),
    ):
        assert answer.startswith(b"HTTP/1.1 407 ")


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


async def test_a_plain_http_request_is_passed_on_without_the_token(world: World) -> None:
    answer = await world.say(
        f"GET http://echo.example/simple/?q=1 HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Bearer {TOKEN}\r\n\r\n".encode()
    )
    assert answer.startswith(b"GET /simple/?q=1 HTTP/1.1\r\nHost: echo.example\r\nConnection: close\r\n")
    assert b"Bearer" not in world.received and world.wire.asked == [("93.184.215.14", 80)]


PLAIN = f"POST http://echo.example/x HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Bearer {TOKEN}\r\n"
SECOND = "GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n"


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


@pytest.mark.parametrize(
    ("target", "status", "words"),
    [
        ("other.example:443", 403, b"add 'other.example' to that list"),
        ("echo.example:22", 403, b"add 'echo.example:22'"),
        ("ported.example:443", 403, b"spec.egress of agent 'hello'"),
        ("wild.example:443", 403, b"spec.egress"),
        ("127.0.0.1:443", 403, b"name the host"),
        ("[::1]:443", 403, b"name the host"),
        ("0x7f000001:80", 403, b"name the host"),
        ("echo.example.:443", 403, b"trailing dot"),
        ("echo.example:0", 403, b"not a port"),
        ("echo.example", 403, b"HOST:PORT"),
        ("index.example:80", 403, b"spec.egress"),
    ],
)
async def test_a_target_that_is_not_listed_is_403_and_says_what_to_add(
    world: World, target: str, status: int, words: bytes
) -> None:
    answer = await world.connect(target)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status) and words in head.split(b"\r\n")[0] and words in body
    assert body.count(b"\n") == 1
    assert world.names.asked == [] and world.wire.asked == [] and world.received == b""


@pytest.mark.parametrize(
    "token",
    [None, "", "x", "a.b", TOKEN[:-2], TOKEN + "x", "." + TOKEN, "x" * 5_000,
     tokens.sign(tokens.Identity("sb-1", "acme", "hello", "r", "v"), "cd" * 32)],
)  # fmt: skip
async def test_without_a_token_of_this_platform_nothing_is_decided(world: World, token: str | None) -> None:
    answer = await world.connect("echo.example:443", token)
    assert answer.startswith(b"HTTP/1.1 407 ") and b"Proxy-Authenticate" in answer
    assert world.names.asked == []


async def test_another_tenants_agent_of_the_same_name_has_its_own_list(world: World) -> None:
    other = tokens.sign(tokens.Identity("sb-2", "rival", "hello", "rev1", "vol-2"), KEY)
    assert (await world.connect("echo.example:443", other)).startswith(b"HTTP/1.1 403 ")


async def test_a_listed_name_that_resolves_inside_is_refused_at_connect_time(world: World) -> None:
    for address in ("127.0.0.1", "10.0.0.5", "169.254.169.254", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "fd00::1",
                    "203.0.113.80", "100.64.0.1", "0.0.0.0"):  # fmt: skip
        world.names.known["rebind.example"] = [address]
        answer = await world.connect("rebind.example:443")
        assert answer.startswith(b"HTTP/1.1 403 ") and b"may not reach" in answer, address
    assert world.wire.asked == []


async def test_what_was_checked_is_what_is_connected_to(world: World) -> None:
    world.names.known["mixed.example"] = ["127.0.0.1", "1.1.1.1", "10.0.0.1"]
    assert b" 200 " in await world.connect("mixed.example:443")
    assert world.wire.asked == [("1.1.1.1", 443)] and world.names.asked == ["mixed.example"]


async def test_the_platforms_index_may_be_private_but_never_this_machine(world: World) -> None:
    world.names.known["index.example"] = ["203.0.113.80"]
    assert b" 200 " in await world.connect("index.example:443")
    for address in ("127.0.0.1", "169.254.169.254", "::1", "fe80::1"):
        world.names.known["index.example"] = [address]
        assert (await world.connect("index.example:443")).startswith(b"HTTP/1.1 403 ")
    assert world.wire.asked == [("203.0.113.80", 443)]


async def test_the_next_address_is_tried_when_one_is_dead(world: World) -> None:
    world.names.known["echo.example"] = ["1.1.1.1", "8.8.8.8"]
    world.wire.dead = {"1.1.1.1"}
    assert b" 200 " in await world.connect("echo.example:443")
    world.wire.dead = {"1.1.1.1", "8.8.8.8"}
    assert (await world.connect("echo.example:443")).startswith(b"HTTP/1.1 502 ")


async def test_a_name_that_does_not_resolve_is_502(world: World) -> None:
    assert (await world.connect("b.wild.example:443")).startswith(b"HTTP/1.1 502 ")


async def test_a_platform_without_its_key_yet_refuses_everything(world: World) -> None:
    world.catalog.token_key = None
    assert (await world.connect("echo.example:443")).startswith(b"HTTP/1.1 503 ")


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


async def test_refusals_are_counted_by_what_they_are(world: World) -> None:
    for target in ("evil.example:443", "evil.example:443", "127.0.0.1:443"):
        await world.connect(target)
    world.names.known["rebind.example"] = ["10.0.0.1"]
    await world.connect("rebind.example:443")
    await world.connect("echo.example:443", None)
    await world.connect("b.wild.example:443")
    assert world.proxy.counts.refused == {
        "not_listed": 2,
        "malformed": 1,
        "address": 1,
        "not_proven": 1,
        "unresolved": 1,
    }
    assert world.recorded == [
        ("acme", "hello", "evil.example:443", "not_listed"), ("acme", "hello", "rebind.example:443", "address"),
    ]  # fmt: skip


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


async def test_a_refused_target_is_logged_in_one_line_without_the_token(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "moorage.egress"):
        await world.connect("evil.example:443")
        await world.connect("evil\x1b[31m.example:443")
    lines = [record.getMessage() for record in caplog.records]
    assert "acme/hello" in lines[0] and "evil.example:443" in lines[0]
    assert not any("\n" in line or "\x1b" in line or TOKEN in line for line in lines)


async def test_closing_cuts_open_tunnels(world: World) -> None:
    reader, writer = await world.tunnel()
    await world.proxy.aclose()
    async with asyncio.timeout(3):
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
    writer.close()


async def test_the_machines_resolver_answers_with_literals_and_says_when_a_name_is_unknown() -> None:
    resolver = connecting.SystemResolver()
    assert "127.0.0.1" in await resolver.resolve("localhost")
    with pytest.raises(OSError):
        await resolver.resolve("no-such-name.invalid")
    resolver.close()
    crowded = connecting.SystemResolver(workers=1, waiting=-1)
    with pytest.raises(OSError, match="too many"):
        await crowded.resolve("localhost")
    crowded.close()
