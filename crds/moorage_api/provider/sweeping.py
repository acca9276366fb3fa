"""What nobody holds goes: sandboxes, volumes, and the ledger's memory of sandboxes that are gone.

Layer: the floor; a part of `loop.Provider`, which owns its tasks. Level-triggered as the loop is.
"""

from __future__ import annotations

from moorage_api.provider.base import Ledger, Machine
from moorage_api.provider.demands import Begin, End
from moorage_api.provider.fleet import Fleet


class Sweeper:
    """`begin` runs named work unless it runs already, `end` ends a sandbox."""

    def __init__(self, fleet: Fleet, ledger: Ledger, machine: Machine, *, begin: Begin, end: End) -> None:
        self._fleet = fleet
        self._ledger = ledger
        self._machine = machine
        self._begin = begin
        self._end = end

    async def sweep(self) -> None:
        """One look over everything there is. Of a machine whose sandboxes end with the provider only at its start: it knows no strays."""
        held, there = self._fleet.sandboxes, self._machine.strays()
        for sandbox in there:
            if sandbox not in held:
                self._begin(f"end {sandbox}", self._end(sandbox, "nobody asks for it any more"))
        if self._machine.outlives:
            for sandbox in await self._ledger.sandboxes():
                if sandbox not in held and sandbox not in there:
                    self._begin(f"end {sandbox}", self._end(sandbox, "it ended while no provider looked"))
        for tenant, agent, volume in self._machine.volumes():
            if self._machine.bound(tenant, agent, volume) is None and self._fleet.on_volume(volume) is None:
                origin = self._machine.origin(tenant, agent, volume)
                if origin is None or await self._free(*origin):
                    await self._machine.remove_volume(tenant, agent, volume)

    async def _free(self, sandbox: str, ledger: str) -> bool:
        """Whether no session was ever bound to what that sandbox ran on. Another ledger than its own may have lost one: then not."""
        if sandbox in self._fleet.sandboxes or await self._ledger.holder(sandbox):
            return False
        return bool(ledger) and await self._ledger.identity() == ledger
