"""Every due time is accounted for once, whatever its routine's policies say of missed ones and of two at once, and whatever dies."""

from __future__ import annotations

import asyncio
import os
from collections import Counter, defaultdict

import pytest

from fakes.routine_world import RoutineWorld
from fakes.valkey import Valkey
from moorage_api.ledger.routines import HOLD_MS
from moorage_gateway.routines.deciding import MOST_QUEUED
from moorage_gateway.routines.slots import LATE_MS
from moorage_gateway.routines.state import Ended, State

pytestmark = [pytest.mark.component, pytest.mark.routines, pytest.mark.timeout(300)]

SEED = int(os.environ.get("MOORAGE_SEED", "20783"))
MISSED = ("all", "latest", "skip")
AT_ONCE = ("queue", "replace", "forbid")
OFTEN_MS, SELDOM_MS = 10_000, 90_000
STEP_S = 10.0
STEPS = 15
"""Between them due times pass one by one; with those of the absences 500 in all and more."""
ABSENT_S = 95
"""Nobody runs for so long: ten due times at most, of which some are late by more than a minute."""
ABSENCES, LOSSES = (5, 10), (3, 8)
"""Before which steps nobody runs for a while, and Valkey is killed."""
LONG_MS = 25_000


def named(missed: str, at_once: str, period: int) -> str:
    return f"{missed}-{at_once}-{period // 1000}"


ROUTINES = {
    **{named(missed, each, OFTEN_MS): (missed, each, OFTEN_MS) for missed in MISSED for each in AT_ONCE},
    **{named(missed, "queue", SELDOM_MS): (missed, "queue", SELDOM_MS) for missed in MISSED},
}


def longer(slot: int) -> int:
    """Each sixth turn goes on beyond the next two due times."""
    return LONG_MS if slot // OFTEN_MS % 6 == 0 else 0


async def state_of(world: RoutineWorld, name: str) -> State:
    found = await world.ledger.look(f"dev/{name}")
    return State.from_json(found.state) if found is not None else State()


async def caught_up(world: RoutineWorld, *, before_seldom: bool = False) -> None:
    """All that is due by now is over, and nobody waits; the clock goes on, so that what a dead one held comes free."""
    names = list(ROUTINES)
    for _ in range(3000):
        if not before_seldom or SELDOM_MS - 30_000 < world.clock.ms % SELDOM_MS < SELDOM_MS - 6_000:
            busy = (
                [name for name in names if not await is_idle(world, name)]
                if await is_idle(world, names[0])
                else names[:1]
            )
            if not busy:
                return
            names.sort(key=lambda name: name not in busy)  # who waits is looked at first
        await world.tick(0.5)
        await asyncio.sleep(0.02)
    raise AssertionError(f"{names[0]} is {await state_of(world, names[0])} at {world.clock.ms}")


async def is_idle(world: RoutineWorld, name: str) -> bool:
    state, period = await state_of(world, name), ROUTINES[name][2]
    return state.run is None and not state.queue and state.cursor >= world.clock.ms // period * period


async def absent(world: RoutineWorld) -> tuple[int, int]:
    """Nobody runs for a while, in whose first half minute the seldom ones are due, once. When it began, and when it ended."""
    await caught_up(world, before_seldom=True)
    for number in world.alive:
        await world.kill(number)
    began = world.clock.ms
    await world.tick(ABSENT_S)
    ended = world.clock.ms
    for number in range(3):
        await world.start(number)
    await caught_up(world)
    return began, ended


async def driven(world: RoutineWorld, server: Valkey) -> tuple[list[tuple[int, int]], int]:
    """Schedulers live and die. The absences, and how often one was killed."""
    away, kills = [], 0
    for step in range(1, STEPS + 1):
        if step in ABSENCES:
            away.append(await absent(world))
        if step in LOSSES:
            server.stop(kill=True)
            server.start()
        await world.tick(STEP_S)
        await asyncio.sleep(world.rng.random() * 0.02)  # somewhere within what they do
        if world.rng.random() < 0.8 and len(world.alive) > 1:
            await world.kill(world.rng.choice(world.alive))
            kills += 1
        for number in {0, 1, 2} - set(world.alive):
            if world.rng.random() < 0.5 or not world.alive:
                await world.start(number)
        if step % 3 == 0:  # nobody is to be a minute behind but for the absences
            await caught_up(world)
    await caught_up(world)
    return away, kills


