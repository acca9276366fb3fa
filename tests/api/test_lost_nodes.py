"""A node is lost, or slow: where its sessions go on, what is left of it, and who may still speak for them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import pytest

from api.picture import look, orphans
from api.world import Means, World, until, world_of
from fakes.stand_in_nodes import NODE, OTHER, Nodes
from moorage_api.ledger import keys
from moorage_api.ledger.records import Descriptor, SessionIdentity, SessionRecord, text
from moorage_operator import marks
from moorage_operator.kube import CLAIMS, EVENTS, PODS

pytestmark = [pytest.mark.api, pytest.mark.timeout(180)]

AGENT = "hello"
# A try on a volume that is out of reach ends soon, so that there are several; and pods that a lost node holds are given up soon.
SETTINGS = {"MOORAGE_READY_SECONDS": "4"}


@dataclass
class Scene:
    """A world with one session at work on `NODE`, noted on its claim; `record` and `descriptor` are of then."""

    world: World
    key: str
    record: SessionRecord
    descriptor: Descriptor

    @property
    def nodes(self) -> Nodes:
        return self.world.means.nodes

    async def now(self) -> SessionRecord:
        return await self.world.record(self.key)

    async def on(self, sandbox: str) -> str:
        """The node of a sandbox's pod; "" when it has none."""
        body = await self.world.kube.get(PODS, self.world.namespace, sandbox)
        return str((body or {}).get("spec", {}).get("nodeName") or "")

    async def shim(self) -> str:
        """What the shim of the sandbox that it had is told when it announces itself."""
        was = self.record
        who = SessionIdentity(was.tenant, was.agent, was.user, was.session, was.partition, was.revision)
        return (await self.world.sessions.announce(self.key, was.epoch, self.descriptor, who)).word

    async def told(self) -> set[str]:
        """Reasons of events of its agent."""
        events = [one async for one in self.world.kube.each(EVENTS, self.world.namespace, labels={})]
        return {one["reason"] for one in events if one["involvedObject"]["name"] == AGENT}

    async def gone(self, volume: str) -> bool:
        return await self.world.kube.get(CLAIMS, self.world.namespace, volume) is None

    async def nobodys(self) -> bool:
        """Whether nothing belongs to nobody."""
        return orphans(await look(self.world)) == []


@contextlib.asynccontextmanager
async def scene(means: Means, numbers: Iterator[int], database: int) -> AsyncIterator[Scene]:
    async with world_of(means, f"lost-{next(numbers)}", database) as world:
        world.start(**SETTINGS)
        await world.apply(AGENT, pool={"min": 1, "max": 1})
        await world.until_ready(AGENT, warm=1)
        key = await world.open("first", AGENT)
        claim = await world.claim(key, AGENT)
        await world.until_noted(key)
        await world.until_ready(AGENT, warm=1, idle=1)
        descriptor = await world.sessions.sandbox(claim.sandbox)
        assert descriptor is not None
        yield Scene(world, key, await world.record(key), descriptor)


async def test_a_session_goes_on_from_its_checkpoint_on_another_node_and_the_one_it_had_may_not(
    means: Means, numbers: Iterator[int]
) -> None:
    async with scene(means, numbers, 12) as one:
        world, old = one.world, one.record
        assert await one.on(old.sandbox) == NODE
        await asyncio.to_thread(one.nodes.silence, world.namespace)
        await asyncio.to_thread(one.nodes.evict, world.namespace)
        assert await one.shim() == "OK"  # its calls may run on, until somebody has no answer
        await world.sessions.doom(old.sandbox, "no answer")

        async def given_up() -> bool:
            return bool((await one.now()).out)

        await until("its volume is given up", given_up)
        operator = world.operators[-1]
        await operator.kill()  # before a gateway moves it: whoever follows goes on
        await world.moved(one.key)
        assert await one.shim() == "STOP"
        await operator.wait()
        await world.free_lease()
        world.start(**SETTINGS)

        claim = await world.claim(one.key, AGENT)
        while await one.on(claim.sandbox) == NODE:  # a warm one of the lost node: it is given up too
            await world.moved(one.key)
            claim = await world.claim(one.key, AGENT)
        now = await one.now()
        assert (await one.on(claim.sandbox), claim.restore) == (OTHER, True)
        assert now.epoch > old.epoch and now.volume != old.volume

        async def kept_for_nobody() -> bool:
            body = await world.kube.get(CLAIMS, world.namespace, old.volume)
            return body is not None and "deletionTimestamp" in body["metadata"] and marks.left(body)

        await until("the volume goes once its pod is proved dead, and not before", kept_for_nobody)
        assert {"VolumeOutOfReach", "SessionMoved"} <= await one.told()
        assert await one.shim() == "STOP"

        await asyncio.to_thread(one.nodes.back, world.namespace)
        await until("nothing is nobody's", one.nobodys)
        await world.until_noted(one.key)
        assert await one.gone(old.volume)
        assert (await one.now()).sandbox == claim.sandbox and await one.shim() == "STOP"


