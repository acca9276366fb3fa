"""What is kept of a run's invocations, in the object store: `routine-invocations/TENANT/ID/FENCE-STATUS.json`. Layer: gateway.

One is written before the request is sent, so that a loss of Redis sends none twice, and one with what became of it; all of them go when the
run is in the history. The newest counts, by the fence of whoever wrote it: a write that its deadline gave up may land at any time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import orjson

from moorage_gateway.routines.state import Run, Turn
from moorage_gateway.store import Store

INTERRUPTED = "interrupted: nobody knows what became of it"


@dataclass(frozen=True)
class Invocation:
    """One try. `status`: `open` until somebody knows, or says that nobody will."""

    run: str
    number: int
    status: Literal["open", "completed", "failed", "cancelled"] = "open"
    output: str = ""
    error: str = ""

    @classmethod
    def of(cls, run: Run) -> Invocation:
        """The run's newest try, which is about to be sent."""
        return cls(run.id, run.number)

    @property
    def turn(self) -> Turn:
        """In a routine's words."""
        return Turn(self.status, self.output, self.error)


class Invocations:
    """Of all routines. Every method raises StoreUnavailable."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def put(self, tenant: str, name: str, fence: int, invocation: Invocation) -> None:
        """As it is now, says who has the lease under this fence; an end counts over `open`."""
        ended = "open" if invocation.status == "open" else "over"  # sorted so
        await self._store.put(f"{_folder(tenant, name)}{fence:020d}-{ended}.json", orjson.dumps(asdict(invocation)))

    async def get(self, tenant: str, name: str) -> Invocation | None:
        """None where there is none; one that cannot be read is an interrupted one."""
        keys = await self._store.list(_folder(tenant, name))
        data = await self._store.get(keys[-1]) if keys else None
        if data is None:
            return None
        try:
            found: dict[str, Any] = orjson.loads(data)
            return Invocation(**found)
        except (ValueError, TypeError):
            return Invocation("", 0, "failed", error=f"{INTERRUPTED}: its record cannot be read")

    async def forget(self, tenant: str, names: Iterable[str]) -> None:
        """They are in the history."""
        for name in names:
            await self._store.delete_prefix(_folder(tenant, name))


def _folder(tenant: str, name: str) -> str:
    return f"routine-invocations/{tenant}/{name}/"
