"""What a world comes to: everything in cluster and ledger with its chance names taken out, and what there belongs to nobody.

Two runs of one scenario end with equal pictures. Left out: names of sandboxes and volumes, times, epochs, messages, and marks of sandboxes
that are gone (`offered`), which a ledger keeps on purpose.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

from api.world import SECRETS, World
from moorage_api.ledger import keys
from moorage_api.ledger.records import fields, text
from moorage_operator import marks, pods
from moorage_operator.kube import ACCOUNTS, AGENTS, CLAIMS, JOBS, PODS, POLICIES

OURS = {marks.OURS: marks.MANAGER}


@dataclass(frozen=True)
class Held:
    """Cluster and ledger at one instant. `builders`: pods of Jobs; `sandboxes`: the ledger's; `pools`: key → sandboxes in it."""

    pods: list[dict[str, Any]]
    claims: list[dict[str, Any]]
    policies: list[dict[str, Any]]
    accounts: list[dict[str, Any]]
    secrets: list[dict[str, Any]]
    jobs: list[dict[str, Any]]
    builders: list[dict[str, Any]]
    agents: list[dict[str, Any]]
    sandboxes: dict[str, dict[str, str]]
    sessions: dict[str, dict[str, str]]
    pools: dict[str, list[str]]
    catalog: dict[str, dict[str, Any]]
    doomed: dict[str, str]
    waking: list[str]
    deletes: list[str]
    platform: dict[str, str]
    tenants: dict[str, str]

    @property
    def roles(self) -> dict[str, str]:
        """Sandbox → what it is for."""
        warm = {one for members in self.pools.values() for one in members}
        found = {}
        for name, one in self.sandboxes.items():
            session = self.sessions.get(one.get("session", ""), {}).get("session", "")
            found[name] = "warm" if name in warm else f"session {session}" if session else "nobody's"
        return found

    @property
    def mounted(self) -> dict[str, str]:
        """Volume → the sandbox whose pod has it."""
        return {
            volume["persistentVolumeClaim"]["claimName"]: body["metadata"]["name"]
            for body in self.pods
            for volume in body["spec"]["volumes"]
            if "persistentVolumeClaim" in volume
        }


async def look(world: World) -> Held:
    """Cluster and ledger now."""
    kinds = ((CLAIMS, OURS), (POLICIES, {}), (ACCOUNTS, {}), (SECRETS, {}), (JOBS, {}), (PODS, {}), (AGENTS, {}))
    pod_list, *lists = await asyncio.gather(world.pods(), *(world.all(*each) for each in kinds))
    claims, policies, accounts, secrets, jobs, every, agents = lists
    redis: Any = world.redis
    names = [text(key) async for key in redis.scan_iter(count=1000)]
    hashes = {key: fields(await redis.hgetall(key)) for key in names if key.startswith(("x:", "s:"))}
    hashes = {key: one for key, one in hashes.items() if one}  # it went meanwhile
    return Held(
        pod_list,
        claims,
        policies,
        accounts,
        secrets,
        jobs,
        [body for body in every if marks.text(body, "labels", marks.BUILD)],
        agents,
        {key[2:]: one for key, one in hashes.items() if key.startswith("x:")},
        {key[2:]: one for key, one in hashes.items() if key.startswith("s:")},
        {key: [text(x) for x in await redis.lrange(key, 0, -1)] for key in names if key.startswith("pool:")},
        {name: json.loads(entry) for name, entry in fields(await redis.hgetall(keys.CATALOG)).items()},
        fields(await redis.hgetall(keys.DOOMED)),
        [text(x) for x in await redis.zrange(keys.WAKING, 0, -1)],
        [text(x) for x in await redis.zrange(keys.DELETES, 0, -1)],
        fields(await redis.hgetall(keys.PLATFORM)),
        world.tenants,
    )


def picture(held: Held) -> dict[str, Any]:
    """The comparable part."""
    roles, spaces = held.roles, held.tenants

    def place(body: dict[str, Any]) -> str:
        return f"{spaces[body['metadata']['namespace']]}/{body['metadata']['name']}"

    return {
        "pods": dict(Counter(_pod(body, roles) for body in held.pods)),
        "claims": dict(Counter(_claim(body, held) for body in held.claims)),
        "policies": sorted(map(place, held.policies)),
        "accounts": sorted(place(body) for body in held.accounts if body["metadata"]["name"] != "default"),
        "secrets": sorted(map(place, held.secrets)),
        "jobs": sorted(f"{marks.text(body, 'labels', marks.AGENT)} {_built(body)}" for body in held.jobs),
        "agents": {place(body): _status(body) for body in held.agents},
        "catalog": {name: _entry(entry) for name, entry in held.catalog.items()},
        "pools": {key: len(members) for key, members in held.pools.items()},
        "sandboxes": dict(Counter(f"{one['revision']} {one['state']}" for one in held.sandboxes.values())),
        "sessions": {one["session"]: _session(one, held) for one in held.sessions.values()},
        "asked": [len(held.doomed), len(held.waking), len(held.deletes)],
        "platform": sorted(held.platform),
    }


