"""Answers into the journal, whole. Layer: engine."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import TypeVar

from moorage_api.ledger.journal import NOTHING, Asking, Binding, JournalLedger, Outcome, Reported, Started
from moorage_gateway.clock import Clock
from moorage_gateway.insisting import RETRY_S, Insisting
from moorage_gateway.journal.answers import Answer
from moorage_gateway.journal.handing import SMALL
from moorage_gateway.journal.spilling import Spill, fitting

T = TypeVar("T")

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

    async def reported(
        self, binding: Binding, asking: Asking, started: Started, executor: str, answer: Answer
    ) -> Reported:
        """A call that its attempt made has this answer. Its word as `made`'s. Raises TimeoutError when the ledger does not answer."""
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
        send = functools.partial(self._ledger.report, asking, started, executor, state=state, answer=data, by=binding)
        return await self._there(send, lambda found: found.word)

    async def completed(
        self,
        asking: Asking,
        started: Started,
        executor: str,
        state: str,
        data: bytes,
        *,
        outcome: Outcome = NOTHING,
    ) -> str:
        """The entry's end, insisted on. As `made`."""
        send = functools.partial(
            self._ledger.complete, asking, started, executor, state=state, answer=data,
            outcome=fitting(outcome, held=started.octets),
        )  # fmt: skip
        try:
            return await self._there(send, str)
        except TimeoutError:
            return "Redis is away"

    async def _there(self, send: Callable[[], Awaitable[T]], word: Callable[[T], str]) -> T:
        """What `send` says once the turn is there again, or has been away for too long. Raises TimeoutError."""
        until = self._clock.monotonic() + ABSENT_S
        while True:
            found = await self._insist(send, RECORD_S)
            if word(found) != "ABSENT" or self._clock.monotonic() >= until:
                return found
            await self._clock.sleep(RETRY_S)
