"""The provider's door: pools, demands, proofs of death (design.md §2, the provider seam)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from moorage_api.catalog import AgentEntry, EndpointEntry, ToolboxEntry
from moorage_api.catalog import field as catalog_field
from moorage_api.ledger import keys, loss_scripts, move_scripts, session_scripts
from moorage_api.ledger.consents import ConsentLedger
from moorage_api.ledger.records import Descriptor, SessionIdentity, SessionRecord, fields, text
from moorage_api.ledger.routines import RoutineLedger
from moorage_api.ledger.script import Runner
from moorage_api.pod_tokens import PodTokens

# Of each sandbox (A) whether its session runs a turn: 0 where it surely runs none. It only reads, so it needs no guard and costs no write.
_AT_WORK = """
local out = {}
for i, id in ipairs(ARGV) do
  local S = redis.call('HGET', 'x:' .. id, 'session')
  local s = S and S ~= '' and redis.call('HMGET', 's:' .. S, 'state', 'running')
  out[i] = (s and s[1] and (s[2] or '') == '') and 0 or 1
end
return out
"""
# What is asked of a provider, in one command that only reads. A: most of `waking`, most of `deletes`
_ASKED = """
return {redis.call('ZRANGE', 'waking', 0, ARGV[1] - 1), redis.call('HGETALL', 'doomed'), redis.call('HGETALL', 'archived'),
  redis.call('ZRANGE', 'deletes', 0, ARGV[2] - 1), redis.call('HGETALL', 'left')}
"""
MOST_WAKING, MOST_DELETES = 1000, 100
TOMBSTONE_S = 3600
ANSWER_S = 60


@dataclass(frozen=True)
class ApplyRequest:
    """A configuration change the gateway hands over. `verb`: apply or delete; `agent` is the object's name, of whatever `kind`;
    `manifest` is the object's JSON."""

    id: str
    verb: str
    tenant: str
    agent: str
    manifest: dict[str, Any]
    by: str
    kind: str = "HostedAgent"


@dataclass(frozen=True)
class Asked:
    """What waits for a provider. `waking`: sessions that need a sandbox, longest waiting first; `doomed`: sandboxes to end → reason;
    `archived`: session keys → the volume that is to go, what it held is in a verified checkpoint; `deletes`: deleted sessions whose files
    must go; `left`: volumes that were out of reach for too long → the session that has left each."""

    waking: list[str]
    doomed: dict[str, str]
    archived: dict[str, str]
    deletes: list[str]
    left: dict[str, str]


