"""Sessions made, killed, put to sleep, woken and deleted, over and over, with an operator that is killed now and then: nothing is left.

50 of them for each change, 1,000 in a long run. `--crash-seed` chooses what happens to each.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator

import pytest

from api.picture import Held, look, orphans
from api.world import Means, World, until, world_of
from moorage_api.ledger import keys
from moorage_api.ledger.records import text
from moorage_operator.kube import PODS

pytestmark = [pytest.mark.api, pytest.mark.timeout(3600)]

CYCLES = 1000 if os.environ.get("MOORAGE_LONG") == "1" else 50
LANES = 5
KILL_EVERY = 20  # cycles
AGENT = "hello"
LASTING = {keys.LEDGER, keys.OFFERED, keys.CLAIMS, keys.CATALOG, keys.CATALOG_VERSION, keys.PLATFORM}
"""Keys of the ledger's own, however many sessions there were. One witness (`wit:`) is left of each writer that ever was."""

Fate = Callable[[World, str], Awaitable[None]]


async def killed(world: World, key: str) -> None:
    """Its pod is deleted; the next call wakes it on the same files."""
    record = await world.record(key)
    await world.kube.delete(PODS, world.namespace, record.sandbox)
    await _in_state(world, key, "hibernated")
    await world.claim(key, AGENT)
    assert (await world.record(key)).volume == record.volume


async def slept(world: World, key: str) -> None:
    """It hibernates and is deleted in its sleep."""
    await world.hibernate(key)


async def woken(world: World, key: str) -> None:
    """It hibernates and is woken on the same files."""
    volume = (await world.record(key)).volume
    await world.hibernate(key)
    await world.claim(key, AGENT)
    assert (await world.record(key)).volume == volume


async def spared(world: World, key: str) -> None:
    """It is deleted at work."""


FATES: tuple[Fate, ...] = (killed, slept, woken, spared)


async def _in_state(world: World, key: str, state: str) -> None:
    async def so() -> bool:
        return (await world.record(key)).state == state

    await until(f"{key} is {state}", so)


async def cycle(world: World, number: int, fate: Fate) -> None:
    """One session's life."""
    key = await world.open(f"session-{number}", AGENT)
    await world.claim(key, AGENT)
    await world.until_noted(key)
    await fate(world, key)
    assert await world.sessions.delete_session(key) == "OK"

    async def removed() -> bool:
        return await world.redis.zscore(keys.DELETES, key) is None

    await until(f"the files of {key} are gone", removed)


async def test_sessions_that_came_and_went_leave_nothing(
    means: Means, numbers: Iterator[int], request: pytest.FixtureRequest
) -> None:
    seed = int(request.config.getoption("--crash-seed")) or int(time.strftime("%Y%m%d"))
    print(f"--crash-seed {seed}")
    chance, fates, kills = random.Random(seed), Counter[str](), 0
    waiting = [(number, chance.choice(FATES)) for number in range(CYCLES)]
    async with world_of(means, f"cycles-{next(numbers)}", 12) as world:
        world.start()
        await world.apply(AGENT)
        await world.until_ready(AGENT, warm=2)
        alone = asyncio.Lock()

        async def lane() -> None:
            nonlocal kills
            while waiting:
                number, fate = waiting.pop()
                await cycle(world, number, fate)
                fates[fate.__name__] += 1
                if fates.total() % KILL_EVERY == 0:
                    async with alone:
                        kills += 1
                        await world.operators[-1].kill()
                        await world.replace(world.operators[-1])

        try:
            async with asyncio.TaskGroup() as lanes:
                for _ in range(LANES):
                    lanes.create_task(lane())
            held = await _at_rest(world)
        except BaseException:
            print(world.logs())
            raise
        print(f"{dict(fates)}, {kills} operators killed")
        assert fates.total() == CYCLES and kills == CYCLES // KILL_EVERY
        assert {one["state"] for one in held.sessions.values()} == {"deleted"}
        lasting = {text(key) async for key in world.redis.scan_iter() if await world.redis.ttl(key) < 0}
        assert {key.partition(":")[0] for key in lasting if key not in LASTING} == {"pool", "wit", "x"}, (
            "what is left runs out"
        )


async def _at_rest(world: World) -> Held:
    """Waits until nothing is there but a full pool."""
    held: list[Held] = []
    why: list[str] = []

    async def so() -> bool:
        held[:] = [await look(world)]
        one = held[0]
        why[:] = orphans(one)
        sizes = (len(one.pods), len(one.claims), len(one.sandboxes), [len(members) for members in one.pools.values()])
        why.append(str(sizes))
        return why == [str((2, 2, 2, [2]))]

    try:
        await until("nothing is left but the pool", so)
    except AssertionError as fault:
        raise AssertionError("\n".join([str(fault), *why])) from fault
    return held[0]
