"""What the egress proxy lets through: whose token, which host, which address; and how it says no."""

from __future__ import annotations

import logging

import pytest

from component.egress.world import KEY, TOKEN, World
from fakes import pod_tokens as cluster
from moorage_api import tokens
from moorage_gateway.clock import SystemClock
from moorage_gateway.egress import connecting

pytestmark = [pytest.mark.component, pytest.mark.isolation]


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


async def test_a_refused_target_is_logged_in_one_line_without_the_token(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "moorage.egress"):
        await world.connect("evil.example:443")
        await world.connect("evil\x1b[31m.example:443")
    lines = [record.getMessage() for record in caplog.records]
    assert "acme/hello" in lines[0] and "evil.example:443" in lines[0]
    assert not any("\n" in line or "\x1b" in line or TOKEN in line for line in lines)


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
