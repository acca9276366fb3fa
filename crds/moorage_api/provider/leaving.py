"""Sessions leave sandboxes and volumes that are out of reach for too long.

Layer: the floor; a part of `loop.Provider`, which owns its tasks. No death is proved there, so nothing of it is used again: a gateway
decides, and moves the session (`move_scripts`); what it has left is abandoned here. Level-triggered as the loop is.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from moorage_api.provider.base import Ledger, Machine, OutOfReach
from moorage_api.provider.demands import Begin
from moorage_api.provider.fleet import Fleet

log = logging.getLogger(__name__)


class Leaving:
    """`begin` runs named work unless it runs already."""

    def __init__(self, fleet: Fleet, ledger: Ledger, machine: Machine, *, begin: Begin) -> None:
        self._fleet = fleet
        self._ledger = ledger
        self._machine = machine
        self._begin = begin
        self._told: set[tuple[str, str]] = set()  # (sandbox, volume) that this ledger knows of

    def tell_again(self) -> None:
        """The ledger was lost, and what it was told."""
        self._told.clear()

    async def look(self) -> None:
        """Tells the ledger what is out of reach; a sandbox that is nobody's is in no pool from here, and is ended when it can be."""
        found = await self._machine.out_of_reach()
        self._told &= {(one.sandbox, one.volume) for one in found}
        for one in found:
            if (one.sandbox, one.volume) in self._told:
                continue
            bound = self._machine.bound(one.tenant, one.agent, one.volume)
            if not one.sandbox and bound is None:
                continue
            word = await self._ledger.out_of_reach(one.sandbox, bound[0] if bound else "", one.volume, one.reason)
            if word == "FREE":
                self._free(one)
            if word in (
                "OK",
                "FREE",
            ):  # else it may be so later: its gateway has not said yet that it waits, or has to write it anew
                self._told.add((one.sandbox, one.volume))

    def _free(self, one: OutOfReach) -> None:
        held = self._fleet.sandboxes.get(one.sandbox)
        if held is not None and not held.session and not held.ending:
            log.warning("%s waited in a pool and is out of reach: %s", one.sandbox, one.reason)
            held.ending = True

    def left(self, volumes: Mapping[str, str]) -> None:
        """Gives up the volumes (→ session) that their sessions have left."""
        for volume, key in volumes.items():
            self._begin(f"leave {volume}", self._leave(volume, key))

    async def _leave(self, volume: str, key: str) -> None:
        for tenant, agent, one in self._machine.volumes():
            if one == volume:
                log.warning("session %s has left the volume %s, which was out of reach", key, volume)
                await self._machine.abandon(tenant, agent, volume)
        held = self._fleet.on_volume(volume)
        if held is not None:  # nobody's, until its end can be proved
            held.session, held.claimed, held.ending = "", False, True
        await self._ledger.abandoned(volume)
