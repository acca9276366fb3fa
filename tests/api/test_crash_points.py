"""The operator killed before and after each of its external writes ends where an undisturbed one does, and leaves nothing that is nobody's.

A clean run of a scenario names the writes; then each point has a world of its own, where the operator dies there and another one follows.
Every run takes a sample of the first scenarios' points by a seed; a long one takes all points of all. The seed is printed, and accepted
back: `--crash-seed`.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from api.points import POINTS, Point, Side
from api.resting import at_rest, settled
from api.scenarios import SCENARIOS, Scenario
from api.world import Means, World, until, world_of

pytestmark = [pytest.mark.api, pytest.mark.timeout(3600)]

LONG = os.environ.get("MOORAGE_LONG") == "1"
AT_ONCE = 6  # worlds; the Valkey has 16 databases
SAMPLED = 6  # points a scenario, where not all are taken
TRIES = 3  # runs for a point: one may come to its end with fewer writes than the clean one, and so never get there
SIDES: tuple[Side, Side] = ("before", "after")


@dataclass(frozen=True)
class Clean:
    """An undisturbed run: what it wrote, and its pictures at rest before and after."""

    writes: list[str]
    before: dict[str, Any]
    after: dict[str, Any]

    def points(self) -> list[Point]:
        """Before and after each write."""
        return [Point(number + 1, side) for number in range(len(self.writes)) for side in SIDES]


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """Given, or of the day."""
    found = int(request.config.getoption("--crash-seed")) or int(time.strftime("%Y%m%d"))
    print(f"--crash-seed {found}")
    return found


@pytest.mark.parametrize(
    "scenario",
    [pytest.param(one, id=one.name, marks=[] if one.always else [pytest.mark.long]) for one in SCENARIOS],
)
async def test_an_operator_killed_at_any_write_changes_nothing_in_the_end(
    scenario: Scenario, means: Means, numbers: Iterator[int], seed: int, request: pytest.FixtureRequest
) -> None:
    clean = await undisturbed(scenario, means, f"clean-{next(numbers)}")
    points = clean.points()
    random.Random(f"{seed} {scenario.name}").shuffle(points)
    wanted = len(points) if LONG else min(SAMPLED, len(points))
    waiting, missed = deque((point, 1) for point in points), list[Point]()
    met, wrong = 0, list[str]()

    async def take(database: int) -> None:
        """Points one after another, until enough were met."""
        nonlocal met
        while waiting and met + busy() < wanted:
            point, tries = waiting.popleft()
            under_way[database] = point
            try:
                reached = await disturbed(scenario, means, f"crash-{next(numbers)}", database, clean, point)
                met += reached
                if not reached and tries < TRIES:
                    waiting.append((point, tries + 1))
                elif not reached:
                    missed.append(point)
            except AssertionError as fault:
                wrong.append(f"{point}: {fault}")
                met += 1
            finally:
                del under_way[database]

    under_way: dict[int, Point] = {}

    def busy() -> int:
        return len(under_way)

    await asyncio.gather(*(take(number) for number in range(1, AT_ONCE + 1)))
    if met < wanted:  # points that were not reached left some places
        await take(1)
    print(f"{scenario.name}: {len(points)} points at {clean.writes}, {met} met, {len(wrong)} wrong")
    said = f"{scenario.name}: killed at {met} of {wanted} points wanted, of {len(points)} there are; {len(wrong)} ended otherwise"
    request.node.user_properties.append((POINTS, said))
    assert not wrong, "\n\n".join(wrong)
    assert met == wanted, f"{said}; never reached in {TRIES} runs each: {missed}"


async def undisturbed(scenario: Scenario, means: Means, name: str) -> Clean:
    """The run that others are held against."""
    async with world_of(means, name, 0, scenario.tenants) as world:
        before: dict[str, Any] = {}
        if scenario.prepare is None:
            world.count()
        world.start()
        if scenario.prepare is not None:
            await scenario.prepare(world)
            before = await at_rest(world)
            world.count()
        await scenario.act(world)
        after = await at_rest(world)
        return Clean(world.counted(), before, after)


async def disturbed(scenario: Scenario, means: Means, name: str, database: int, clean: Clean, point: Point) -> bool:
    """One run with a death. False when the point was never reached; AssertionError when it ends otherwise than the clean one."""
    async with world_of(means, name, database, scenario.tenants) as world:
        if scenario.prepare is None:
            world.count()
        process = world.start(point)
        if scenario.prepare is not None:
            await scenario.prepare(world)
            await settled(world, clean.before)
            world.count()
        following = asyncio.create_task(follow(world), name=f"follow {name}")
        try:
            await scenario.act(world)
            await settled(world, clean.after)
            if process.ended:
                await following
                await until("the other operator has put everything in order once", lambda: looked(world))
                await settled(world, clean.after)
        except Exception as fault:
            raise AssertionError(f"{world.counted()}\n{type(fault).__name__}: {fault}\n{world.logs()}") from fault
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        return process.ended


async def follow(world: World) -> None:
    """Another operator, when the first one has died."""
    await world.operators[-1].wait(within=600)
    await world.replace(world.operators[-1])


async def looked(world: World) -> bool:
    """Whether the operator that followed has swept: then its loop begins, and tells the ledger the key of its tokens."""
    lines = world.counted()
    return "HSET platform token_key" in lines[[line.startswith("died") for line in lines].index(True) :]
