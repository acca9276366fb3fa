"""What is wrong with an upstream's `oauth`, for whoever wrote it: users cannot mend it. Layer: engine; I/O by Redis.

Told where toolboxes are listed, and in a cluster by the Toolbox' status, for a day after it was seen last, and until a token comes or the
manifest's `oauth` is another.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from moorage_api.ledger.consents import ConsentLedger, Wrong, named
from moorage_api.ledger.script import LedgerError
from moorage_gateway.clock import Clock
from moorage_gateway.consents.shapes import Subject

log = logging.getLogger(__name__)


class Diagnosis:
    """Keeps them. No call waits for more of it than one command, nor fails with it."""

    def __init__(self, ledger: ConsentLedger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock

    async def found(self, subject: Subject, oauth: Mapping[str, Any], says: str) -> None:
        """Something is wrong with that one."""
        log.warning("oauth of %s/%s of tenant %s: %s", subject.toolbox, subject.upstream, subject.tenant, says)
        await self._written(subject, Wrong(says, named(oauth), self._clock.now_ms() // 1000))

    async def mended(self, subject: Subject) -> None:
        """Nothing is."""
        await self._written(subject, None)

    async def of(self, tenant: str) -> dict[tuple[str, str], Wrong]:
        """By toolbox and upstream. Raises LedgerError."""
        return await self._ledger.wrongs(tenant, self._clock.now_ms() / 1000)

    async def _written(self, subject: Subject, found: Wrong | None) -> None:
        try:
            await self._ledger.wrong(subject.tenant, subject.toolbox, subject.upstream, found)
        except LedgerError:
            log.info("what is wrong with a toolbox is not told: Redis does not answer")
