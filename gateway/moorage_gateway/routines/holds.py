"""What keeps a routine from running beside its manifest, in the object store: `routine-holds/TENANT/NAME.json`. Layer: gateway.

Suspended by hand, or stopped after failures: where Redis has lost the routine's state, this is read back. The state says what the store
was told last (`State.kept`), so that whoever looks at it tells the store what it does not say yet.
"""

from __future__ import annotations

import logging
from dataclasses import replace

import orjson

from moorage_gateway.routines.state import State
from moorage_gateway.store import Store

log = logging.getLogger(__name__)

_FIELDS = ("spec", "timing", "suspended", "stopped", "failures", "incident")


class Holds:
    """Of all routines. Every method raises StoreUnavailable."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def keep(self, tenant: str, routine: str, state: State) -> None:
        """The store says what this state says."""
        if not state.hold:
            await self.forget(tenant, routine)
            return
        said = {name: getattr(state, name) for name in _FIELDS}
        await self._store.put(_key(tenant, routine), orjson.dumps(said))

    async def forget(self, tenant: str, routine: str) -> None:
        """There is nothing to say."""
        await self._store.delete(_key(tenant, routine))

    async def over(self, tenant: str, routine: str, state: State) -> State:
        """A state that was made anew, held as the lost one was."""
        data = await self._store.get(_key(tenant, routine))
        if data is None:
            return state
        try:
            said = orjson.loads(data)
            found = replace(state, **{name: said[name] for name in _FIELDS})
        except (ValueError, TypeError, KeyError):
            log.warning("what holds the routine %s of %s cannot be read; it runs", routine, tenant)
            return state
        return replace(found, kept=found.hold)


def _key(tenant: str, routine: str) -> str:
    return f"routine-holds/{tenant}/{routine}.json"