async def accounts(world: RoutineWorld, name: str) -> dict[int, Ended]:
    """What the history says of each due time: once."""
    runs = await world.history.newest("dev", name, 500)
    by_slot = defaultdict(list)
    for run in runs:
        by_slot[run.slot].append(run)
    twice = {slot: [run.outcome for run in held] for slot, held in by_slot.items() if len(held) > 1}
    assert not twice, f"{name}: {twice}"
    return {slot: held[0] for slot, held in by_slot.items()}


async def counted(world: RoutineWorld, name: str, begin: int, away: list[tuple[int, int]]) -> Counter[str]:
    """Each due time of one routine ended as its policies permit. How many ended how."""
    missed, at_once, period = ROUTINES[name]
    found = await accounts(world, name)
    state = await state_of(world, name)
    wanted = list(range((begin // period + 1) * period, state.cursor + 1, period))
    assert sorted(found) == wanted, f"{name}: {set(found) ^ set(wanted)}"
    made = Counter(slot for routine, slot, _ in world.turns.accepted.values() if routine == name)
    permitted = {"succeeded", *{"replace": ["replaced"], "forbid": ["skipped"], "queue": []}[at_once]}
    for slot, run in found.items():
        if (
            run.outcome == "skipped" and "skipped" not in permitted and (at_once == "queue" or missed == "all")
        ):  # ten at most wait
            before = [one for one in found.values() if one.slot < slot]
            after, then = (sum(one.began >= run.ended + more for one in before) for more in (1, 0))
            assert after <= MOST_QUEUED <= then, f"{name}, {slot}: {after} waited, or {then}"
            continue
        late = next((ended for began, ended in away if began < slot < ended - LATE_MS), None)
        near = next((ended for began, ended in away if began < slot <= ended - LATE_MS + HOLD_MS), None)
        what = f"{name}, {slot}: {run.outcome}, turns: {made[slot]}"
        if late is not None:
            last = slot + period > late  # the newest that was due when somebody came
            ways = {"all": permitted, "skip": {"missed"}, "latest": permitted if last else {"missed"}}[missed]
            assert run.outcome in ways, what
        else:
            assert run.outcome in permitted | ({"missed"} if near is not None and missed != "all" else set()), what
        turns = {"succeeded": {1}, "replaced": {0, 1}}.get(run.outcome, {0})
        assert made[slot] in turns, what
    return Counter(run.outcome for run in found.values())


async def each_due_time_is_accounted_for_once(server: Valkey, seed: int) -> None:
    world = RoutineWorld(server, seed=seed, faults=0.1)
    await world.begin()
    try:
        world.turns.longer = longer
        for number in range(3):
            await world.start(number)
        begin = world.clock.ms
        for name, (missed, at_once, period) in ROUTINES.items():
            spec = {
                "every": f"{period // 1000}s",
                "missedRuns": missed,
                "concurrencyPolicy": at_once,
                "historyLimit": 500,
            }
            await world.publish(name, **spec)
        away, kills = await driven(world, server)
        ended = {name: await counted(world, name, begin, away) for name in ROUTINES}
    finally:
        await world.aclose()
    whole = sum(ended.values(), Counter())
    assert whole.total() >= 500 and kills >= 8, "a short run proves little"
    for outcome in ("succeeded", "missed", "skipped", "replaced"):
        assert whole[outcome] >= 10, f"seed {seed}: {whole}"
    for name in ("skip-queue-90", "latest-queue-90"):
        assert ended[name]["missed"] == (len(ABSENCES) if name.startswith("skip") else 0), ended
    print(f"seed {seed}: {dict(whole)}, {world.turns.times} acceptances, {kills} kills")


async def test_each_due_time_is_accounted_for_once_whatever_the_policies(server: Valkey) -> None:
    await each_due_time_is_accounted_for_once(server, SEED)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(1, 11))
async def test_each_due_time_is_accounted_for_once_by_more_seeds(server: Valkey, seed: int) -> None:
    await each_due_time_is_accounted_for_once(server, seed)
