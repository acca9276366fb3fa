"""An operator behind an API server that refuses, breaks off, forgets and tells wrong: it ends where it ends behind one that does not.

Each fault with a seed of the day, printed and accepted back (`--crash-seed`). What the proxy did is counted: a fault that never came proves
nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from api import scenarios
from api.faulty import Fault, before
from api.resting import at_rest, settled
from api.world import Means, World, world_of

# Long until a conflict in the making of a pod no longer counts as a failed start: some seeds meet it.
pytestmark = [pytest.mark.api, pytest.mark.long, pytest.mark.timeout(180)]

FAULTS = {
    "events lost": (Fault(drop=0.7), ["dropped"]),
    "events doubled and out of order": (Fault(double=0.8, swap=0.5), ["doubled", "swapped"]),
    "watches expire": (Fault(expire=3), ["expired"]),
    "conflicts": (Fault(refuse=((409, 0.4),), writes_only=True), ["409"]),
    "busy": (Fault(refuse=((429, 0.4), (503, 0.2)), first=25), ["429", "503"]),
    "faults and lost answers": (Fault(refuse=((500, 0.2),), lose=0.2, first=25), ["500", "lost"]),
}


async def _life(world: World) -> None:
    """An agent with its pool, a session at work, asleep, and woken on its files."""
    await scenarios.one_session(world)
    await scenarios.slept_and_woke(world)


@pytest.fixture(scope="module")
def clean() -> dict[str, Any]:
    """The picture of an undisturbed life, once it is known."""
    return {}


@pytest.mark.parametrize("name", FAULTS)
async def test_what_the_api_server_does_to_an_operator_changes_nothing_in_the_end(
    name: str, means: Means, numbers: Iterator[int], clean: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    seed = int(request.config.getoption("--crash-seed")) or int(time.strftime("%Y%m%d"))
    print(f"--crash-seed {seed}")
    if not clean:
        async with world_of(means, f"calm-{next(numbers)}", 0) as world:
            world.start()
            await _life(world)
            clean |= await at_rest(world)
    fault, kinds = FAULTS[name]
    async with before(means.kubeconfig, fault, means.folder, f"{seed} {name}") as (proxy, kubeconfig):
        async with world_of(replace(means, kubeconfig=kubeconfig), f"faulty-{next(numbers)}", 1) as world:
            process = world.start()
            try:
                await _life(world)
                await settled(world, clean)
            except AssertionError as failed:
                raise AssertionError(f"{dict(proxy.counts)}\n{failed}\n{world.logs()}") from failed
            assert not process.ended, world.logs()
            assert {one for one in kinds if not proxy.counts[one]} == set(), proxy.counts
            begun = {path: count for path, count in proxy.watches.items() if proxy.expired[path]}
            assert all(count <= 1 + proxy.expired[path] for path, count in begun.items()), (
                "one watch for each that ended"
            )
            print(f"{name}: {dict(proxy.counts)}")
