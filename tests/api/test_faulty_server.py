"""An operator behind an API server that refuses, breaks off, forgets and tells wrong: it ends where it ends behind one that does not.

Each fault with a seed of the day, printed and accepted back (`--crash-seed`). What the proxy did is counted: a fault that never came proves
nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from api import scenarios
from api.faulty import Fault, before
from api.resting import at_rest, settled
from api.world import Means, World, world_of

# Long: with all faults a life takes most of a minute, and a sweep more.
pytestmark = [pytest.mark.api, pytest.mark.long, pytest.mark.timeout(300)]

FAULTS = {
    "events lost": Fault(drop=1.0),
    "events doubled and out of order": Fault(double=0.8, swap=0.5),
    "watches expire": Fault(expire=3),
    "conflicts": Fault(refuse=((409, 0.4),), writes_only=True),
    "busy": Fault(refuse=((429, 0.2), (503, 0.2)), first=14),
    "faults and lost answers": Fault(refuse=((500, 0.2),), lose=0.2, first=14),
}
"""An operator that starts waits two seconds after each fault: `first` leaves it within the deadlines of its world."""
SWEPT_SECONDS = 100.0
"""What could not be removed at once is so at the next sweep, which comes once a minute."""


async def _life(world: World) -> None:
    """An agent with its pool, a session at work, asleep, and woken on its files; then another agent."""
    await scenarios.one_session(world)
    await scenarios.slept_and_woke(world)
    await world.apply("later", pool={"min": 1, "max": 1})
    await world.until_ready("later", warm=1)


async def _disturbed(means: Means, database: int, namespace: str, name: str, seed: int, clean: dict[str, Any]) -> None:
    """A life behind such a server. Raises AssertionError when it ends otherwise than the clean one, or its operator did not last."""
    async with before(means.kubeconfig, FAULTS[name], means.folder, f"{seed} {name}") as (proxy, kubeconfig):
        async with world_of(replace(means, kubeconfig=kubeconfig), namespace, database) as world:
            process = world.start()
            try:
                await _life(world)
                await settled(world, clean, SWEPT_SECONDS)
                assert not process.ended, "it ended"
                assert proxy.counts, "a fault that never came"
                begun = {path: count for path, count in proxy.watches.items() if proxy.expired[path]}
                over = all(count <= 1 + proxy.expired[path] for path, count in begun.items())
                assert over, "a watch was begun beside one that was not over"
                assert not proxy.counts["forgotten"], "it asks again for what it was told is gone"
            except AssertionError as failed:
                raise AssertionError(f"{name}: {dict(proxy.counts)}\n{failed}\n{world.logs()}") from failed
            print(f"{name}: {dict(proxy.counts)}")


async def test_what_the_api_server_does_to_an_operator_changes_nothing_in_the_end(
    means: Means, numbers: Iterator[int], request: pytest.FixtureRequest
) -> None:
    seed = int(request.config.getoption("--crash-seed")) or int(time.strftime("%Y%m%d"))
    print(f"--crash-seed {seed}")
    async with world_of(means, f"calm-{next(numbers)}", 0) as world:
        world.start()
        await _life(world)
        clean = await at_rest(world)
    disturbed = (
        _disturbed(means, database, f"faulty-{next(numbers)}", name, seed, clean)
        for database, name in enumerate(FAULTS, 1)
    )
    ends = await asyncio.gather(*disturbed, return_exceptions=True)
    wrong = [end for end in ends if end is not None]
    assert not wrong, "\n\n".join(map(str, wrong))
