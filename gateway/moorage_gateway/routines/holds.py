"""What of a routine outlives Redis beside its history, in the object store: `routine-holds/TENANT/NAME/VERSION.json`. Layer: gateway.

That it is suspended by hand, or stopped after failures, and the run that goes on: where Redis has lost the routine's state, this is read
back. The state says what the store was told last (`State.kept`), so that whoever looks at it tells the store what it does not say yet,
before anything is sent.

Each is written once, under the version of the state that it is of, and the newest counts: what a deadline gave up and lands later says
nothing any more.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, replace
from typing import Any

import orjson

from moorage_gateway.routines.state import Run, State
from moorage_gateway.store import Store

log = logging.getLogger(__name__)

_FIELDS = ("spec", "timing", "cursor", "suspended", "stopped", "failures", "incident")


class Holds:
    """Of all routines. Every method raises StoreUnavailable."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def keep(self, tenant: str, routine: str, version: int, state: State) -> State:
        """The store says what this state says, which Redis has under this version; the state that knows so."""
        said: dict[str, Any] = {name: getattr(state, name) for name in _FIELDS}
        said |= {
            "run": asdict(state.run) if state.run is not None else None,
            "queue": state.queue,
            "ending": state.ending,
        }
        own = f"{_folder(tenant, routine)}{version:020d}.json"
        await self._store.put(own, orjson.dumps(said))
        for key in await self._store.list(_folder(tenant, routine)):
            if key < own:
                await self._store.delete(key)
        return replace(state, kept=state.hold)

    async def forget(self, tenant: str, routine: str) -> None:
        """The routine is gone."""
        await self._store.delete_prefix(_folder(tenant, routine))

    async def over(self, tenant: str, routine: str, state: State, since: int = 0) -> State:
        """A state that was made anew, held as the lost one was, with the run that went on. That may have ended: then the history has it, as
        it has due times up to `since`."""
        keys = await self._store.list(_folder(tenant, routine))
        data = await self._store.get(keys[-1]) if keys else None
        if data is None:
            return state
        try:
            found = _held(state, orjson.loads(data), since)
        except (ValueError, TypeError, KeyError):
            log.warning("what holds the routine %s of %s cannot be read; it runs", routine, tenant)
            return state
        return replace(found, kept=found.hold)


def _held(state: State, said: dict[str, Any], since: int) -> State:
    """Raises ValueError, TypeError or KeyError for what this version does not know."""
    found = replace(state, **{name: said[name] for name in _FIELDS})
    run = said["run"]
    return replace(
        found,
        cursor=max(int(found.cursor), since),
        run=Run(**{**run, "responses": tuple(run["responses"])}) if run is not None else None,
        queue=tuple(said["queue"]),
        ending=tuple(said["ending"]),
    )


def _folder(tenant: str, routine: str) -> str:
    return f"routine-holds/{tenant}/{routine}/"
