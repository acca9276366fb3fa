"""The desk: a real Valkey that starts empty, with a clock set by the test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import redis.asyncio as aioredis

from component.ledger.desk import START_US, Desk
from fakes.valkey import Valkey


@pytest.fixture
async def desk(valkey: Valkey) -> AsyncIterator[Desk]:
    """Writers, clock and state on the run's Valkey."""
    client = aioredis.Redis.from_url(valkey.url)
    made = Desk(valkey.url, client)
    await made.set_clock(START_US)
    yield made
    await made.aclose()
    await client.aclose()
