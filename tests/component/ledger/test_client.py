"""The ledger's client on a real Valkey: what a broken, late, strange or forgetful server is to whoever asked."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import redis.asyncio as aioredis

from fakes.valkey import Valkey
from moorage_api.ledger import loss_scripts
from moorage_api.ledger.script import Lost, Unreachable
from moorage_gateway.ledger_client import PATIENCE_S, LedgerClient, RedisRefused

pytestmark = pytest.mark.component


async def test_a_cut_connection_is_unreachable_once_and_the_next_call_finds_another(
    ledger: LedgerClient, valkey: Valkey
) -> None:
    assert await ledger.read("PING") == b"PONG"
    admin = aioredis.Redis.from_url(valkey.url)
    waiting = asyncio.create_task(ledger.read("BLPOP", "nothing-here", 0))
    async with asyncio.timeout(5):
        while not await _blocked(admin):
            await asyncio.sleep(0)
    await admin.client_kill_filter(_type="normal", skipme=True)
    with pytest.raises(Unreachable):
        await waiting
    assert await ledger.read("PING") == b"PONG"
    await admin.aclose()


async def _blocked(admin: aioredis.Redis) -> bool:
    found: dict[str, Any] = await admin.info("clients")
    return bool(found["blocked_clients"])


async def test_a_server_that_is_late_is_unreachable_and_its_late_answer_is_nobodys(valkey: Valkey) -> None:
    admin = aioredis.Redis.from_url(valkey.url)
    client = LedgerClient(aioredis.Redis.from_url(valkey.url), who="late", call_timeout=0.2)
    await client.read("SET", "a", "1")
    await admin.execute_command("CLIENT", "PAUSE", 1000, "ALL")
    with pytest.raises(Unreachable):
        await client.read("GET", "a")
    assert client.trouble_at > 0
    for _ in range(50):
        try:
            assert await client.read("GET", "b") is None
            break
        except Unreachable:
            continue
    else:
        raise AssertionError("it stayed away")
    await client.aclose()
    await admin.aclose()


async def test_user_password_and_database_of_the_address_are_used(valkey: Valkey) -> None:
    admin = aioredis.Redis.from_url(valkey.url)
    await admin.execute_command("ACL", "SETUSER", "moorage", "on", ">s3cret", "~*", "&*", "+@all")
    try:
        plain = valkey.url.replace("unix://", "unix://moorage:s3cret@").replace("db=0", "db=3")
        client = LedgerClient(aioredis.Redis.from_url(plain), who="acl")
        await client.read("SET", "where", "three")
        assert await client.read("ACL", "WHOAMI") == b"moorage"
        await client.aclose()
        assert await admin.get("where") is None
        wrong = LedgerClient(aioredis.Redis.from_url(plain.replace("s3cret", "guess")), who="acl")
        with pytest.raises(Unreachable) as refused:
            await wrong.read("PING")
        assert "guess" not in str(refused.value)
        await wrong.aclose()
    finally:
        await admin.execute_command("ACL", "DELUSER", "moorage")
        await admin.aclose()


async def test_a_refused_command_fails_alone(ledger: LedgerClient) -> None:
    answers = await asyncio.gather(
        ledger.read("SET", "x", "1"), ledger.read("LPUSH", "x", "y"), ledger.read("GET", "x"), return_exceptions=True
    )
    assert answers[0] == b"OK"
    assert isinstance(answers[1], RedisRefused)
    assert answers[2] == b"1"


async def test_what_redis_cannot_hold_is_a_mistake_of_whoever_sent_it(ledger: LedgerClient) -> None:
    with pytest.raises(TypeError):
        await ledger.read("SET", "x", None)  # type: ignore[arg-type]
    assert await ledger.read("PING") == b"PONG"


async def test_a_posted_script_is_answered_once_and_none_stands_for_every_fault(
    ledger: LedgerClient, valkey: Valkey
) -> None:
    heard: list[list[Any] | None] = []
    told = asyncio.Event()

    def landed(words: list[Any] | None) -> None:
        heard.append(words)
        told.set()

    async def post() -> list[Any] | None:
        told.clear()
        ledger.post(loss_scripts.PROBE, tuple, landed)
        async with asyncio.timeout(5):
            await told.wait()
        return heard[-1]

    admin = aioredis.Redis.from_url(valkey.url)
    await admin.script_flush()
    assert await post() is None  # the server does not know the script; `run` will load it
    await ledger.run(loss_scripts.PROBE)
    assert (await post() or [b""])[0] == b"OK"
    await admin.flushall()
    assert await post() is None  # the ledger is lost
    with pytest.raises(Lost):
        await ledger.run(loss_scripts.PROBE)
    assert len(heard) == 3
    await admin.aclose()


async def test_what_is_posted_is_completed_as_it_leaves_or_taken_back(ledger: LedgerClient) -> None:
    heard: list[list[Any] | None] = []
    said: list[str] = []
    await ledger.run(loss_scripts.PROBE)
    ledger.post(loss_scripts.PROBE, lambda: said, heard.append)
    ledger.post(loss_scripts.PROBE, lambda: None, lambda words: pytest.fail("it was taken back"))
    said.append("more")  # before the loop turns
    sent = ledger.commands
    assert await ledger.read("PING") == b"PONG"
    async with asyncio.timeout(5):
        while not heard:
            await asyncio.sleep(0)
    assert ledger.commands - sent == 2
    assert [words and words[0] for words in heard] == [b"OK"]


async def test_closing_sends_what_waits_and_leaves_nothing_behind(valkey: Valkey) -> None:
    client, heard = LedgerClient(aioredis.Redis.from_url(valkey.url), who="closes"), list[list[Any] | None]()
    await client.found()
    await client.run(loss_scripts.PROBE)
    for _ in range(3):  # in a crowd: they would leave a little later
        client.post(loss_scripts.PROBE, tuple, heard.append)
    before = asyncio.all_tasks()
    await client.aclose()
    assert [words and words[0] for words in heard] == [b"OK"] * 3
    assert asyncio.all_tasks() <= before
    admin = aioredis.Redis.from_url(valkey.url)
    await asyncio.sleep(PATIENCE_S * 2)  # longer than what is posted may wait: nothing is dialled anew
    assert len(await admin.client_list()) == 1
    await admin.aclose()


async def test_a_server_over_tcp_is_reached_and_its_end_is_noticed(valkey: Valkey) -> None:
    """Through a relay on loopback, since the tests' server listens on a unix socket only. TLS is not tried here."""
    writers: list[asyncio.StreamWriter] = []

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream, onward = await asyncio.open_unix_connection(valkey.socket)
        writers.extend((writer, onward))

        async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                sink.write(data)

        await asyncio.gather(copy(reader, onward), copy(upstream, writer), return_exceptions=True)

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = LedgerClient(aioredis.Redis.from_url(f"redis://127.0.0.1:{port}/0"), who="tcp", call_timeout=2)
    big = "x" * 3_000_000
    await client.read("SET", "big", big)
    assert await client.read("GET", "big") == big.encode()
    server.close()
    for writer in writers:
        writer.transport.abort()
    with pytest.raises(Unreachable):
        await client.read("GET", "big")
    await client.aclose()