def orphans(held: Held) -> list[str]:
    """What belongs to nobody: pods, claims, policies, accounts, secrets, routes, catalog entries and deaths not proved."""
    there = {body["metadata"]["name"] for body in held.pods}
    agents = {(held.tenants[one["metadata"]["namespace"]], one["metadata"]["name"]) for one in held.agents}
    found = [
        f"pod {name} ({role})" for name in there if (role := held.roles.get(name, "unknown")) in ("unknown", "nobody's")
    ]
    found += [f"route of {name}, which has no pod" for name in held.sandboxes if name not in there]
    found += [f"{name} in a pool" for members in held.pools.values() for name in members if name not in held.sandboxes]
    for body in held.claims:
        role = _claim(body, held)
        if role.endswith(("nobody's", "unknown")):
            found.append(f"claim {body['metadata']['name']} ({role})")
    for kind, bodies in (("policy", held.policies), ("account", held.accounts), ("job", held.jobs)):
        for body in bodies:
            agent = marks.text(body, "labels", marks.AGENT)
            if agent and (held.tenants[body["metadata"]["namespace"]], agent) not in agents:
                found.append(f"{kind} {body['metadata']['name']}")
    builds = {body["metadata"]["uid"] for body in held.jobs}
    for body in held.builders:
        if not builds & {one["uid"] for one in body["metadata"]["ownerReferences"]}:
            found.append(f"pod {body['metadata']['name']} of a build that is gone")
    found += [f"secret {body['metadata']['name']}" for body in held.secrets]
    found += [f"{name} in the catalog" for name in held.catalog if tuple(name.split("/")) not in agents]
    found += [f"{name} is to be ended" for name in held.doomed]
    for one in held.sessions.values():
        volumes = {body["metadata"]["name"] for body in held.claims}
        if one.get("volume") and one["volume"] not in volumes and one["state"] != "deleted":
            found.append(f"session {one['session']} on a volume that is not there")
    return sorted(found)


def _pod(body: dict[str, Any], roles: dict[str, str]) -> str:
    agent, revision = (marks.text(body, "labels", name) for name in (marks.AGENT, marks.REVISION))
    return f"{agent} {revision} {pods.seen(body).state} {roles.get(body['metadata']['name'], 'unknown')}"


def _claim(body: dict[str, Any], held: Held) -> str:
    name, agent = body["metadata"]["name"], marks.text(body, "labels", marks.AGENT)
    whose = marks.bound(body, held.tenants[body["metadata"]["namespace"]])
    if whose is not None:
        session = held.sessions.get(whose[0], {})
        fits = session.get("volume") == name
        return f"{agent} noted for {session.get('session')}" if fits else f"{agent} noted for another, nobody's"
    return f"{agent} {held.roles.get(held.mounted.get(name, ''), 'unknown')}"


def _built(body: dict[str, Any]) -> str:
    """What a Job is of, and what is noted of its end."""
    asked = json.loads(body["spec"]["template"]["metadata"]["annotations"][marks.CONFIG])
    return f"{asked['source']['git']['ref']} {marks.text(body, 'annotations', marks.OUTCOME) or 'runs'}"


def _status(body: dict[str, Any]) -> dict[str, Any]:
    status = dict(body.get("status") or {})
    status["conditions"] = [(one["type"], one["status"], one["reason"]) for one in status.get("conditions", ())]
    return status | {"generation": body["metadata"]["generation"]}


def _entry(entry: dict[str, Any]) -> dict[str, Any]:
    shown = [(one["type"], one["status"], one["reason"]) for one in entry["conditions"]]
    return {"revisions": entry["revisions"], "conditions": shown, "spec": entry["spec"]}


def _session(one: dict[str, str], held: Held) -> str:
    bound = "on files" if one.get("volume") else "without files"
    return f"{one['state']} {bound}" + (" routed" if one.get("sandbox") in held.sandboxes else "")
