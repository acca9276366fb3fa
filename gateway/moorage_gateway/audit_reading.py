"""Reading and proving the audit chains. Layer: gateway, called by the control API and `moorage audit`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from moorage_api.ledger import keys
from moorage_api.ledger.records import fields, text
from moorage_gateway.audit import LISTED, START, seal
from moorage_gateway.keys import Commands
from moorage_gateway.store import Store

READ_AT_ONCE = 16


@dataclass(frozen=True)
class Verification:
    """What a chain proves. `problem` says what is wrong and where; `anchored`: the head in Redis vouches for the tail."""

    writer: str
    ok: bool
    records: int
    anchored: bool
    problem: str | None = None
    sequence: int | None = None


async def writers(store: Store, commands: Commands) -> list[str]:
    """Every chain that the store or Redis knows of: one whose objects are all gone is found by its head."""
    found = {text(writer) for writer in await commands.read("SMEMBERS", keys.AUDIT_WRITERS)}
    after = "audit/"
    while page := await store.list("audit/", after=after, limit=1):
        writer = page[0].split("/")[1]
        found.add(writer)
        after = f"audit/{writer}/~"  # behind every segment of this chain
    return sorted(found)


async def verify(store: Store, commands: Commands, writer: str) -> Verification:
    """Walks one chain from its start and compares its end with the head in Redis. Raises what store and Redis raise."""
    # The head is read first: records written while we walk can only make the chain longer than it says.
    head = fields(await commands.read("HGETALL", keys.audit_head(writer)))
    head_sequence = int(head.get("sequence") or 0)
    previous, sequence, hash_at_head = START, 0, START
    segment = 0
    async for key in _segments(store, writer):
        segment += 1
        if key != f"audit/{writer}/{segment:08d}.jsonl":
            return Verification(writer, False, sequence, False, f"segment {segment} is missing", sequence + 1)
        for line in (await store.get(key) or b"").splitlines():
            record = _parsed(line)
            problem = _problem(record, writer, sequence + 1, previous)
            if problem is not None:
                return Verification(writer, False, sequence, False, f"{problem} (in {key})", sequence + 1)
            assert record is not None
            previous, sequence = record["hash"], sequence + 1
            if sequence == head_sequence:
                hash_at_head = previous
    if head_sequence > sequence:
        missing = f"the tail is cut: {head_sequence} records were written, {sequence} are there"
        return Verification(writer, False, sequence, True, missing, sequence + 1)
    if head and hash_at_head != head.get("hash"):
        return Verification(writer, False, sequence, True, "the chain is not the one Redis vouches for", head_sequence)
    return Verification(writer, True, sequence, bool(head))


async def since(
    store: Store, commands: Commands, tenant: str, start_ms: int, *, limit: int = LISTED
) -> tuple[list[dict[str, Any]], bool]:
    """The tenant's records from `start_ms` on, oldest first, at most `limit` of the newest; and whether there are more."""
    found: list[dict[str, Any]] = []
    gate = asyncio.Semaphore(READ_AT_ONCE)

    async def newest(writer: str) -> list[dict[str, Any]]:
        async with gate:
            keys = [key async for key in _segments(store, writer)]
            return await _newest(store, keys, tenant, start_ms, limit)

    for records in await asyncio.gather(*(newest(writer) for writer in await writers(store, commands))):
        found += records
    found.sort(key=lambda record: (record["time"], record["writer"], record["sequence"]))
    return found[-limit:], len(found) > limit


async def _newest(store: Store, keys: list[str], tenant: str, start_ms: int, limit: int) -> list[dict[str, Any]]:
    """Reads segments from the end, and stops at the first that is older, or when there are enough."""
    found: list[dict[str, Any]] = []
    for end in range(len(keys), 0, -READ_AT_ONCE):
        bodies = await asyncio.gather(*(store.get(key) for key in keys[max(0, end - READ_AT_ONCE) : end]))
        records = [record for body in bodies for line in (body or b"").splitlines() if (record := _parsed(line))]
        found += [r for r in records if r.get("tenant") == tenant and _time(r) >= start_ms]
        if len(found) > limit or (records and _time(records[0]) < start_ms):
            break
    return found


async def _segments(store: Store, writer: str) -> AsyncIterator[str]:
    after = ""
    while page := await store.list(f"audit/{writer}/", after=after):
        for key in page:
            yield key
        after = page[-1]


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _time(record: dict[str, Any]) -> int:
    time = record.get("time")
    return time if isinstance(time, int) else 0


def _problem(record: dict[str, Any] | None, writer: str, sequence: int, previous: str) -> str | None:
    if record is None:
        return f"record {sequence} cannot be read"
    if record.get("writer") != writer or record.get("sequence") != sequence:
        return f"record {sequence} is missing or out of place"
    if record.get("previous") != previous:
        return f"record {sequence} does not follow the one before it"
    bare = {name: value for name, value in record.items() if name not in ("hash", "previous")}
    if seal(bare, previous)["hash"] != record.get("hash"):
        return f"record {sequence} was altered"
    return None
