"""The provider's door: pools, demands, proofs of death (design.md §2, the provider seam)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from moorage_api.catalog import AgentEntry
from moorage_api.catalog import field as catalog_field
from moorage_api.ledger import keys, session_scripts
from moorage_api.ledger.records import Descriptor, SessionIdentity, SessionRecord, fields, text
from moorage_api.ledger.script import Runner
from moorage_api.pod_tokens import PodTokens

TOMBSTONE_S = 3600
ANSWER_S = 60


@dataclass(frozen=True)
class ApplyRequest:
    """A configuration change the gateway hands over. `verb`: apply or delete; `manifest` is the object's JSON."""

    id: str
    verb: str
    tenant: str
    agent: str
    manifest: dict[str, Any]
    by: str


class ProviderLedger:
    """What a provider reads and writes. Every method may raise `Lost` or `Unreachable`."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

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

    async def since(self) -> float:
        """When this ledger was founded (epoch seconds): what it does not know of before that, it may have lost."""
        return int(text(await self._runner.read("HGET", keys.LEDGER, "since")) or 0) / 1000

    async def waking(self, limit: int = 1000) -> list[str]:
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

    async def deletes(self, limit: int = 100) -> list[str]:
        """Deleted sessions whose files must go."""
        return [text(x) for x in await self._runner.read("ZRANGE", keys.DELETES, 0, limit - 1)]

    async def removed(self, session: str) -> None:
        """The files are gone."""
        await self._runner.run(session_scripts.REMOVED, session, TOMBSTONE_S)

    async def label(self, session: str, epoch: int, volume: str, identity: SessionIdentity) -> str:
        """After a loss: a volume that carries this session's marker. OK, KNOWN or DELETED."""
        out = await self._runner.run(
            session_scripts.LABEL, session, epoch, volume, identity.revision, identity.to_json()
        )
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
