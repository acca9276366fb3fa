"""Durable session records: whose session it is, kept in the object store for as long as the session lives.

Layer: gateway, called by `sessions.py`. Redis holds the living session; these records say after a loss which sessions are new,
and rebuild the listing. Versions are immutable objects `t/TENANT/sessions/PARTITION/vN.json`; the highest one counts. Writing
goes on behind the request, retried until it is done: a store that is down does not stop a session.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, replace

from moorage_gateway.clock import Clock
from moorage_gateway.store import Store, StoreUnavailable

log = logging.getLogger("moorage.sessions")

WRITES = 512  # records on their way; beyond that a request waits for its own
RETRY_FIRST = 0.2  # seconds, doubled up to …
RETRY_LAST = 10.0

OPEN = "open"
DELETING = "deleting"


@dataclass(frozen=True)
class StoredSession:
    """One version of a session's record. `created` in epoch ms."""

    tenant: str
    agent: str
    user: str
    session: str
    partition: str
    revision: str
    created: int
    state: str = OPEN
    version: int = 1

    def to_bytes(self) -> bytes:
        """Canonical JSON: a repeated write writes the same bytes."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> StoredSession:
        """The record behind `to_bytes`; ValueError or TypeError on anything else."""
        return cls(**json.loads(data))


def folder(tenant: str, partition: str) -> str:
    """Where the versions of one session's record are."""
    return f"t/{tenant}/sessions/{partition}/"


class SessionRecords:
    """Reads and writes the records. `aclose` waits for what is on its way."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._writes: dict[str, asyncio.Task[None]] = {}

    async def load(self, tenant: str, partition: str) -> StoredSession | None:
        """The newest version, None when there is no such session. Raises StoreUnavailable."""
        versions = await self._store.list(folder(tenant, partition))
        data = await self._store.get(versions[-1]) if versions else None
        return self._parsed(data, partition) if data is not None else None

    async def remember(self, record: StoredSession) -> None:
        """Writes the first version behind the caller's back; waits only when too many are on their way."""
        where = folder(record.tenant, record.partition)
        if where in self._writes:
            return
        task = asyncio.create_task(self._write_until_done(record))
        self._writes[where] = task
        task.add_done_callback(lambda _: self._writes.pop(where, None))
        if len(self._writes) > WRITES:
            await asyncio.shield(task)

    async def durable(self, tenant: str, partition: str) -> None:
        """Returns when the record, if one is on its way, is stored."""
        task = self._writes.get(folder(tenant, partition))
        if task is not None:
            await asyncio.shield(task)

    async def mark_deleting(self, record: StoredSession) -> None:
        """A version that says that the session ends, so that no loss of Redis brings it back. Raises StoreUnavailable."""
        await self._put(replace(record, state=DELETING, version=record.version + 1))

    async def remove(self, tenant: str, partition: str) -> None:
        """Every version goes. Raises StoreUnavailable."""
        pending = self._writes.pop(folder(tenant, partition), None)
        if pending is not None:
            pending.cancel()
            await asyncio.wait({pending})
        await self._store.delete_prefix(folder(tenant, partition))

    async def all(self, tenant: str) -> AsyncIterator[StoredSession]:
        """The newest version of each of the tenant's records. Raises StoreUnavailable."""
        after, newest = "", ""
        while page := await self._store.list(f"t/{tenant}/sessions/", after=after):
            for key in page:
                if newest and newest.rpartition("/")[0] != key.rpartition("/")[0]:
                    async for record in self._one(newest):
                        yield record
                newest = key
            after = page[-1]
        if newest:
            async for record in self._one(newest):
                yield record

    async def aclose(self) -> None:
        """Waits up to five seconds for records on their way; what is left then is named in the log."""
        if self._writes:
            _, late = await asyncio.wait(set(self._writes.values()), timeout=5)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)
                log.error("%d session records could not be stored before the end", len(late))

    async def _one(self, key: str) -> AsyncIterator[StoredSession]:
        data = await self._store.get(key)
        record = self._parsed(data, key) if data is not None else None
        if record is not None:
            yield record

    async def _write_until_done(self, record: StoredSession) -> None:
        wait = RETRY_FIRST
        while True:
            try:
                return await self._put(record)
            except StoreUnavailable as error:
                log.warning("the record of session %s is not stored yet: %s", record.partition, error)
            await self._clock.sleep(wait)
            wait = min(2 * wait, RETRY_LAST)

    async def _put(self, record: StoredSession) -> None:
        await self._store.put(f"{folder(record.tenant, record.partition)}v{record.version:06d}.json", record.to_bytes())

    def _parsed(self, data: bytes, where: str) -> StoredSession | None:
        try:
            return StoredSession.from_bytes(data)
        except (ValueError, TypeError):
            log.error("the session record at %s cannot be read: it is passed over", where)
            return None
