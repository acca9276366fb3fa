"""Answers into the journal, whole. Layer: engine."""

from __future__ import annotations

import functools

from moorage_api.ledger.journal import NOTHING, Asking, Binding, JournalLedger, Outcome, Started
from moorage_gateway.clock import Clock
from moorage_gateway.journal.answers import Answer
from moorage_gateway.journal.handing import SMALL
from moorage_gateway.journal.insisting import RETRY_S, Insisting
from moorage_gateway.journal.spilling import Spill, fitting

RECORD_S = 600.0
"""For an answer that has come to be recorded."""
ABSENT_S = 30.0
"""For its owner to restore a turn that Redis has lost."""


class Recording:
    """Records what calls came to, by whoever made them."""

    def __init__(self, ledger: JournalLedger, insist: Insisting, spill: Spill, clock: Clock) -> None:
        self._ledger = ledger
        self._insist = insist
        self._spill = spill
        self._clock = clock

    async def made(
        self, asking: Asking, started: Started, executor: str, tenant: str, answer: Answer, outcome: Outcome
    ) -> str:
        """A call of this gateway's has its whole answer. OK, a word of the script's, or that Redis is away."""
        name = f"{started.entry}.{started.tried}"
        data = await self._spill.put(tenant, asking.response, name, answer, held=started.octets)
        return await self.completed(asking, started, executor, "completed", data, outcome=outcome)

    async def reported(self, binding: Binding, asking: Asking, started: Started, executor: str, answer: Answer) -> str:
        """A call that its attempt made has this answer. As `made`. Raises TimeoutError when the ledger does not say what it holds."""
        state, data = "completed", answer.encode()
        if len(answer.body) > SMALL:
            # Only who makes a call may put something large for it.
            making = functools.partial(self._ledger.making, asking.response, started.entry)
            maker, held = await self._insist(making, RECORD_S)
            if maker == executor:
                name = f"{started.entry}.{started.tried}-{binding.sandbox}"
                data = await self._spill.put(binding.tenant, asking.response, name, answer, held=held)
            else:  # lost, and no later attempt will ask; or never begun
                state, data = "unknown", b""
        return await self.completed(asking, started, executor, state, data, by=binding)

    async def completed(
        self,
        asking: Asking,
        started: Started,
        executor: str,
        state: str,
        data: bytes,
        *,
        outcome: Outcome = NOTHING,
        by: Binding | None = None,
    ) -> str:
        """The entry's end, insisted on. As `made`."""
        until = self._clock.monotonic() + ABSENT_S
        send = functools.partial(
            self._ledger.complete, asking, started, executor, state=state, answer=data, by=by,
            outcome=fitting(outcome, held=started.octets),
        )  # fmt: skip
        while True:
            try:
                word = await self._insist(send, RECORD_S)
            except TimeoutError:
                return "Redis is away"
            if word != "ABSENT" or self._clock.monotonic() >= until:
                return word
            await self._clock.sleep(RETRY_S)
