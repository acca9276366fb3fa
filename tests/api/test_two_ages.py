"""An operator of an older commit, and today's after it, as a release is upgraded: what the one made is the other's.

Limit: on today's libraries.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator

import pytest

from api.world import Means, World, until, world_of
from fakes import then

pytestmark = [pytest.mark.api, pytest.mark.long, pytest.mark.timeout(300)]
AGENT = "counter"
START_SECONDS = 120.0
"""Of then, a program starts from files that nobody has compiled."""
END_SECONDS = 30.0


@pytest.fixture
def code() -> Iterator[dict[str, str]]:
    """The environment of a process of then."""
    with then.code() as found:
        yield found


@contextlib.asynccontextmanager
async def older(world: World, code: dict[str, str]) -> AsyncIterator[None]:
    """An operator of then that works, told to end at the end of the block."""
    env = os.environ | world.told | code | {"KUBECONFIG": str(world.means.kubeconfig)}
    with (world.folder / "operator-of-then.log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "moorage_operator"], env=env, stdout=log, stderr=log)
    try:
        await until("the operator of then works", world.holder, within=START_SECONDS)
        yield
    finally:
        process.terminate()
        try:
            await asyncio.to_thread(process.wait, END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def claimed(world: World, session: str) -> str:
    """A session that has a sandbox and its note; its key."""
    key = await world.open(session, AGENT)
    await world.claim(key, AGENT)
    await world.until_noted(key)
    return key


async def uids(world: World) -> dict[str, str]:
    """Of the pods of the agent that are not leaving, by name."""
    found = [one["metadata"] for one in await world.pods(AGENT)]
    return {one["name"]: one["uid"] for one in found if "deletionTimestamp" not in one}


async def test_todays_operator_goes_on_with_the_pods_of_the_one_of_then(means: Means, code: dict[str, str]) -> None:
    async with world_of(means, "two-ages", 9) as world:
        async with older(world, code):
            await world.apply(AGENT)
            await world.until_ready(AGENT, warm=2)
            first = await claimed(world, "first")
            await world.until_ready(AGENT, warm=2, idle=1)
            before, sandbox = await uids(world), (await world.record(first)).sandbox
            revision = await world.revision(AGENT)
        await world.free_lease()
        world.start()
        await until("today's operator works", world.holder)

        second = await claimed(world, "second")
        assert (await world.record(second)).sandbox in before, "out of the pool that is there"
        await world.until_ready(AGENT, warm=2, idle=2)  # and what it took is made anew by today's
        assert before.items() < (await uids(world)).items(), "no pod was ended"
        assert (await world.record(first)).sandbox == sandbox and await world.revision(AGENT) == revision
        await world.hibernate(first)
        await world.until_ready(AGENT, warm=2, idle=1, hibernated=1)
        volume = (await world.record(first)).volume
        await world.claim(first, AGENT)
        assert (await world.record(first)).volume == volume, "it wakes on the claim that the one of then made"