class ProviderLedger:
    """What a provider reads and writes. Every method may raise `Lost` or `Unreachable`."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self.routines = RoutineLedger(runner)
        self.consents = ConsentLedger(runner)

    async def offer(self, descriptor: Descriptor) -> bool:
        """Puts a ready sandbox into its pool. False: this id was offered before in this ledger."""
        return text((await self._runner.run(session_scripts.OFFER, descriptor.to_json()))[0]) == "OK"

    async def pool(self, tenant: str, agent: str, revision: str) -> list[str]:
        """The sandbox ids that wait in a pool."""
        return [text(x) for x in await self._runner.read("LRANGE", keys.pool(tenant, agent, revision), 0, -1)]

    async def session(self, key: str) -> SessionRecord | None:
        """The session as Redis holds it."""
        return SessionRecord.parse(key, await self._runner.read("HGETALL", keys.session(key)))

    async def holder(self, sandbox: str) -> str:
        """The key of the session that a sandbox was claimed for, or "" (unclaimed, or unknown here)."""
        return text(await self._runner.read("HGET", keys.sandbox(sandbox), "session"))

    async def at_work(self, sandboxes: Sequence[str]) -> int:
        """How many of these sandboxes have a session that runs a turn, or may: one whose session is not known here counts. One command."""
        return sum(await self._runner.read("EVAL_RO", _AT_WORK, 0, *sandboxes)) if sandboxes else 0

    async def sandboxes(self) -> list[str]:
        """Every sandbox this ledger knows. A scan: for a provider's start, not for its loop."""
        found: set[str] = set()
        cursor = "0"
        while True:
            raw = await self._runner.read("SCAN", cursor, "MATCH", keys.sandbox("*"), "COUNT", 1000)
            cursor = text(raw[0])
            found.update(text(key).removeprefix(keys.sandbox("")) for key in raw[1])
            if cursor == "0":
                return sorted(found)

    async def identity(self) -> str:
        """Which ledger this is: one that was founded anew after a loss is another, and may have forgotten what the former one knew."""
        return text(await self._runner.read("HGET", keys.LEDGER, "id"))

    async def asked(self) -> Asked:
        """All of it at one instant: a provider looks some times a second, and its commands are most of what a look costs it."""
        found = await self._runner.read("EVAL_RO", _ASKED, 0, MOST_WAKING, MOST_DELETES)
        waking, doomed, archived, deletes, left = found
        ended = [text(x) for x in deletes]
        return Asked([text(x) for x in waking], fields(doomed), fields(archived), ended, fields(left))

    async def waking(self, limit: int = MOST_WAKING) -> list[str]:
        """Sessions that need a sandbox, longest waiting first."""
        return [text(x) for x in await self._runner.read("ZRANGE", keys.WAKING, 0, limit - 1)]

    async def ready(self, session: str, epoch: int, descriptor: Descriptor) -> bool:
        """The sandbox for a waking session. False: destroy what you made."""
        out = await self._runner.run(session_scripts.READY, session, epoch, descriptor.to_json())
        return text(out[0]) == "OK"

    async def unready(self, session: str, epoch: int, reason: str) -> None:
        """Why the demand cannot be met now; whoever waits sees it."""
        await self._runner.run(session_scripts.UNREADY, session, epoch, reason)

    async def doomed(self) -> dict[str, str]:
        """Sandboxes to end, with the reason."""
        return fields(await self._runner.read("HGETALL", keys.DOOMED))

    async def gone(self, sandbox: str, reason: str) -> tuple[str, str]:
        """**F** Every process was seen dead. Returns (session key or "", its new state or "")."""
        out = await self._runner.run(session_scripts.GONE, sandbox, reason)
        return text(out[1]), text(out[2])

    async def doom(self, sandbox: str, reason: str) -> None:
        """Marks a sandbox for the end (quota, lifetime)."""
        await self._runner.run(session_scripts.DOOM, sandbox, reason)

    async def archived(self) -> dict[str, str]:
        """Session keys with the volume that is to go: what it held is in a verified checkpoint."""
        return fields(await self._runner.read("HGETALL", keys.ARCHIVED))

    async def unkept(self, session: str, volume: str) -> None:
        """That volume is gone."""
        await self._runner.run(session_scripts.UNKEPT, session, volume)

    async def out_of_reach(self, sandbox: str, session: str, volume: str, reason: str) -> str:
        """A sandbox (or, where there is none, the volume of a waking session) cannot be reached for too long. FREE: it was nobody's, and
        is in no pool any more; OK: a gateway decides about its session; HEARD: its shim still announces itself; STALE, UNKNOWN."""
        return text((await self._runner.run(move_scripts.OUT_OF_REACH, sandbox, session, volume, reason))[0])

    async def abandoned(self, volume: str) -> None:
        """That volume, which its session has left, is used by nobody again."""
        await self._runner.run(move_scripts.ABANDONED, volume)

    async def deletes(self, limit: int = MOST_DELETES) -> list[str]:
        """Deleted sessions whose files must go."""
        return [text(x) for x in await self._runner.read("ZRANGE", keys.DELETES, 0, limit - 1)]

    async def removed(self, session: str) -> None:
        """The files are gone."""
        await self._runner.run(session_scripts.REMOVED, session, TOMBSTONE_S)

    async def label(self, session: str, epoch: int, volume: str, identity: SessionIdentity) -> str:
        """After a loss: a volume that carries this session's marker. OK, KNOWN or DELETED."""
        out = await self._runner.run(loss_scripts.LABEL, session, epoch, volume, identity.revision, identity.to_json())
        return text(out[0])

    async def publish(self, entry: AgentEntry) -> bool:
        """One agent's catalog entry; False when nothing changed."""
        return text((await self._runner.run(session_scripts.PUBLISH, entry.field, entry.to_json()))[0]) == "OK"

    async def unpublish(self, tenant: str, agent: str) -> None:
        """Takes an agent out of the catalog."""
        await self._runner.run(session_scripts.PUBLISH, catalog_field(tenant, agent), "")

    async def catalog(self) -> list[AgentEntry]:
        """Everything published."""
        return [AgentEntry.from_json(v) for v in fields(await self._runner.read("HGETALL", keys.CATALOG)).values()]

    async def agents(self) -> set[str]:
        """The fields of every agent published."""
        return {text(name) for name in await self._runner.read("HKEYS", keys.CATALOG)}

    async def publish_endpoint(self, entry: EndpointEntry) -> bool:
        """One model endpoint; False when nothing changed."""
        out = await self._runner.run(session_scripts.PUBLISH, entry.field, entry.to_json(), keys.ENDPOINTS)
        return text(out[0]) == "OK"

    async def unpublish_endpoint(self, tenant: str, name: str) -> None:
        """Takes a model endpoint out of the catalog."""
        await self._runner.run(session_scripts.PUBLISH, catalog_field(tenant, name), "", keys.ENDPOINTS)

    async def endpoints(self) -> list[EndpointEntry]:
        """Every model endpoint published."""
        found = fields(await self._runner.read("HGETALL", keys.ENDPOINTS))
        return [EndpointEntry.from_json(body) for body in found.values()]

    async def publish_toolbox(self, entry: ToolboxEntry) -> bool:
        """One toolbox; False when nothing changed."""
        out = await self._runner.run(session_scripts.PUBLISH, entry.field, entry.to_json(), keys.TOOLBOXES)
        return text(out[0]) == "OK"

    async def unpublish_toolbox(self, tenant: str, name: str) -> None:
        """Takes a toolbox out of the catalog."""
        await self._runner.run(session_scripts.PUBLISH, catalog_field(tenant, name), "", keys.TOOLBOXES)

    async def toolboxes(self) -> list[ToolboxEntry]:
        """Every toolbox published."""
        found = fields(await self._runner.read("HGETALL", keys.TOOLBOXES))
        return [ToolboxEntry.from_json(body) for body in found.values()]

    async def set_token_key(self, key: str) -> None:
        """The key that signs sandbox tokens (hex), for gateways to verify with."""
        await self._runner.read("HSET", keys.PLATFORM, "token_key", key)
        await self._runner.read("PUBLISH", keys.HINT_CATALOG, "token_key")

    async def set_pod_tokens(self, said: PodTokens) -> None:
        """What gateways verify the tokens of pods with; from here on they want one of every sandbox.

        Call it before `set_token_key`: a gateway that knows the key alone takes what the key has signed, as on one machine.
        """
        await self._runner.read("HSET", keys.PLATFORM, "pod_tokens", said.to_json())
        await self._runner.read("PUBLISH", keys.HINT_CATALOG, "pod_tokens")

    async def gateways(self, since_ms: int) -> list[str]:
        """Sandbox-port URLs of gateways that gave a beat since then."""
        raw = await self._runner.read("ZRANGEBYSCORE", keys.GATEWAYS, since_ms, "+inf")
        return [text(x) for x in raw]

    async def next_apply(self) -> ApplyRequest | None:
        """The oldest configuration request, taken off the list; None when there is none."""
        raw = await self._runner.read("LPOP", keys.APPLIES)
        return None if raw is None else ApplyRequest(**json.loads(raw))

    async def answer(self, request_id: str, answer: dict[str, Any]) -> None:
        """Answers an apply request; the answer is kept for a minute."""
        key = keys.answer(request_id)
        await self._runner.read("RPUSH", key, json.dumps(answer))
        await self._runner.read("EXPIRE", key, ANSWER_S)
