"""What an operator asks of the API server, counted there, and who works when one of two dies."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from api.picture import look, orphans
from api.processes import Process
from api.scenarios import edits, source
from api.world import Means, World, until, world_of
from cluster.node.control import ControlPlane
from fakes.audit import Audit
from fakes.stand_in import UNBOUND, UNMOUNTED
from moorage_operator import marks
from moorage_operator.kube import CLAIMS, LEASES, PODS, POLICIES

pytestmark = [pytest.mark.api, pytest.mark.timeout(180)]

MOST_WRITES = 8  # of one claim with its refill (performance.md, P3)
ROUNDS = 6
# Lists of HostedAgents by an operator that starts: kopf's and its own are its start's, each further one follows a whole look.
LOOKS = 4


@contextlib.asynccontextmanager
async def serving(
    means: Means, numbers: Iterator[int], database: int, *, only: int | None = None
) -> AsyncIterator[tuple[World, Process]]:
    """A world and its operator, which has two sandboxes of the agent `hello` warm; `only`: just so many, however many are asked for."""
    async with world_of(means, f"op-{next(numbers)}", database) as world:
        operator = world.start()
        await world.apply("hello", **({"pool": {"min": only, "max": only}} if only else {}))
        await world.until_ready("hello", warm=only or 2)
        yield world, operator


async def session(world: World, name: str) -> str:
    """A session at work, noted on its claim; its key."""
    key = await world.open(name, "hello")
    await world.claim(key, "hello")
    await world.until_noted(key)
    return key


async def asleep(world: World, warm: int) -> tuple[str, str]:
    """A session that sleeps; its key and its volume."""
    key = await session(world, "sleeper")
    await world.hibernate(key)
    await world.until_ready("hello", warm=warm, hibernated=1)
    return key, (await world.record(key)).volume


async def succeeded(world: World, holder: str) -> None:
    """Waits until another than `holder` holds the lease."""

    async def followed() -> bool:
        return await world.holder() not in ("", holder)

    await until("the other one holds the lease", followed)


async def versions(world: World) -> dict[str, str]:
    """Name → version of everything that an operator may write, but the lease."""
    held = await look(world)
    every = [*held.pods, *held.claims, *held.policies, *held.accounts, *held.jobs, *held.agents]
    return {f"{one['kind']} {one['metadata']['name']}": one["metadata"]["resourceVersion"] for one in every}


async def test_an_operator_that_starts_writes_to_nothing_that_is_as_it_should_be(
    plane: ControlPlane, means: Means, numbers: Iterator[int]
) -> None:
    async with serving(means, numbers, 8) as (world, first):
        await asleep(world, warm=2)
        await session(world, "worker")
        await world.until_ready("hello", warm=2, idle=1, hibernated=1)
        await world.apply("sourced", source=source("main"))
        await world.until_ready("sourced", warm=2)
        before = await versions(world)
        await first.kill()
        audit = Audit(plane.audit, world.tenants)
        await world.replace(first)

        async def looked() -> bool:
            return sum(1 for one in audit.requests() if (one.verb, one.kind) == ("list", "hostedagents")) >= LOOKS

        await until("it has looked at everything, more than once", looked)
        assert audit.writes() == []
        assert await versions(world) == before
        assert orphans(await look(world)) == []


async def test_a_claim_and_its_refill_cost_few_writes(
    plane: ControlPlane, means: Means, numbers: Iterator[int]
) -> None:
    async with serving(means, numbers, 9) as (world, _):
        for number in range(ROUNDS):
            audit = Audit(plane.audit, world.tenants)
            await session(world, f"session-{number}")
            await world.until_ready("hello", warm=2, idle=number + 1)
            spent = audit.writes()
            print(f"claim {number}: {len(spent)} writes: {dict(Counter(f'{one.verb} {one.kind}' for one in spent))}")
            assert {"create pods", "create persistentvolumeclaims"} <= {f"{one.verb} {one.kind}" for one in spent}
            assert len(spent) <= MOST_WRITES


async def test_a_claim_asks_nothing_of_the_api_server(
    plane: ControlPlane, means: Means, numbers: Iterator[int]
) -> None:
    async with serving(means, numbers, 10) as (world, process):
        revision = await world.revision("hello")
        with plane.stalled():
            for name in ("first", "second"):
                key = await world.open(name, "hello")
                async with asyncio.timeout(5):
                    claim = await world.sessions.claim(key, revision, named=False)
                    assert (claim.word, await world.sessions.bound(key, claim.epoch)) == ("CLAIMED", "OK")
        await world.until_ready("hello", warm=2, idle=2)
        assert not process.ended, "an API server that stalls for a moment costs no operator"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
async def test_another_operator_goes_on_when_the_holder_ends(
    means: Means, numbers: Iterator[int], how: signal.Signals
) -> None:
    async with world_of(means, f"op-{next(numbers)}", 11) as world:
        first = world.start()
        holder = await until("the first one holds the lease", world.holder)
        second = world.start()
        await world.apply("hello")
        await world.until_ready("hello", warm=2)
        before = await versions(world)
        assert await world.holder() == holder and not second.ended
        first.send(how)
        await first.wait()
        await succeeded(world, holder)
        await world.apply("later")
        await world.until_ready("later", warm=2)
        await session(world, "first")
        await world.until_ready("hello", warm=2, idle=1)
        after = await versions(world)
        kept = [name for name in before if name.split()[0] in ("Pod", "ServiceAccount", "NetworkPolicy")]
        assert {name: after.get(name) for name in kept} == {name: before[name] for name in kept}
        lease = await world.kube.get(LEASES, world.namespace, "moorage-operator")
        assert lease is not None and lease["spec"]["leaseTransitions"] == 2
        assert orphans(await look(world)) == []


async def test_a_ledger_that_was_lost_is_made_whole_from_what_the_cluster_holds(
    means: Means, numbers: Iterator[int]
) -> None:
    async with serving(means, numbers, 13, only=2) as (world, _):
        key, volume = await asleep(world, warm=2)
        await world.redis.flushdb()
        await world.gateway.found()

        async def back() -> bool:
            record = await world.sessions.session(key)
            return record is not None and (record.state, record.volume) == ("hibernated", volume)

        await until("the session is back", back)

        async def full() -> bool:
            held = await look(world)
            return orphans(held) == [] and len(held.pods) == 2 == len(held.sandboxes)

        await until("the pool is whole, and nothing is nobody's", full)
        await world.until_ready("hello", warm=2, hibernated=1)


async def test_without_an_operator_what_is_warm_is_claimed_and_who_finds_nothing_waits_for_the_next(
    means: Means, numbers: Iterator[int]
) -> None:
    async with serving(means, numbers, 14, only=2) as (world, first):
        revision = await world.revision("hello")
        await first.kill()
        for name in ("first", "second"):
            key = await world.open(name, "hello")
            claim = await world.sessions.claim(key, revision, named=False)
            assert (claim.word, await world.sessions.bound(key, claim.epoch)) == ("CLAIMED", "OK")
        third = await world.open("third", "hello")
        assert (await world.sessions.claim(third, revision, named=False)).word == "WAKING"
        await world.replace(first)
        await world.claim(third, "hello")
        await world.until_ready("hello", warm=2, idle=3)
        assert orphans(await look(world)) == []


async def test_a_holder_that_was_stopped_and_goes_on_later_leaves_the_work_to_its_successor(
    means: Means, numbers: Iterator[int]
) -> None:
    async with serving(means, numbers, 15, only=2) as (world, first):
        holder = await world.holder()
        first.send(signal.SIGSTOP)
        second = world.start()
        await succeeded(world, holder)
        await session(world, "first")
        await world.until_ready("hello", warm=2, idle=1)
        before = await look(world)
        first.send(signal.SIGCONT)
        await first.wait()
        assert not second.ended
        await session(world, "second")
        await world.until_ready("hello", warm=2, idle=2)

        async def tidy() -> bool:
            held = await look(world)
            return orphans(held) == [] and len(held.pods) == 4 == len(held.claims) == len(held.sandboxes)

        await until("a pod and a claim for each sandbox, and nothing that is nobody's", tidy)
        assert {one["metadata"]["uid"] for one in before.pods} <= {
            one["metadata"]["uid"] for one in (await look(world)).pods
        }


async def test_a_policy_is_put_right_whatever_was_written_into_it_by_hand(means: Means, numbers: Iterator[int]) -> None:
    async with world_of(means, f"op-{next(numbers)}", 12) as world:
        world.start()
        await world.apply("hello", pool={"min": 1, "max": 1})
        await world.apply("sourced", source=source("main"), pool={"min": 1, "max": 1})
        await asyncio.gather(world.until_ready("hello", warm=1), world.until_ready("sourced", warm=1))
        for name in ("moorage-hello", "moorage-sourced.build"):
            made = await world.kube.get(POLICIES, world.namespace, name)
            assert made is not None
            for edit in edits(made):
                edited = await world.kube.merge(POLICIES, world.namespace, name, edit)
                assert edited["spec"] != made["spec"] or edited["metadata"]["labels"] != made["metadata"]["labels"]

                async def right(name: str = name, made: dict[str, Any] = made) -> bool:
                    held = await world.kube.get(POLICIES, world.namespace, name)
                    assert held is not None
                    return (held["spec"], held["metadata"]["labels"]) == (made["spec"], made["metadata"]["labels"])

                await until(f"{name} is right again after {edit}", right)


@pytest.mark.parametrize("label", [marks.AGENT, marks.OURS])
async def test_a_pod_whose_label_was_taken_off_is_replaced_and_does_not_run_on_beside_its_successor(
    means: Means, numbers: Iterator[int], label: str
) -> None:
    async with serving(means, numbers, 12, only=1) as (world, _):
        key = await session(world, "first")
        await world.until_ready("hello", warm=1, idle=1)
        first = await world.record(key)
        await world.kube.merge(PODS, world.namespace, first.sandbox, {"metadata": {"labels": {label: None}}})

        async def ended() -> bool:
            return await world.kube.get(PODS, world.namespace, first.sandbox) is None

        await until("its pod has ended", ended)
        claim = await world.claim(key, "hello")
        assert (await world.record(key)).volume == first.volume and claim.sandbox != first.sandbox
        await world.until_ready("hello", warm=1, idle=1)
        assert orphans(await look(world)) == []


async def test_labels_that_were_taken_off_claims_are_put_back_and_cost_no_session_its_files(
    means: Means, numbers: Iterator[int]
) -> None:
    async with serving(means, numbers, 12, only=1) as (world, _):
        key, volume = await asleep(world, warm=1)
        made = {one["metadata"]["name"]: one["metadata"]["labels"] for one in (await look(world)).claims}
        assert volume in made and len(made) == 2, "the sleeper's, and one of the pool"
        bare = {"metadata": {"labels": {marks.OURS: None, marks.AGENT: None}}}
        for name in made:
            await world.kube.merge(CLAIMS, world.namespace, name, bare)

        async def right() -> bool:
            return {one["metadata"]["name"]: one["metadata"]["labels"] for one in (await look(world)).claims} == made

        await until("their labels are back", right)
        await world.claim(key, "hello")
        assert (await world.record(key)).volume == volume
        await world.until_ready("hello", warm=1, idle=1)
        assert orphans(await look(world)) == []


async def test_an_agent_whose_volumes_never_come_says_so_in_its_time_and_holds_up_no_other(
    means: Means, numbers: Iterator[int]
) -> None:
    async with world_of(means, f"op-{next(numbers)}", 14) as world:
        world.start(MOORAGE_READY_SECONDS="4")
        await world.apply("stuck", image=UNMOUNTED)
        await world.apply("hello")
        await world.until_ready("hello", warm=2)

        async def said() -> bool:
            status = ((await world.agent("stuck")) or {}).get("status") or {}
            return any(one["type"] == "Ready" and UNBOUND in one["message"] for one in status.get("conditions", ()))

        await until("it says what it waits for", said)
        await session(world, "first")
        await world.until_ready("hello", warm=2, idle=1)
