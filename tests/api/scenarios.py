"""What happens to an operator's world while the operator dies. `prepare` comes to rest with an operator undisturbed; `act` is swept.

An act asks and waits as people and gateways do: it does not know that operators come and go, and asks again where they would.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from api.world import World, until
from fakes.stand_in import BROKEN
from moorage_api import names
from moorage_api.ledger import keys
from moorage_api.ledger.records import text
from moorage_operator.kube import AGENTS, NAMESPACES, PODS, POLICIES

AGENT = "hello"
OTHER = "guest"
POOL = {"min": 2, "max": 2}  # no room for one more that stays, so that every run ends with as many
ANSWER_SECONDS = 3.0  # less than the client waits for any answer of Redis

Part = Callable[[World], Awaitable[None]]


@dataclass(frozen=True)
class Scenario:
    """`always`: part of every run, not only of a long one. `tenants`: further watched namespaces, one each."""

    name: str
    act: Part
    prepare: Part | None = None
    tenants: tuple[str, ...] = ()
    always: bool = False


async def full(world: World) -> None:
    """An agent with its pool."""
    await world.apply(AGENT, pool=POOL)
    await world.until_ready(AGENT, warm=2)


async def one_session(world: World) -> None:
    """The same, and a session at work."""
    await full(world)
    await _claimed(world, "first")
    await world.until_ready(AGENT, warm=2, idle=1)


async def one_asleep(world: World) -> None:
    """The same, and a session that sleeps."""
    await one_session(world)
    await world.hibernate(world.key("first", AGENT))
    await world.until_ready(AGENT, warm=2, hibernated=1)


async def _claimed(world: World, session: str) -> None:
    key = await world.open(session, AGENT)
    await world.claim(key, AGENT)
    await world.until_noted(key)


async def applied(world: World) -> None:
    """A first agent, and its pool fills."""
    await full(world)


async def claimed(world: World) -> None:
    """Two sessions take what the pool has; it is filled again."""
    await asyncio.gather(_claimed(world, "first"), _claimed(world, "second"))
    await world.until_ready(AGENT, warm=2, idle=2)


async def slept_and_woke(world: World) -> None:
    """A session hibernates, its sandbox ends, and the next call wakes it on its files."""
    key = world.key("first", AGENT)
    await world.hibernate(key)
    await world.until_ready(AGENT, warm=2, hibernated=1)
    volume = (await world.record(key)).volume
    await world.claim(key, AGENT)
    assert (await world.record(key)).volume == volume
    await world.until_ready(AGENT, warm=2, idle=1)


async def removed(world: World) -> None:
    """The agent is deleted: only the files of the session that sleeps are left."""
    await world.kube.delete(AGENTS, world.namespace, AGENT)
    await until("no pod is left", lambda: _none(world))


async def _none(world: World) -> bool:
    return not await world.pods()


async def rolled_out(world: World) -> None:
    """A further revision, while a session runs on the one before."""
    await world.apply(AGENT, pool=POOL, env=[{"name": "MODE", "value": "second"}])
    await world.until_ready(AGENT, warm=2, idle=1)


async def namespace_withdrawn(world: World) -> None:
    """A tenant's namespace is deleted with an agent in it."""
    space = next(iter(world.more))
    await world.kube.delete(NAMESPACES, "", space)

    async def over() -> bool:
        return await world.kube.get(NAMESPACES, "", space) is None

    await until("the namespace is gone", over)


async def two_tenants(world: World) -> None:
    """An agent of each of two tenants, of one name."""
    await asyncio.gather(*(world.apply(AGENT, space, pool=POOL) for space in world.tenants))
    await asyncio.gather(*(world.until_ready(AGENT, space, warm=2) for space in world.tenants))


async def session_deleted(world: World) -> None:
    """A session is deleted at work: its files go."""
    await world.sessions.delete_session(world.key("first", AGENT))
    await world.until_ready(AGENT, warm=2, idle=0, hibernated=0)


async def pod_lost(world: World) -> None:
    """A session's pod is deleted by hand: its next call wakes it. One of the pool would be called broken for 20 s, which is no rest."""
    key = world.key("first", AGENT)
    await world.kube.delete(PODS, world.namespace, (await world.record(key)).sandbox)

    async def told() -> bool:
        return (await world.record(key)).state == "hibernated"

    await until("the session's sandbox is proved dead", told)
    await world.claim(key, AGENT)
    await world.until_ready(AGENT, warm=2, idle=1)


async def node_lost(world: World) -> None:
    """The node of a session and of the whole pool is lost: another pool, and the session goes on there. Then the node is back."""
    key, nodes = world.key("first", AGENT), world.means.nodes
    before = {body["metadata"]["name"] for body in await world.pods()}
    await asyncio.to_thread(nodes.silence, world.namespace)
    await asyncio.to_thread(nodes.evict, world.namespace)
    await world.moved(key)
    pool = keys.pool("dev", AGENT, await world.revision(AGENT))

    async def filled() -> bool:
        names_in = {text(one) for one in await world.redis.lrange(pool, 0, -1)}  # type: ignore[misc]
        return len(names_in) == POOL["min"] and not names_in & before

    await until("the pool is on the other node", filled)
    await world.claim(key, AGENT)
    await world.until_noted(key)
    await asyncio.to_thread(nodes.back, world.namespace)
    await world.until_ready(AGENT, warm=2, idle=1)


