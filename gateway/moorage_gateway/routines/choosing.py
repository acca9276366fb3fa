"""A run as what its routine says, a turn or an invocation: the one door by which the scheduler reaches both. Layer: gateway.

What has begun is told by its id, since a manifest may change meanwhile; what is to begin by the manifest.
"""

from __future__ import annotations

from collections.abc import Iterable

from moorage_gateway.routines.invoking import Invoking
from moorage_gateway.routines.known import Known
from moorage_gateway.routines.running import Running
from moorage_gateway.routines.state import Run, State, Turn, is_invocation


class Choosing:
    """See `Running`."""

    def __init__(self, turns: Running, invocations: Invoking) -> None:
        self._turns = turns
        self._invocations = invocations

    async def accept(self, tenant: str, known: Known, state: State, run: Run) -> str:
        """What names the run's newest try: it is persisted when this returns."""
        return await self._for(known).accept(tenant, known, state, run)

    def response(self, tenant: str, known: Known, run: Run) -> str:
        """The id that a run's newest try has, accepted or not."""
        return self._for(known).response(tenant, known, run)

    async def carry(self, tenant: str, run: Run) -> None:
        """A try has failed and another follows. An invocation has no journal, and leaves nothing."""
        if not any(is_invocation(each) for each in run.responses[-1:]):
            await self._turns.carry(tenant, run)

    async def look(self, tenant: str, name: str) -> Turn:
        """How it stands."""
        return await self._of(name).look(tenant, name)

    async def ended(self, tenant: str, name: str) -> Turn:
        """How it ended: waits for that."""
        return await self._of(name).ended(tenant, name)

    async def cancel(self, tenant: str, name: str) -> None:
        """Stops it."""
        await self._of(name).cancel(tenant, name)

    async def forget(self, tenant: str, names: Iterable[str]) -> None:
        """What ended is in the history. A turn's response stays."""
        await self._invocations.forget(tenant, filter(is_invocation, names))

    def _for(self, known: Known) -> Running | Invoking:
        return self._invocations if known.spec.protocol == "invocations" else self._turns

    def _of(self, name: str) -> Running | Invoking:
        return self._invocations if is_invocation(name) else self._turns
