"""1,000 races of 16 for one session, one pooled sandbox, one key: never shared, never doubled."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
import redis.asyncio as aioredis

from component.ledger.desk import START_US, WHO, Desk, Writer, acceptance, descriptor
from fakes.valkey import Valkey
from moorage_api.ledger.records import SessionIdentity

pytestmark = [pytest.mark.races, pytest.mark.timeout(600)]

RACES = 1_000
RACERS = 16
CHANCE = random.Random(16)


@pytest.fixture(scope="module")
def quick() -> Iterator[Valkey]:
    """A Valkey that writes nothing to disk: what is raced for is decided in its memory."""
    server = Valkey(appendonly=False)
    yield server
    server.close()


@pytest.fixture
async def racers(quick: Valkey) -> AsyncIterator[list[Writer]]:
    """Sixteen gateways, each with a connection of its own."""
    quick.flush()
    client = aioredis.Redis.from_url(quick.url)
    desk = Desk(quick.url, client)
    await desk.set_clock(START_US)
    yield [await desk.writer(f"g{n}") for n in range(RACERS)]
    await desk.aclose()
    await client.aclose()


async def race(racers: list[Writer], run: Callable[[int, Writer], Awaitable[Any]]) -> list[Any]:
    """Every racer's answer; they set off within a few turns of the loop, in an order of chance."""

    async def one(n: int, writer: Writer) -> Any:
        for _ in range(CHANCE.randrange(4)):
            await asyncio.sleep(0)
        return await run(n, writer)

    return await asyncio.gather(*(one(n, w) for n, w in enumerate(racers)))


async def test_one_session_runs_one_turn_at_a_time(racers: list[Writer]) -> None:
    winners = Counter[int]()
    for number in range(RACES):
        key = f"dev:p{number}"
        found = await race(racers, lambda n, w: w.turns.accept(acceptance(f"r-{number}-{n}", key, queue_limit=4)))  # noqa: B023
        states = Counter(f"{a.word} {a.state}".strip() for a in found)
        assert states == {"OK running": 1, "OK queued": 4, "FULL": 11}
        winners[next(n for n, a in enumerate(found) if a.state == "running")] += 1
    assert len(winners) > RACERS // 2, f"hardly anyone else ever won, so these were no races: {winners}"


async def test_one_pooled_sandbox_is_one_sessions(racers: list[Writer]) -> None:
    for number in range(RACES):
        assert await racers[0].provider.offer(descriptor(f"sb-{number}"))
        keys = [f"dev:p{number}-{n}" for n in range(RACERS)]
        who = [SessionIdentity("dev", "a", "u", k, k) for k in keys]
        await asyncio.gather(*(racers[0].sessions.open_session(k, w) for k, w in zip(keys, who, strict=True)))
        found = await race(racers, lambda n, w: w.sessions.claim(keys[n], "r1", named=False))  # noqa: B023
        assert Counter(c.word for c in found) == {"CLAIMED": 1, "WAKING": RACERS - 1}
        assert [c.sandbox for c in found if c.word == "CLAIMED"] == [f"sb-{number}"]


async def test_one_session_gets_one_sandbox(racers: list[Writer]) -> None:
    for number in range(RACES):
        for n in range(2):
            await racers[0].provider.offer(descriptor(f"sb-{number}-{n}"))
        key = f"dev:p{number}"
        await racers[0].sessions.open_session(key, WHO)
        found = await race(racers, lambda n, w: w.sessions.claim(key, "r1", named=False))  # noqa: B023
        assert Counter(c.word for c in found) == {"CLAIMED": 1, "ROUTE": RACERS - 1}
        assert len({(c.sandbox, c.epoch) for c in found}) == 1


async def test_one_idempotency_key_makes_one_turn(racers: list[Writer]) -> None:
    for number in range(RACES):
        key = {"idempotency": f"idem:{number}", "idempotency_hash": "h", "queue_limit": 99}
        found = await race(racers, lambda n, w: w.turns.accept(acceptance(f"r-{number}-{n}", f"dev:p{number}", **key)))  # noqa: B023
        assert Counter(a.word for a in found) == {"OK": 1, "JOIN": RACERS - 1}
        assert len({a.response for a in found}) == 1
