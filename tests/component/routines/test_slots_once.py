"""Every due time is run exactly once, however many schedulers there are and whatever dies (issue: 500 slots, three schedulers)."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from fakes.routine_world import START_MS, RoutineWorld
from fakes.valkey import Valkey

pytestmark = [pytest.mark.component, pytest.mark.routines, pytest.mark.timeout(300)]

SEED = int(os.environ.get("MOORAGE_SEED", "20783"))
NAMES = tuple(f"r{number}" for number in range(5))
SLOTS = 100
"""Of each routine, at least."""
STEP_S = 10.0
WHOLE = {"every": "10s", "missedRuns": "all", "startingDeadline": "24h", "concurrencyPolicy": "queue"}


@pytest.fixture
async def world(server: Valkey) -> AsyncIterator[RoutineWorld]:
    made = RoutineWorld(server, seed=SEED, faults=0.1)
    await made.begin()
    yield made
    await made.aclose()


def slots_of(world: RoutineWorld, name: str) -> list[int]:
    return sorted(slot for routine, slot, _ in world.turns.accepted.values() if routine == name)


async def test_three_schedulers_killed_at_random_and_a_restarted_valkey_run_500_slots_once(
    world: RoutineWorld, server: Valkey
) -> None:
    for number in range(3):
        await world.start(number)
    for name in NAMES:
        await world.publish(name, **WHOLE)
    first, step, kills = START_MS // 10_000, 0, 0
    while len(slots_of(world, NAMES[0])) < SLOTS:
        step += 1
        await world.tick(STEP_S)
        if step in (25, 50):
            server.stop(kill=True)
            server.start()
        await asyncio.sleep(world.rng.random() * 0.02)  # somewhere within what they do
        if world.rng.random() < 0.6 and len(world.alive) > 1:
            await world.kill(world.rng.choice(world.alive))
            kills += 1
        for number in {0, 1, 2} - set(world.alive):
            if world.rng.random() < 0.5 or not world.alive:
                await world.start(number)
        if step % 5 == 0:  # no more than ten are made up for: nobody is to be further behind
            await caught_up(world)
    await caught_up(world)
    last = world.clock.ms // 10_000
    for name in NAMES:
        expected = [number * 10_000 for number in range(first + 1, last + 1)]
        assert slots_of(world, name) == expected, f"seed {SEED}, {name}"
    assert kills >= 20 and step > 50, "a run without kills proves little"
    runs = [run for name in NAMES for run in await world.history.newest("dev", name, 500)]
    ended = Counter(run.outcome for run in runs)
    assert set(ended) == {"succeeded"}, ended
    print(f"seed {SEED}: {len(world.turns.accepted)} slots, {world.turns.times} acceptances, {kills} kills")


async def caught_up(world: RoutineWorld) -> None:
    """All that is due by now has its turn; the clock goes on, so that what a dead one held comes free."""
    for _ in range(1000):
        last = world.clock.ms // 10_000 * 10_000
        if all(slots_of(world, name)[-1:] == [last] for name in NAMES):
            return
        await world.tick(0.2)
        await asyncio.sleep(0.01)
    raise AssertionError(f"seed {SEED}: {[len(slots_of(world, name)) for name in NAMES]} at {world.clock.ms}")


async def test_a_target_that_hangs_holds_up_its_own_routine_and_no_other(world: RoutineWorld) -> None:
    world.turns.faults = 0.0
    await world.publish("loud", **WHOLE, alerts=[{"name": "ops", "url": {"secret": "ops"}}])
    await world.publish("other", **WHOLE)
    world.turns.fails.add("loud")
    world.people.answers.clear()
    await world.start(0)
    async with asyncio.timeout(20):
        while not world.people.alerts:
            await world.tick(1)
            await asyncio.sleep(0.01)
        had = len(slots_of(world, "other"))
        await world.tick(STEP_S)
        while len(slots_of(world, "other")) <= had:
            world.wake()
            await asyncio.sleep(0.01)
    world.people.answers.set()


async def until(world: RoutineWorld, what: str, look: Callable[[], Awaitable[bool]]) -> None:
    """Lets time pass until it is so."""
    for _ in range(500):
        if await look():
            return
        await world.tick(1)
        await asyncio.sleep(0.01)
    raise AssertionError(f"seed {SEED}: {what} at {world.clock.ms}")


async def test_what_was_stopped_stays_so_though_redis_is_lost_and_another_manifest_begins_anew(
    world: RoutineWorld, server: Valkey
) -> None:
    spec = {"every": "10s", "missedRuns": "skip", "stopAfter": 2}

    async def stopped() -> bool:
        found = await world.ledger.standing("dev/doomed")
        return found is not None and found.stopped

    world.turns.faults = 0.0
    world.turns.fails.add("doomed")
    await world.start(0)
    await world.publish("doomed", **spec)
    await until(world, "it is stopped", stopped)
    had = len(slots_of(world, "doomed"))
    assert had == 2
    server.flush()
    await world.found_anew()
    await world.publish("doomed", **spec)
    await until(world, "it is stopped still", stopped)
    for _ in range(30):
        await world.tick(1)
        await asyncio.sleep(0.01)
    assert len(slots_of(world, "doomed")) == had
    await world.publish("doomed", **spec, input="otherwise")

    async def runs() -> bool:
        return len(slots_of(world, "doomed")) > had

    await until(world, "another manifest is another chance", runs)
