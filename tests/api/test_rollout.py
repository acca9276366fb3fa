"""Shares of revisions: a newest one with a weight takes so much of the new sessions, and the old spec again is the old revision again."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from api.world import Means, World, until, world_of
from moorage_api.catalog import field
from moorage_api.ledger import keys
from moorage_operator import marks

pytestmark = [pytest.mark.api, pytest.mark.timeout(180)]

SECOND = [{"name": "MODE", "value": "second"}]


async def shares(world: World) -> list[tuple[str, int]]:
    """(revision, weight) in the catalog, as gateways read them, in its order."""
    raw = await world.redis.hget(keys.CATALOG, field("dev", "hello"))  # type: ignore[misc]
    return [(one["revision"], one["weight"]) for one in json.loads(raw)["revisions"]] if raw else []


async def newest(world: World) -> str:
    body = await world.agent("hello")
    return str(((body or {}).get("status") or {}).get("revision", ""))


async def running(world: World) -> set[str]:
    """Revisions of the pods there are."""
    return {marks.text(pod, "labels", marks.REVISION) for pod in await world.pods("hello")}


async def test_a_weight_shares_new_sessions_between_two_revisions_and_the_old_spec_is_the_old_revision_again(
    means: Means, numbers: Iterator[int]
) -> None:
    async with world_of(means, f"op-{next(numbers)}", 12) as world:
        world.start()
        await world.apply("hello", pool={"min": 1, "max": 1})
        await world.until_ready("hello", warm=1)
        old = await newest(world)
        assert await shares(world) == [(old, 100)]

        await world.apply("hello", pool={"min": 1, "max": 1}, env=SECOND, rollout={"weight": 30})
        await world.until_ready("hello")
        fresh = await newest(world)
        assert fresh != old

        async def shared() -> bool:
            return sorted(await shares(world)) == sorted([(fresh, 30), (old, 70)])

        await until("both revisions have their share", shared)

        async def both() -> bool:
            return await running(world) == {old, fresh}

        await until("each has a pool", both)

        await world.apply("hello", pool={"min": 1, "max": 1})
        await world.until_ready("hello", warm=1)
        assert await newest(world) == old, "a roll back"

        async def alone() -> bool:
            return await shares(world) == [(old, 100)] and await running(world) == {old}

        await until("nothing of the other one is left", alone)
