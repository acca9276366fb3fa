"""The same session of a tool server for every gateway, so that what it keeps there outlives each of them. Layer: engine; I/O by Redis.

Without Redis a gateway goes on with what it has itself, and begins a session where it has none.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable

from moorage_api.ledger.script import LedgerError
from moorage_api.ledger.tool_sessions import ServerSession, ToolSessionLedger
from moorage_gateway.tools.sessions import IDLE_S, Kept, Key

AGAIN_S = 60.0
"""Until a use is told anew."""
MOST_ID = 1024
"""A longer id is this gateway's alone."""


class SharedSessions:
    """See the module. `now` in seconds that only go forward."""

    def __init__(self, ledger: ToolSessionLedger, now: Callable[[], float]) -> None:
        self._ledger = ledger
        self._now = now

    async def found(self, key: Key) -> ServerSession | None:
        """One that another gateway began."""
        try:
            return await self._ledger.use(_place(key))
        except LedgerError:
            return None

    async def begun(self, key: Key, fresh: ServerSession) -> ServerSession:
        """Which one counts: `fresh`, or that of another gateway that was quicker."""
        if len(fresh.id) > MOST_ID:
            return fresh
        try:
            return await self._ledger.use(_place(key), fresh) or fresh
        except LedgerError:
            return fresh

    async def used(self, key: Key, kept: Kept) -> ServerSession:
        """Tells the others, once in a while, and asks which one counts: `kept`, also where Redis was emptied, or one of theirs."""
        mine = ServerSession(kept.version, kept.id, kept.title)
        if self._now() - kept.told < AGAIN_S:
            return mine
        kept.told = self._now()
        return await self.begun(key, mine)

    async def forgotten(self, key: Key, kept: Kept) -> None:
        """The server does not know it any more."""
        await self._ended(key, kept, 0)

    async def over(self, key: Key, kept: Kept) -> bool:
        """Whether nobody uses it, so that its server is told goodbye: by one gateway."""
        return await self._ended(key, kept, 0 if kept.last else int(IDLE_S * 1000))

    async def _ended(self, key: Key, kept: Kept, idle_ms: int) -> bool:
        if len(kept.id) > MOST_ID:
            return True
        try:
            return await self._ledger.end(_place(key), kept.id, idle_ms)
        except LedgerError:
            return kept.last


def first_number() -> int:
    """Of requests in a session that another gateway began, too: no two have the same, and none more than JSON's numbers carry exactly."""
    return (1 + secrets.randbelow(2**20)) * 2**32


def _place(key: Key) -> str:
    return hashlib.sha256(json.dumps(key).encode()).hexdigest()