async def test_where_the_node_and_its_volume_are_gone_a_session_without_a_checkpoint_waits_and_one_with_it_moves(
    means: Means, numbers: Iterator[int]
) -> None:
    async with scene(means, numbers, 13) as one:
        world, old = one.world, one.record
        await asyncio.to_thread(one.nodes.remove, world.namespace)

        async def asleep() -> bool:
            return (await one.now()).state == "hibernated"

        await until("its pod's end is seen", asleep)
        asked = await world.sessions.claim(one.key, await world.revision(AGENT), named=True)
        assert asked.word == "WAKING"

        async def given_up() -> bool:
            return bool((await one.now()).out)

        await until("its volume is given up", given_up)
        now = await one.now()
        assert "node affinity" in now.out
        assert await world.sessions.stay(one.key, now.epoch, now.volume, "no checkpoint") == "OK"
        told = await world.sessions.claim(one.key, await world.revision(AGENT), named=True)
        assert (told.word, told.reason) == ("WAKING", "no checkpoint")
        assert not await one.gone(old.volume) and (await one.now()).volume == old.volume

        await world.moved(one.key)
        claim = await world.claim(one.key, AGENT)
        assert await one.on(claim.sandbox) == OTHER and claim.restore
        await until("nothing is nobody's", one.nobodys)
        assert await one.gone(old.volume) and await one.shim() == "STOP"
        assert "SessionMoved" in await one.told()


async def test_a_node_that_is_back_in_time_changes_nothing(means: Means, numbers: Iterator[int]) -> None:
    async with scene(means, numbers, 14) as one:
        world, old = one.world, one.record
        pool = keys.pool("dev", AGENT, old.revision)
        (warm,) = [text(each) for each in await world.redis.lrange(pool, 0, -1)]  # type: ignore[misc]
        await asyncio.to_thread(one.nodes.silence, world.namespace)
        await world.kube.delete(PODS, world.namespace, warm, grace=1)

        async def given_up() -> bool:
            return warm.encode() not in await world.redis.lrange(pool, 0, -1)  # type: ignore[misc]

        await until("the one that was told to end is given up", given_up)
        # As long silent as that one, and nobody told it to end: its calls may run on.
        assert not (await one.now()).out and await one.shim() == "OK"
        await asyncio.to_thread(one.nodes.back, world.namespace)
        await world.until_ready(AGENT, warm=1, idle=1)
        assert (await one.now()).sandbox == old.sandbox

        # Told to end, and back before the setting is over: it ends there, and the session goes on with its own files.
        await asyncio.to_thread(one.nodes.silence, world.namespace)
        await world.sessions.doom(old.sandbox, "no answer")

        async def ending() -> bool:
            body = await world.kube.get(PODS, world.namespace, old.sandbox)
            return body is not None and "deletionTimestamp" in body["metadata"]

        await until("its pod is told to end", ending)
        await asyncio.to_thread(one.nodes.back, world.namespace)

        async def asleep() -> bool:
            return (await one.now()).state == "hibernated"

        await until("its end is proved", asleep)
        claim = await world.claim(one.key, AGENT)
        assert claim.kept and not claim.restore and (await one.now()).volume == old.volume
        await until("nothing is nobody's", one.nobodys)
        assert "SessionMoved" not in await one.told()
