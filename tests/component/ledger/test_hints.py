"""The hint stream's own life: it ends when it is told to, whatever it is doing."""

from __future__ import annotations

import asyncio

import pytest
import redis.asyncio as aioredis

from fakes.valkey import Valkey
from moorage_gateway.clock import SystemClock
from moorage_gateway.hints import Hints
from moorage_gateway.ledger_client import LedgerClient

pytestmark = pytest.mark.component
STEPS = 40  # of the loop, from before it connects to after it has subscribed


async def test_a_cancellation_ends_it_at_every_step_of_its_beginning(valkey: Valkey) -> None:
    lived_on = []
    for step in range(STEPS):
        redis = aioredis.Redis.from_url(valkey.url, socket_connect_timeout=5)
        client = LedgerClient(redis, who="hints")
        task = asyncio.ensure_future(Hints(redis, client, SystemClock()).run())
        for _ in range(step):
            await asyncio.sleep(0)
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=1.0)
        if not done:
            lived_on.append(step)
            while not done:  # a cancellation may be lost, but hardly twice
                task.cancel()
                done, _ = await asyncio.wait([task], timeout=1.0)
        await client.aclose()
    assert lived_on == []
