"""Every due time is run exactly once, however many schedulers there are and whatever dies (issue: 500 slots, three schedulers)."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from fakes.routine_world import START_MS, RoutineWorld
from fakes.valkey import Valkey
from moorage_gateway.routines.desk import Desk
from moorage_gateway.routines.holds import Holds
from moorage_gateway.routines.state import State

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


async def test_a_gateway_that_dies_before_it_cancelled_a_replaced_turn_leaves_it_to_the_next(
    world: RoutineWorld,
) -> None:
    world.turns.faults, world.turns.lasts_ms = 0.0, 3_600_000
    await world.publish("r", **WHOLE | {"concurrencyPolicy": "replace", "missedRuns": "latest"})
    await world.start(0)
    world.turns.cancels.clear()
    async with asyncio.timeout(20):
        while len(slots_of(world, "r")) < 2:  # the second took the first one's place, and nobody has cancelled that yet
            await world.tick(1)
            await asyncio.sleep(0.01)
        first = next(iter(world.turns.accepted))
        await world.kill(0)
        assert world.turns.cancelled == []
        world.turns.cancels.set()
        await world.start(1)
        while not world.turns.cancelled:
            await world.tick(1)
            await asyncio.sleep(0.01)
        assert world.turns.cancelled[0] == first
        await world.publish("r", **WHOLE | {"suspend": True})
        while (found := await world.ledger.look("dev/r")) is None or State.from_json(found.state).ending:
            await world.tick(1)
            await asyncio.sleep(0.01)


async def test_a_turn_that_was_accepted_before_anybody_said_so_is_cancelled_when_another_run_takes_its_place(
    world: RoutineWorld,
) -> None:
    world.turns.faults, world.turns.lasts_ms = 0.0, 3_600_000
    world.turns.unheard.add("r")
    await world.publish("r", **WHOLE | {"concurrencyPolicy": "replace", "missedRuns": "latest"})
    await world.start(0)
    async with asyncio.timeout(20):
        while not world.turns.cancelled:
            await world.tick(1)
            await asyncio.sleep(0.01)
    assert world.turns.cancelled[0] == next(iter(world.turns.accepted))


async def test_a_turn_that_was_accepted_before_anybody_said_so_is_cancelled_when_its_routine_is_taken_away(
    world: RoutineWorld,
) -> None:
    world.turns.faults, world.turns.lasts_ms = 0.0, 3_600_000
    world.turns.unheard.add("r")
    await world.publish("r", **WHOLE)
    await world.start(0)
    async with asyncio.timeout(20):
        while not world.turns.accepted:
            await world.tick(1)
            await asyncio.sleep(0.01)
        await world.kill(0)  # it accepted the turn, and the state does not know
        await world.ledger.unpublish("dev", "r")
        await world.start(1)
        while await world.ledger.earliest() is not None:
            await world.tick(1)
            await asyncio.sleep(0.01)
    assert set(world.turns.cancelled) == set(world.turns.accepted), "and of the routine nothing is left"


async def test_a_turn_that_was_accepted_before_anybody_said_so_is_cancelled_when_the_manifest_names_another_agent(
    world: RoutineWorld,
) -> None:
    world.turns.faults, world.turns.lasts_ms = 0.0, 3_600_000
    world.turns.unheard.add("r")
    await world.publish("r", **WHOLE)
    await world.start(0)
    async with asyncio.timeout(20):
        while not world.turns.accepted:
            await world.tick(1)
            await asyncio.sleep(0.01)
        (first,) = world.turns.accepted
        world.turns.unheard.clear()
        await world.publish("r", **WHOLE | {"agent": "b"})
        while not world.turns.cancelled or len(world.turns.accepted) < 2:
            await world.tick(1)
            await asyncio.sleep(0.01)
    assert set(world.turns.cancelled) == {first}


async def test_what_is_stopped_or_suspended_by_hand_stays_so_though_redis_was_emptied(
    world: RoutineWorld, server: Valkey
) -> None:
    world.turns.faults = 0.0
    specs = {"doomed": WHOLE | {"stopAfter": 2}, "quiet": WHOLE, "busy": WHOLE}
    world.turns.fails.add("doomed")
    await world.start(0)

    async def publish() -> None:
        for name, spec in specs.items():
            await world.publish(name, **spec)

    async def holds(name: str) -> str:
        found = await world.ledger.look(f"dev/{name}")
        state = State.from_json(found.state) if found is not None else State()
        return "?" if state.owes else " ".join(word for word in ("suspended", "stopped") if word in state.hold)

    await publish()
    async with asyncio.timeout(40):
        while await holds("doomed") != "stopped" or not slots_of(world, "quiet"):
            await world.tick(1)
            await asyncio.sleep(0.01)
        await Desk(world.ledger, world.history, world.clock).suspend("dev", "quiet", suspended=True)
        while await holds("quiet") != "suspended":
            await world.tick(1)
            await asyncio.sleep(0.01)
        await world.kill(0)
        ran = {name: len(slots_of(world, name)) for name in specs}
        await world.emptied(server)
        await world.start(1)
        await publish()
        while len(slots_of(world, "busy")) < ran["busy"] + 3:
            await world.tick(5)
            await asyncio.sleep(0.02)
        assert {name: len(slots_of(world, name)) for name in ("doomed", "quiet")} == {
            name: ran[name] for name in ("doomed", "quiet")
        }
        assert [await holds(name) for name in specs] == ["stopped", "suspended", ""]
        desk = Desk(world.ledger, world.history, world.clock)
        await desk.suspend("dev", "quiet", suspended=False)
        while len(slots_of(world, "quiet")) <= ran["quiet"] or await holds("quiet") != "":
            await world.tick(5)
            await asyncio.sleep(0.02)
    held = {name: await Holds(world.store).over("dev", name, State()) for name in ("doomed", "quiet")}
    assert held["doomed"].stopped and not held["quiet"].suspended
    kept = [len(await world.store.list(f"routine-holds/dev/{name}/")) for name in specs]
    assert kept == [1, 1, 1], "the newest of each, and no other"
