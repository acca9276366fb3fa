"""What lasts of a turn: objects in the store, composed so that whoever writes them writes the same bytes.

open/{id}.json                               accepted, not ended (turns.md §2 row 3); its removal follows row 8
t/{tenant}/responses/{id}/input.json         an input too large for Redis (row 1)
t/{tenant}/responses/{id}/response.json      the ended turn: response, input, record, events (row 8)
t/{tenant}/responses/{id}/lost.json          given up after Redis lost it (turns.md §7); wins over response.json
t/{tenant}/responses/{id}/feedback/{n}.json
platform/ledger.json                         the highest ledger generation seen
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from moorage_api.ledger.records import Entry, TurnRecord
from moorage_gateway.store.base import Store

INLINE_INPUT = 64 * 1024
MAX_FEEDBACK = 100


def folder(tenant: str, response: str) -> str:
    """The prefix of everything stored of one response."""
    return f"t/{tenant}/responses/{response}/"


@dataclass(frozen=True)
class Document:
    """A stored, ended turn."""

    response: dict[str, Any]
    input: list[dict[str, Any]]
    record: dict[str, Any]
    events: list[dict[str, Any]]


class Archive:
    """Reads and writes a turn's objects. Raises StoreUnavailable."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def put_input(self, tenant: str, response: str, items: Sequence[dict[str, Any]]) -> str:
        """What the ledger keeps as `input`: the items themselves, or `@` when they are an object."""
        raw = orjson.dumps(list(items))
        if len(raw) <= INLINE_INPUT:
            return raw.decode()
        await self._store.put(folder(tenant, response) + "input.json", raw)
        return "@"

    async def input(self, tenant: str, response: str, field: str) -> list[dict[str, Any]]:
        """The input items behind the ledger's field."""
        if field != "@":
            return list(json.loads(field or "[]"))
        raw = await self._store.get(folder(tenant, response) + "input.json")
        return list(orjson.loads(raw)) if raw else []

    async def put_accepted(
        self, response: str, *, meta: dict[str, Any], accepted: int, generation: int, queued: bool
    ) -> None:
        """The proof that a turn was accepted (epoch ms), found again when Redis has lost it. `queued`: it had to wait its place."""
        proof = {
            "response": response,
            "meta": meta,
            "accepted": accepted,
            "generation": generation,
            "queued": queued,
        }
        await self._store.put(f"open/{response}.json", orjson.dumps(proof))

    async def accepted(self, response: str) -> dict[str, Any] | None:
        """The acceptance of a turn that has not ended, or None."""
        raw = await self._store.get(f"open/{response}.json")
        return orjson.loads(raw) if raw else None

    async def open_turns(self, after: str = "", limit: int = 1000) -> list[str]:
        """Response ids accepted and not ended, in order."""
        start = f"open/{after}.json" if after else ""
        keys = await self._store.list("open/", after=start, limit=limit)
        return [k[len("open/") : -len(".json")] for k in keys]

    async def settled(self, response: str) -> None:
        """The turn has ended and is stored: it is open no longer."""
        await self._store.delete(f"open/{response}.json")

    async def put_response(self, tenant: str, response: str, document: bytes) -> None:
        """The ended turn. The same bytes whoever writes."""
        await self._store.put(folder(tenant, response) + "response.json", document)

    async def put_lost(self, tenant: str, response: str, document: bytes) -> None:
        """The turn was given up; this object wins over a late response."""
        await self._store.put(folder(tenant, response) + "lost.json", document)

    async def has(self, tenant: str, response: str) -> bool:
        """Whether an end of this turn is stored."""
        return await self.document(tenant, response) is not None

    async def document(self, tenant: str, response: str) -> Document | None:
        """The stored turn, or None."""
        for name in ("lost.json", "response.json"):
            raw = await self._store.get(folder(tenant, response) + name)
            if raw:
                data = orjson.loads(raw)
                return Document(data["response"], data["input"], data["record"], data["events"])
        return None

    async def add_feedback(self, tenant: str, response: str, feedback: dict[str, Any]) -> int:
        """Stores one feedback; returns its number. ValueError when there are too many."""
        prefix = folder(tenant, response) + "feedback/"
        number = len(await self._store.list(prefix, limit=MAX_FEEDBACK + 1))
        if number >= MAX_FEEDBACK:
            raise ValueError(f"a response takes at most {MAX_FEEDBACK} feedbacks")
        await self._store.put(f"{prefix}{number:06d}.json", orjson.dumps(feedback))
        return number

    async def feedback(self, tenant: str, response: str) -> list[dict[str, Any]]:
        """Every feedback on a response, oldest first."""
        found = []
        for key in await self._store.list(folder(tenant, response) + "feedback/", limit=MAX_FEEDBACK):
            raw = await self._store.get(key)
            if raw:
                found.append(orjson.loads(raw))
        return found

    async def delete(self, tenant: str, response: str) -> None:
        """Everything stored of a response goes."""
        await self._store.delete(f"open/{response}.json")
        await self._store.delete_prefix(folder(tenant, response))

    async def generation(self) -> int:
        """The highest ledger generation any gateway stored."""
        raw = await self._store.get("platform/ledger.json")
        return int(orjson.loads(raw)["generation"]) if raw else 0

    async def put_generation(self, generation: int) -> None:
        """Remembers a generation; never a lower one than was read."""
        if generation > await self.generation():
            await self._store.put("platform/ledger.json", orjson.dumps({"generation": generation}))


def compose(
    record: TurnRecord, items: Sequence[dict[str, Any]], log: Sequence[Entry], attempts: Sequence[dict[str, Any]]
) -> bytes:
    """The ended turn's object from what the ledger holds; `log` includes the terminal event. Pure."""
    response = orjson.loads(log[-1].data)["response"]
    document = {
        "response": response,
        "input": list(items),
        "record": describe(record, attempts, record.outcome or str(response.get("status"))),
        "events": [orjson.Fragment(e.data) for e in log],  # as they are: a long turn has thousands
    }
    return orjson.dumps(document, option=orjson.OPT_SORT_KEYS)


def describe(record: TurnRecord, attempts: Sequence[dict[str, Any]], status: str) -> dict[str, Any]:
    """The record of a response as callers with the right see it; attempts that were never acknowledged are left out."""
    meta = record.meta
    started = [a for a in attempts if a.get("started")]
    above = {"called_by": meta["called_by"]} if "called_by" in meta else {}
    return above | {
        "id": record.response,
        "object": "response.record",
        "status": status,
        "tenant": meta.get("tenant"),
        "user": meta.get("user"),
        "agent": meta.get("agent"),
        "revision": meta.get("revision"),
        "session": meta.get("session_id"),
        "trace_id": meta.get("trace_id"),
        "store": meta.get("store", True),
        "background": meta.get("background", False),
        "accepted_at": record.accepted,
        "ended_at": record.ended or None,
        "workspace_checkpoint": None,
        "calls": record.calls,
        "versions": meta.get("versions", {}),
        "attempts": [
            {
                "attempt": n + 1,
                "revision": a.get("revision"),
                "sandbox": a.get("sandbox"),
                "epoch": a.get("epoch"),
                "started_at": a.get("at"),
                "ended_at": a.get("ended"),
                "reason": a.get("fault") or a.get("reason"),
                "detail": a.get("detail") or None,
                "log_tail": a.get("log_tail") or [],
                "events_before": a.get("base"),
                "events_after": a.get("progress"),
            }
            for n, a in enumerate(started)
        ],
    }
