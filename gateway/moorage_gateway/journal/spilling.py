"""Answers too large for Redis: an object first, then its name in the journal (turns.md §6). Layer: gateway, I/O rim.

They lie below their response, `t/TENANT/responses/ID/journal/ENTRY.TRY`, and go with it.
"""

from __future__ import annotations

from dataclasses import replace

from moorage_api.ledger.journal import Outcome
from moorage_gateway.clock import Clock
from moorage_gateway.journal.answers import Answer
from moorage_gateway.store import Store, StoreUnavailable
from moorage_gateway.turns import archive

INLINE = 64 * 1024
"""Bytes of an answer that stay in Redis."""
INLINE_ALL = 8 * 2**20
"""Of all answers of one turn."""
TRIES = 5
PAUSE_S = 1.0
REQUEST = 32 * 1024
"""Bytes of a request that are kept for replays, packed; a larger one is not kept."""
_OBJECT = b"@"


def fitting(outcome: Outcome, *, held: int) -> Outcome:
    """Without its request where that is too large, or the journal of its turn is full."""
    return outcome if len(outcome.request) <= REQUEST and held <= INLINE_ALL else replace(outcome, request=b"")


class Spill:
    """Puts answers where they fit."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def put(self, tenant: str, response: str, name: str, answer: Answer, *, held: int) -> bytes:
        """What the journal holds for this answer. `held`: bytes it holds of this turn already. An object store that is away for longer
        does not keep an answer from its agent: Redis takes it then."""
        data = answer.encode()
        if len(data) <= INLINE and held + len(data) <= INLINE_ALL:
            return data
        for _ in range(TRIES):
            try:
                await self._store.put(_key(tenant, response, name), data)
            except StoreUnavailable:
                await self._clock.sleep(PAUSE_S)
            else:
                return _OBJECT + name.encode()
        return data

    async def get(self, tenant: str, response: str, held: bytes) -> Answer | None:
        """The answer behind what the journal holds, None when its object is gone. Raises StoreUnavailable."""
        if not held.startswith(_OBJECT):
            return Answer.decode(held)
        data = await self._store.get(_key(tenant, response, held[1:].decode()))
        return Answer.decode(data) if data is not None else None


def _key(tenant: str, response: str, name: str) -> str:
    return f"{archive.folder(tenant, response)}journal/{name}"
