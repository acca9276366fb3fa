"""A session's files between its sandboxes: what a fresh volume begins from, what is kept of one that ends. Layer: gateway.

turns.md §5, §8. A volume that carries its session over needs none of this; checkpoints are for volumes that go, or are lost.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection

from moorage_api.catalog import AgentEntry
from moorage_api.ledger.records import Claim, SessionRecord
from moorage_api.ledger.sessions import SessionLedger
from moorage_api.wire.checkpoints import Save, Why
from moorage_gateway.checkpoints import Checkpoints, Damaged
from moorage_gateway.upstream import Route, ShimError, Shims

DRAIN_S = 60.0
"""For the checkpoint of a sandbox that ends: callers of its session wait meanwhile."""
VERIFY_S = 900.0
"""For reading a checkpoint whole before a volume goes."""

STAYS = (
    "its files are on a volume that is out of reach ({why}), and it has no checkpoint that can be used. It goes on when the volume is back;"
    " to do without these files, delete the session or use another"
)
"""What callers of a session are told that cannot move."""

log = logging.getLogger("moorage.checkpoints")


class NoFiles(Exception):
    """Its files are in a checkpoint, and none of those can be used."""


class Files:
    """`entry` gives an agent's catalog entry: an agent without a file system has nothing to keep."""

    def __init__(
        self,
        checkpoints: Checkpoints,
        shims: Shims,
        ledger: SessionLedger,
        entry: Callable[[str, str], AgentEntry | None],
    ) -> None:
        self._checkpoints = checkpoints
        self._shims = shims
        self._ledger = ledger
        self._entry = entry

    async def source(self, tenant: str, agent: str, partition: str, claim: Claim, damaged: Collection[str]) -> str:
        """The checkpoint that an unbound claim's fresh volume begins from, "" for none. Raises StoreUnavailable, NoFiles.

        `restore`: it was archived, or the volume that it had is lost.

        volume was its workspace | restore  | checkpoints            | begins from
        -------------------------|----------|------------------------|---------------------------
        yes                      |          |                        | what lies there
        no                       | no       | none                   | nothing: the session is new
        no                       | any      | one that is not damaged| the newest of those
        no                       | any      | none but damaged ones  | NoFiles
        no                       | yes      | none                   | NoFiles
        """
        if claim.kept or not self._kept(tenant, agent):
            return ""
        for one in await self._checkpoints.all(tenant, partition):
            if one.id not in damaged:
                return one.id
        if claim.restore or await self._checkpoints.any(tenant, partition):
            raise NoFiles(
                "its volume is gone, and its checkpoints are missing or damaged; see the gateway's log, then delete the session"
            )
        return ""

    async def keep(self, record: SessionRecord, route: Route, why: Why) -> str:
        """The id of a checkpoint of a sandbox that is about to end, "" for none: then its volume stays all there is, and that is told."""
        if not self._kept(record.tenant, record.agent):
            return ""
        call = Save(session=record.key, epoch=record.epoch, why=why, deadline=DRAIN_S)
        try:
            made = await self._shims.save(route, call)
        except ShimError as fault:
            log.warning("no checkpoint of session %s before its sandbox ends: %s", record.key, fault)
            return ""
        return made.id if made.quiet else ""

    async def archive(self, record: SessionRecord) -> bool:
        """Lets the volume of a hibernated session go once the checkpoint that was made of it then was read whole.

        Raises StoreUnavailable, LedgerError.
        """
        one = await self._checkpoints.get(record.tenant, record.partition, record.saved)
        if one is None:
            return False
        try:
            async with asyncio.timeout(VERIFY_S):
                await self._checkpoints.verify(record.tenant, record.partition, one)
        except (Damaged, TimeoutError) as fault:
            log.error("session %s is not archived: %s", record.key, fault or "its checkpoint cannot be read in time")
            return False
        return await self._ledger.archive(record.key, record.epoch, record.saved) == "OK"

    async def move(self, record: SessionRecord) -> bool:
        """Has a session leave a volume that is out of reach, for its newest checkpoint that can be read whole; without files, for nothing.

        False: it has files, and no such checkpoint: it waits for the volume. Raises StoreUnavailable, LedgerError.
        """
        at = (record.key, record.epoch, record.volume)
        if not record.has_files or not self._kept(record.tenant, record.agent):
            return await self._ledger.move(*at, restore=False) == "OK"
        if await self._usable(record):
            return await self._ledger.move(*at, restore=True) == "OK"
        await self._ledger.stay(*at, STAYS.format(why=record.out))
        return False

    async def _usable(self, record: SessionRecord) -> bool:
        """Whether one of its checkpoints can be read whole: a binding takes the newest, and goes back from a damaged one to the next."""
        for one in await self._checkpoints.all(record.tenant, record.partition):
            try:
                async with asyncio.timeout(VERIFY_S):
                    await self._checkpoints.verify(record.tenant, record.partition, one)
            except (Damaged, TimeoutError) as fault:
                log.error("session %s cannot move to %s: %s", record.key, one.id, fault or "it cannot be read in time")
            else:
                return True
        return False

    def _kept(self, tenant: str, agent: str) -> bool:
        entry = self._entry(tenant, agent)
        workspace = (entry.spec.get("workspace") or {}) if entry is not None else {}
        return bool(workspace.get("fileSystem", True))
