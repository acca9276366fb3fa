"""Runs that ended, in the object store: `routines/TENANT/NAME/SLOT-ID.json`, newest last. Layer: gateway.

An entry is written before the state that forgets the run, so it may be written twice: it has one name. They outlive Redis, and a routine
whose state is lost goes on from the newest.
"""

from __future__ import annotations

import logging

from moorage_gateway.routines.state import NEVER, Ended
from moorage_gateway.store import Store

MOST = 10_000
"""Entries that are looked at: more than any `historyLimit`, each being removed before there are so many."""

_NEVER = tuple(f"{outcome}.json" for outcome in NEVER)  # as the ids of such entries end

log = logging.getLogger(__name__)


class History:
    """Of all routines. Every method raises StoreUnavailable."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def add(self, tenant: str, routine: str, run: Ended) -> None:
        """One more."""
        await self._store.put(f"{_folder(tenant, routine)}{run.slot:016d}-{run.id}.json", run.to_json())

    async def of(self, tenant: str, routine: str, slot: int) -> list[Ended]:
        """What it says of this due time; a run by hand may be of the same instant."""
        keys = await self._store.list(f"{_folder(tenant, routine)}{slot:016d}-")
        found = [_read(data, key) for key in keys if (data := await self._store.get(key)) is not None]
        return [each for each in found if each is not None]

    async def newest(self, tenant: str, routine: str, most: int) -> list[Ended]:
        """The newest first."""
        found: list[Ended] = []
        for key in reversed(await self._keys(tenant, routine)):
            data = await self._store.get(key) if len(found) < most else None
            entry = None if data is None else _read(data, key)
            if entry is not None:
                found.append(entry)
        return found

    async def prune(self, tenant: str, routine: str, keep: int) -> None:
        """Removes the oldest, and never the newest run: due times that were passed over meanwhile may be more than are kept, and a Redis
        that comes back older than it was asks for that one."""
        keys = await self._keys(tenant, routine)
        newest = next((key for key in reversed(keys) if not key.endswith(_NEVER)), "")
        for key in keys[:-keep]:
            if key != newest:
                await self._store.delete(key)

    async def _keys(self, tenant: str, routine: str) -> list[str]:
        return await self._store.list(_folder(tenant, routine), limit=MOST)


def _read(data: bytes, what: str) -> Ended | None:
    try:
        return Ended.from_json(data)
    except (ValueError, TypeError, KeyError):
        log.warning("%s is no entry of a history; it is left out", what)
        return None


def _folder(tenant: str, routine: str) -> str:
    return f"routines/{tenant}/{routine}/"
