"""The operator's ear: it hears what waits for a provider, goes on when Redis was away, and ends when it is told to."""

from __future__ import annotations

import asyncio

import pytest
import redis.asyncio as aioredis

from component.ledger.desk import SESSION, WHO, Desk
from fakes.valkey import Valkey
from moorage_operator.hints import listen

pytestmark = pytest.mark.component
STEPS = 40  # of the loop, from before it connects to after it has subscribed
WITHIN = 20.0


async def subscribed(redis: aioredis.Redis) -> None:
    """Returns when somebody listens."""
    async with asyncio.timeout(WITHIN):
        while not (await redis.pubsub_numsub("hint:provider"))[0][1]:
            await asyncio.sleep(0.01)


def nobody(_: str, __: str) -> None:
    """Nothing is made: nobody waits for where it serves."""


async def test_where_a_new_sandbox_serves_is_heard_and_wakes_nobody_else(desk: Desk, valkey: Valkey) -> None:
    heard, served = asyncio.Event(), asyncio.Queue[tuple[str, str]]()
    redis = aioredis.Redis.from_url(valkey.url)
    listening = asyncio.ensure_future(listen(redis, heard.set, lambda *said: served.put_nowait(said)))
    try:
        await subscribed(desk.redis)
        gateway = await desk.writer("g1")
        await gateway.sessions.serving("sb-1", "http://192.0.2.1:8090")
        async with asyncio.timeout(WITHIN):
            assert await served.get() == ("sb-1", "http://192.0.2.1:8090")
        assert not heard.is_set()
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


async def test_a_session_that_finds_no_sandbox_is_heard_of_at_once(desk: Desk, valkey: Valkey) -> None:
    heard = asyncio.Event()
    listening = asyncio.ensure_future(listen(aioredis.Redis.from_url(valkey.url), heard.set, nobody))
    try:
        await subscribed(desk.redis)
        gateway = await desk.writer("g1")
        await gateway.sessions.open_session(SESSION, WHO)
        assert not heard.is_set()
        assert (await gateway.sessions.claim(SESSION, "r1", named=False)).word == "WAKING"
        async with asyncio.timeout(WITHIN):
            await heard.wait()
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


async def test_a_stream_that_broke_is_opened_again_and_counts_as_a_hint() -> None:
    server, heard = Valkey(appendonly=False), asyncio.Event()
    listening = asyncio.ensure_future(listen(aioredis.Redis.from_url(server.url), heard.set, nobody))
    redis = aioredis.Redis.from_url(server.url)
    try:
        await subscribed(redis)
        await asyncio.to_thread(server.restart, kill=True)
        async with asyncio.timeout(WITHIN):
            await heard.wait()
        await subscribed(redis)
        heard.clear()
        await redis.publish("hint:provider", "waking")
        async with asyncio.timeout(WITHIN):
            await heard.wait()
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        await redis.aclose()
        server.close()


async def test_a_cancellation_ends_it_at_every_step_of_its_beginning(valkey: Valkey) -> None:
    lived_on = []
    for step in range(STEPS):
        listening = asyncio.ensure_future(listen(aioredis.Redis.from_url(valkey.url), lambda: None, nobody))
        for _ in range(step):
            await asyncio.sleep(0)
        listening.cancel()
        done, _ = await asyncio.wait([listening], timeout=3.0)
        if not done:
            lived_on.append(step)
            while not done:
                listening.cancel()
                done, _ = await asyncio.wait([listening], timeout=1.0)
    assert lived_on == []
