"""How a session ends by its owner's wish: what goes, in which order, and what a caller waits for. Real Valkey and the product's scripts."""

from __future__ import annotations

import asyncio

import pytest
import redis.asyncio as aioredis

from component.control.test_sessions import deleting, opened, refused, world
from fakes.control_worlds import ANN, BOB, RIVAL, World
from moorage_api import names
from moorage_api.errors import ApiError, Kind
from moorage_gateway.auth import Principal
from moorage_gateway.clock import SystemClock
from moorage_gateway.session_control import SessionControl

__all__ = ["world"]

pytestmark = [pytest.mark.component, pytest.mark.tenancy]


async def test_an_agent_that_was_taken_out_leaves_its_sessions_to_their_owners(
    world: World, redis_client: aioredis.Redis
) -> None:
    await opened(world)
    del world.catalog.entries["acme", "hello"]
    assert (await world.control.get(ANN, "my-session", agent="hello"))["status"] == "new"
    for caller in (BOB, RIVAL, Principal("acme", "ann", "e" * 16, frozenset({"review-agent"}), ANN.scopes)):
        await refused(world.control.delete(caller, "my-session", agent="hello"), Kind.NOT_FOUND)
    await refused(world.control.create(ANN, "hello", "another"), Kind.NOT_FOUND)
    async with deleting(world, redis_client, agent="hello"):
        await refused(world.control.get(ANN, "my-session", agent="hello"), Kind.NOT_FOUND)
    await refused(world.control.get(ANN, "my-session", agent="hello"), Kind.NOT_FOUND)
    assert await world.store.list("t/acme/sessions/") == []


async def test_deleting_removes_turns_responses_files_and_record_in_this_order(
    world: World, redis_client: aioredis.Redis
) -> None:
    await opened(world)
    place = await world.resolve(ANN, session_id="my-session")
    other = await opened(world, session_id="other-session")
    response = names.new_response_id(place.partition)
    await world.store.put(f"t/acme/responses/{response}/response.json", b"{}")
    await redis_client.hset(f"s:{place.session_key}", "running", response)

    async def end(_: str) -> None:
        await redis_client.hset(f"s:{place.session_key}", "running", "")

    world.turns.on_cancel = end
    deletion = asyncio.create_task(world.control.delete(ANN, "my-session"))
    async with asyncio.timeout(5):
        while not await redis_client.zscore("deletes", place.session_key):
            await asyncio.sleep(0.01)
        while not any(key.endswith("v000002.json") for key in await world.store.list("t/acme/sessions/")):
            await asyncio.sleep(0.01)
    assert not deletion.done()  # the provider still has the files
    await refused(world.resolve(ANN, session_id="my-session"), Kind.NOT_FOUND)
    await world.provider.removed(place.session_key)
    await deletion
    assert world.turns.cancelled == [response] and world.turns.deleted == [response]
    left = await world.store.list("t/acme/")
    assert len(left) == 1 and await world.control.get(ANN, other["id"])
    assert await redis_client.smembers("sessions:deleting") == set()
    await refused(world.control.get(ANN, "my-session"), Kind.NOT_FOUND)
    await refused(world.resolve(ANN, previous_response_id=response), Kind.PREVIOUS_NOT_FOUND)


async def test_a_deletion_cut_short_is_finished_later(world: World, redis_client: aioredis.Redis) -> None:
    await opened(world)
    key, _ = await world.control.find(ANN, "my-session")
    deletion = asyncio.create_task(world.control.delete(ANN, "my-session"))
    async with asyncio.timeout(5):
        while not await redis_client.zscore("deletes", key):
            await asyncio.sleep(0.01)
        while not await redis_client.smembers("sessions:deleting"):
            await asyncio.sleep(0.01)
    deletion.cancel()
    await asyncio.wait({deletion})
    assert await world.control.finish(key) is False
    await world.provider.removed(key)
    assert await world.control.finish(key) is True
    assert await world.store.list("t/acme/sessions/") == []


async def test_a_caller_waits_for_the_files_for_a_few_seconds_and_the_deletion_goes_on(
    world: World, redis_client: aioredis.Redis
) -> None:
    await opened(world)
    key, _ = await world.control.find(ANN, "my-session")
    control = SessionControl(
        world.sessions, world.store, world.client, world.turns, world.checkpoints, hasty := _Hasty()
    )
    async with asyncio.timeout(10):
        await control.delete(ANN, "my-session")  # nobody removes them
    assert 5 <= hasty.slept < 6
    assert await redis_client.smembers("sessions:deleting") == {key.encode()}
    await refused(world.resolve(ANN, session_id="my-session"), Kind.NOT_FOUND)


async def test_a_deletion_that_cannot_be_finished_holds_up_no_other(world: World, redis_client: aioredis.Redis) -> None:
    for name in ("first-session", "other-session"):
        await opened(world, session_id=name)
    keys = [(await world.control.find(ANN, name))[0] for name in ("first-session", "other-session")]
    stuck = names.new_response_id(keys[0].partition(":")[2])
    await world.store.put(f"t/acme/responses/{stuck}/response.json", b"{}")
    await redis_client.sadd("sessions:deleting", *keys)
    world.turns.refuses = ApiError(Kind.INVALID_REQUEST, "still running")
    running = asyncio.create_task(world.control.run())
    async with asyncio.timeout(5):
        while await redis_client.smembers("sessions:deleting") != {keys[0].encode()}:
            await asyncio.sleep(0.01)
    assert not running.done()
    running.cancel()
    await asyncio.wait({running})


class _Hasty(SystemClock):
    """Its pauses are over at once."""

    slept = 0.0

    def monotonic(self) -> float:
        return self.slept

    async def sleep(self, seconds: float) -> None:
        self.slept += seconds
        await asyncio.sleep(0)
