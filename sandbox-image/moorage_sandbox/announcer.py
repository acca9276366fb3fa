"""Tells gateways of this sandbox and learns whether it may go on. Layer: I/O rim; what follows from an answer is `shim.py`'s.

Announces at start, when poked (a new binding) and every `announce` seconds with jitter, to one gateway after the other until
one answers.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence

import orjson

from moorage_api.wire.hop import HopError, HopPool
from moorage_api.wire.http1 import Headers
from moorage_api.wire.shim import Announcement, AnnouncementAnswer
from moorage_sandbox.clock import Clock
from moorage_sandbox.config import Limits
from moorage_sandbox.errors import NoProof
from moorage_sandbox.proof import Proof

PATH = "/sandbox/v1/announce"
MAX_ANSWER = 64 * 1024
RETRY_FIRST = 0.25
MAX_GATEWAYS = 32


class Announcer:
    """The loop of announcements. `answered` is told the highest epoch that a gateway knows, `note` why none can be asked."""

    def __init__(
        self,
        gateways: Sequence[str],
        proof: Proof,
        *,
        describe: Callable[[], Announcement],
        answered: Callable[[int], None],
        note: Callable[[str], None],
        clock: Clock,
        limits: Limits,
    ) -> None:
        self._gateways = list(gateways)
        self._proof = proof
        self._describe = describe
        self._answered = answered
        self._note = note
        self._noted = ""
        self._clock = clock
        self._limits = limits
        self._pool = HopPool(max_idle=1)
        self._poked = asyncio.Event()
        self._heard = clock.now()

    @property
    def silence(self) -> float:
        """Seconds since a gateway was heard."""
        return self._clock.now() - self._heard

    @property
    def gateways(self) -> list[str]:
        """Those known, the one that answered last first."""
        return list(self._gateways)

    def heard(self) -> None:
        """A gateway has just shown itself."""
        self._heard = self._clock.now()

    def use(self, gateways: Sequence[str]) -> None:
        """Replaces the known gateways by these, if any."""
        if gateways:
            self._gateways = list(gateways)[:MAX_GATEWAYS]

    def poke(self) -> None:
        """Announce now."""
        self._poked.set()

    async def run(self) -> None:
        """Announces until cancelled."""
        pause = RETRY_FIRST
        while True:
            self._poked.clear()
            if await self._announce():
                pause = RETRY_FIRST
                wait = self._limits.announce * random.uniform(0.8, 1.0)
            else:
                wait = pause * random.uniform(0.8, 1.2)
                pause = min(pause * 2, self._limits.announce)
            try:
                async with asyncio.timeout(wait):
                    await self._poked.wait()
            except TimeoutError:
                continue

    async def close(self) -> None:
        """Lets go of the connections."""
        await self._pool.close()

    async def _announce(self) -> bool:
        try:
            shown = self._proof.headers(b"authorization")
        except NoProof as fault:
            if str(fault) != self._noted:  # once, not at every try
                self._noted = str(fault)
                self._note(f"cannot announce: {fault}")
            return False
        self._noted = ""
        for gateway in list(self._gateways):
            answer = await self._ask(gateway, [*shown, (b"content-type", b"application/json")])
            if answer is None or not answer.ok:
                continue
            # The one that answered is asked first from now on.
            others = answer.gateways or self._gateways
            self._gateways = [gateway, *(each for each in others if each != gateway)][:MAX_GATEWAYS]
            self.heard()
            self._answered(answer.epoch)
            return True
        return False

    async def _ask(self, gateway: str, head: Headers) -> AnnouncementAnswer | None:
        timeout = self._limits.announce_answer
        body = orjson.dumps(self._describe().model_dump())
        try:
            response = await self._pool.request(
                gateway, "POST", PATH, head, body, connect_timeout=timeout, head_timeout=timeout
            )
            async with response:
                text = await response.read(MAX_ANSWER, idle=timeout)
            if response.status != 200:
                return None
            return AnnouncementAnswer.model_validate(orjson.loads(text))
        except (HopError, ValueError):
            return None
