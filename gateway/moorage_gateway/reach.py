"""Who the gateways are: each beats for its sandbox port in Redis, and shims announce themselves to those that do.

Layer: gateway, I/O rim. `Neighbours` runs as a task.
"""

from __future__ import annotations

import logging

from moorage_api.ledger import keys
from moorage_api.ledger.records import text
from moorage_api.ledger.script import Runner, Unreachable
from moorage_gateway.clock import Clock

BEAT_SECONDS = 3.0
BELIEVED_SECONDS = 15.0

log = logging.getLogger(__name__)


class Neighbours:
    """Beats for this gateway's sandbox port in Redis, and knows the ports of all that beat. Ours is always among them."""

    def __init__(self, runner: Runner, clock: Clock) -> None:
        self._runner = runner
        self._clock = clock
        self._own = ""
        self._all: tuple[str, ...] = ()

    def serve(self, url: str) -> None:
        """Our sandbox port listens here."""
        self._own = url
        self._all = (url,)

    def urls(self) -> tuple[str, ...]:
        """The sandbox ports a shim may announce itself to, ours first."""
        return self._all

    async def beat(self) -> None:
        """One beat and one look. Raises LedgerError."""
        now = self._clock.now_ms()
        await self._runner.read("ZADD", keys.GATEWAYS, now, self._own)
        oldest = now - int(BELIEVED_SECONDS * 1000)
        await self._runner.read("ZREMRANGEBYSCORE", keys.GATEWAYS, "-inf", f"({oldest}")
        found = [text(raw) for raw in await self._runner.read("ZRANGEBYSCORE", keys.GATEWAYS, oldest, "+inf")]
        self._all = (self._own, *sorted(url for url in found if url != self._own))

    async def leave(self) -> None:
        """This gateway stops: nobody should announce here any more."""
        if self._own:
            await self._runner.read("ZREM", keys.GATEWAYS, self._own)

    async def run(self) -> None:
        """Beats until cancelled."""
        while True:
            try:
                await self.beat()
            except Unreachable:
                log.info("Redis does not answer; the list of gateways stays as it was")
            await self._clock.sleep(BEAT_SECONDS)
