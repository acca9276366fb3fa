"""What is wrong with an upstream's `oauth`, for whoever wrote it: users cannot mend it. Layer: engine; I/O by Redis.

Told where toolboxes are listed, for a day after it was seen last, and until a token comes or the manifest says otherwise.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from moorage_api.ledger.consents import ConsentLedger
from moorage_api.ledger.script import LedgerError
from moorage_gateway.clock import Clock
from moorage_gateway.consents.shapes import Subject

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Problem:
    """`says` what is wrong; `binding`: of which manifest (`shapes.binding`); `at`: when it was seen last (epoch s)."""

    says: str
    binding: str
    at: int


class Diagnosis:
    """Keeps them. No call waits for more of it than one command, nor fails with it."""

    def __init__(self, ledger: ConsentLedger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock

    async def found(self, subject: Subject, binding: str, says: str) -> None:
        """Something is wrong."""
        log.warning("oauth of %s/%s of tenant %s: %s", subject.toolbox, subject.upstream, subject.tenant, says)
        body: dict[str, str | int] = {"says": says, "binding": binding, "at": self._clock.now_ms() // 1000}
        await self._written(subject, body)

    async def mended(self, subject: Subject) -> None:
        """Nothing is."""
        await self._written(subject, None)

    async def of(self, tenant: str) -> dict[tuple[str, str], Problem]:
        """By toolbox and upstream. Raises LedgerError."""
        found = await self._ledger.wrongs(tenant)
        return {key: Problem(str(each["says"]), str(each["binding"]), int(each["at"])) for key, each in found.items()}

    async def _written(self, subject: Subject, body: dict[str, str | int] | None) -> None:
        try:
            await self._ledger.wrong(subject.tenant, subject.toolbox, subject.upstream, body)
        except LedgerError:
            log.info("what is wrong with a toolbox is not told: Redis does not answer")
