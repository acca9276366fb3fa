"""What follows when Redis lost something: one new founding, then everyone writes back what is still known (turns.md §7).

Layer: gateway; decides nothing about turns or sessions, whose restorers the composition registers here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from moorage_api.ledger.script import Lost, Unreachable
from moorage_gateway.ledger_client import LedgerClient


class Recovery:
    """One refounding at a time after a `Lost`; whoever met the loss waits for the same one.

    `restore` (set by the composition) writes back what this process still knows, before anyone goes on.
    """

    def __init__(self, client: LedgerClient, *, stored_generation: Callable[[], Awaitable[int]]) -> None:
        self._client = client
        self._stored = stored_generation
        self._restorers: list[Callable[[], Awaitable[None]]] = []
        self._running: asyncio.Task[None] | None = None
        self._restored = client.identity.ledger
        self.losses = 0

    def adopted(self) -> None:
        """The first `found` of this process is no loss: nothing is restored for it."""
        self._restored = self._client.identity.ledger

    def on_loss(self, restorer: Callable[[], Awaitable[None]]) -> None:
        """Registers what is written back after a loss, in order of registration."""
        self._restorers.append(restorer)

    @property
    def runs(self) -> bool:
        """Whether a recovery runs now: nobody writes into a ledger half restored."""
        return self._running is not None and not self._running.done()

    async def settled(self) -> None:
        """Returns at once, or when the recovery that runs now is over."""
        if self._running is not None and not self._running.done():
            await asyncio.wait([self._running])

    async def recover(self) -> None:
        """Founds the ledger anew and restores. Raises `Unreachable`; a second loss in between starts over."""
        if self._running is None or self._running.done():
            self._running = asyncio.get_running_loop().create_task(self._recover())
        await asyncio.shield(self._running)

    async def _recover(self) -> None:
        ident = self._client.identity
        known = ident.ledger, ident.generation
        for _ in range(8):
            try:
                await self._client.found(stored_generation=await self._stored())
                if self._client.identity.ledger == self._restored:
                    return  # a stale refusal: this loss was mended already
                self.losses += 1
                for restorer in self._restorers:
                    await restorer()
                self._restored = self._client.identity.ledger
                return
            except Lost:
                continue
            except BaseException:
                # Half restored: the next script must be told LOSS again, or it writes before what was lost is back.
                if ident.ledger != self._restored:
                    ident.ledger, ident.generation = known
                raise
        ident.ledger, ident.generation = known
        raise Unreachable("the ledger keeps being lost")