async def pool_shrunk(world: World) -> None:
    """The pool is wanted smaller."""
    await world.apply(AGENT, pool={"min": 1, "max": 1})
    await world.until_ready(AGENT, warm=1)


async def broken_and_mended(world: World) -> None:
    """A revision whose image is not there, and one that is right again."""
    await world.apply(AGENT, pool=POOL, image=BROKEN)

    async def said() -> bool:
        status = ((await world.agent(AGENT)) or {}).get("status") or {}
        return any(one["type"] == "Ready" and one["status"] == "False" for one in status.get("conditions", ()))

    await until("it says so", said)
    await world.apply(AGENT, pool=POOL, env=[{"name": "MODE", "value": "mended"}])
    await world.until_ready(AGENT, warm=2)


async def applied_by_gateway(world: World) -> None:
    """An agent comes and another one goes by requests of a gateway, which asks again when it hears nothing."""
    spec = {"image": "registry.example/agent:2", "pool": {"min": 1, "max": 1}, "workspace": {"size": "16Mi"}}
    answer = await _asked(world, "apply", {"spec": spec})
    assert answer["ok"], answer
    await world.until_ready(OTHER, warm=1)
    assert (await _asked(world, "delete", {}))["ok"]

    async def over() -> bool:
        return await world.agent(OTHER) is None and not await world.pods(OTHER)

    await until("it is gone", over)


async def _asked(world: World, verb: str, manifest: dict[str, object]) -> dict[str, object]:
    redis = world.redis
    for _ in range(6):
        request = names.new_secret()[:16]
        asked = {"id": request, "verb": verb, "tenant": "dev", "agent": OTHER, "manifest": manifest, "by": "ann"}
        await redis.rpush(keys.APPLIES, json.dumps(asked))  # type: ignore[misc]
        found = await redis.blpop([keys.answer(request)], timeout=ANSWER_SECONDS)  # type: ignore[misc]
        if found is not None:
            answer: dict[str, object] = json.loads(found[1])
            if verb == "delete" and answer.get("kind") == "not_found":
                return {"ok": True}  # the one before did it, and its answer was lost
            return answer
    raise AssertionError("no answer")


def source(ref: str) -> dict[str, object]:
    """Of a git repository; nobody asks it."""
    return {"git": {"url": "https://git.example/agents.git", "ref": ref}}


async def built(world: World) -> None:
    """An agent of an image gets a source, and then another ref of it: two builds, of which the last one stays."""
    for ref in ("main", "next"):
        await world.apply(AGENT, pool=POOL, source=source(ref))
        await world.until_ready(AGENT, warm=2)


def edits(policy: dict[str, Any]) -> list[dict[str, Any]]:
    """By hand, of a policy: what lets nothing through, what selects nothing any more (twice), and what lets more ports through."""
    wider = json.loads(json.dumps(policy["spec"]["egress"]))
    wider[0]["ports"][0]["endPort"] = 65535
    return [
        {"spec": {"egress": []}},
        {"spec": {"podSelector": {"matchLabels": {"x": "y"}}}},
        {"spec": {"podSelector": {"matchExpressions": [{"key": "x", "operator": "Exists"}]}}},
        {"spec": {"egress": wider}},
    ]


async def put_right(world: World) -> None:
    """A policy is edited by hand in one way and another, and deleted."""
    name = f"moorage-{AGENT}"
    made = await world.kube.get(POLICIES, world.namespace, name)
    assert made is not None

    async def right() -> bool:
        body = await world.kube.get(POLICIES, world.namespace, name)
        return body is not None and body["spec"] == made["spec"]

    for edit in edits(made):
        await world.kube.merge(POLICIES, world.namespace, name, edit)
        await until("the policy is right again", right)
    await world.kube.delete(POLICIES, world.namespace, name)
    await until("the policy is back", right)


SCENARIOS = (
    Scenario("applied", applied, always=True),
    Scenario("claimed", claimed, full, always=True),
    Scenario("slept and woke", slept_and_woke, one_session, always=True),
    Scenario("built", built, full, always=True),
    Scenario("removed", removed, one_asleep),
    Scenario("rolled out", rolled_out, one_session),
    Scenario("namespace withdrawn", namespace_withdrawn, two_tenants, ("acme",)),
    Scenario("session deleted", session_deleted, one_session),
    Scenario("pod lost", pod_lost, one_session),
    Scenario("node lost", node_lost, one_session),
    Scenario("pool shrunk", pool_shrunk, full),
    Scenario("broken and mended", broken_and_mended, full),
    Scenario("applied by a gateway", applied_by_gateway, full),
    Scenario("put right", put_right, full),
)
