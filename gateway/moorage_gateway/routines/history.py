"""Runs that ended, in the object store: `routines/TENANT/NAME/SLOT-ID.json`, newest last. Layer: gateway.

An entry is written before the state that forgets the run, so it may be written twice: it has one name. They outlive Redis, and a routine
whose state is lost goes on from the newest.
"""

from __future__ import annotations

import logging

from moorage_gateway.routines.state import Ended
from moorage_gateway.store import Store

MOST = 10_000
"""Entries that are looked at: more than any `historyLimit`, each being removed before there are so many."""

log = logging.getLogger(__name__)


class History:
    """Of all routines. Every method raises StoreUnavailable."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def add(self, tenant: str, routine: str, run: Ended) -> None:
        """One more."""
        await self._store.put(f"{_folder(tenant, routine)}{run.slot:016d}-{run.id}.json", run.to_json())

    async def newest(self, tenant: str, routine: str, most: int) -> list[Ended]:
        """The newest first."""
        found: list[Ended] = []
        for key in reversed(await self._keys(tenant, routine)):
            data = await self._store.get(key) if len(found) < most else None
            if data is None:
                continue
            try:
                found.append(Ended.from_json(data))
            except (ValueError, TypeError, KeyError):
                log.warning("%s is no entry of a history; it is left out", key)
        return found

    async def prune(self, tenant: str, routine: str, keep: int) -> None:
        """Removes the oldest."""
        for key in (await self._keys(tenant, routine))[:-keep]:
            await self._store.delete(key)

    async def _keys(self, tenant: str, routine: str) -> list[str]:
        return await self._store.list(_folder(tenant, routine), limit=MOST)


def _folder(tenant: str, routine: str) -> str:
    return f"routines/{tenant}/{routine}/"
