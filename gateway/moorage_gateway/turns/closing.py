"""The end of a turn: outcome fixed, response stored, then shown (turns.md §2 rows 7 to 9).

Between `Steps` and `Engine`: a turn that was taken over while closing needs nothing else.
"""

from __future__ import annotations

import asyncio
import functools
from dataclasses import replace
from typing import Any

import orjson

from moorage_api.ledger.records import Entry
from moorage_gateway.store.errors import StoreUnavailable
from moorage_gateway.turns import archive
from moorage_gateway.turns.held import Dropped, Held
from moorage_gateway.turns.normalise import Normaliser, Outcome
from moorage_gateway.turns.source_reader import failed
from moorage_gateway.turns.steps import Steps

FRESH_S = 1.0  # no other owner can have decided so soon: after a loss no lease is taken for 10 s (decisions/0004)
STORE_S = 2.0  # turns.md §2 row 8: then the turn is closed `unflushed`


class Closing(Steps):
    """Decides, stores, closes; a cancel that came first wins."""

    async def fail(self, held: Held, message: str) -> None:
        """Ends a turn whose driving broke by a mistake of ours: `failed` rather than tried again and again."""
        try:
            await self._decide(held, failed("server_error", message), None, whole=False)
            await self._settle(held)
        except Dropped:
            return

    # -- the end ------------------------------------------------------------------------------------------------------

    async def _decide(self, held: Held, outcome: Outcome, normaliser: Normaliser | None, *, whole: bool = True) -> None:
        """Fixes the outcome; a cancel that came first wins (turns.md §2 row 7). Without `whole` nobody is asked what the output lacks."""
        last = None
        if held.attempts and "ended" not in held.attempts[-1]:
            held.attempts[-1] = held.attempts[-1] | {
                "ended": self._clock.now_ms(),
                "reason": outcome.status,
                "progress": len(held.log),
            }
            last = len(held.attempts) - 1, held.attempts[-1]
        waiting: list[dict[str, Any]] = []
        if whole and outcome.status != "cancelled":
            waiting = await self._insist(held, lambda: self._asked(held))
        while True:
            self._stay(held)
            terminal, index = await self._terminal(held, outcome, normaliser, waiting), len(held.log)
            if terminal is None:
                normaliser = None  # the log says something else: what is open in it is closed as it stands
                continue
            send = functools.partial(
                self._ledger.decide, held.response, held.fence, outcome.status, index, terminal, attempt=last
            )
            # Not when the answer is read: this process may be stopped in between.
            asked = self._clock.monotonic()
            word, decided, ended, calls = await self._insist(held, send)
            if word == "CANCEL":
                outcome, normaliser = Outcome(status="cancelled"), None
                continue
            if word == "GAP" and await self._log(held, []) == index:
                continue  # Redis lacked something that was acknowledged here
            if word != "OK":
                held.interrupt(fenced=True)
                self._stay(held)
            line = "0 0 " + terminal.decode()
            raw = {"state": "closing", "outcome": decided, "terminal": line, "ended": str(ended)}
            if calls:
                raw["calls"] = calls
            held.record = replace(
                held.record, state="closing", outcome=decided, ended=ended, terminal=line, raw=held.record.raw | raw
            )
            held.decided_at = asked
            return

    async def _terminal(
        self, held: Held, outcome: Outcome, normaliser: Normaliser | None, asked: list[dict[str, Any]]
    ) -> bytes | None:
        """The terminal event, once all that comes before it is logged; None where `normaliser` does not go on from this log."""
        if normaliser is None:
            events = [orjson.loads(e.data) for e in held.log]
            normaliser = Normaliser(held.template, events, continues=True)
            closing = normaliser.interrupt()
            await self._append(held, [Entry(held.begun, 0, orjson.dumps(e)) for e in closing])
        finish = normaliser.finish(outcome, completed_at=self._clock.now_ms() // 1000, asked=asked)
        # A former owner of this attempt may have logged the closing events before it died.
        closing = [e for e in finish.events if e["sequence_number"] >= len(held.log)]
        await self._append(held, [Entry(held.begun, 0, orjson.dumps(e)) for e in closing])
        return orjson.dumps(finish.terminal) if finish.terminal["sequence_number"] == len(held.log) else None

    async def _settle(self, held: Held) -> None:
        """Stores the response, then shows the end (turns.md §2 rows 8 and 9)."""
        terminal = Entry.decode(held.record.terminal)
        stored = True
        if held.record.meta.get("store", True):
            if self._clock.monotonic() - held.decided_at > FRESH_S:
                await self._look_again(held)
            document = archive.compose(held.record, held.input_items, [*held.log, terminal], held.attempts)
            stored = await self._put(held, document)
        word = await self._insist(held, lambda: self._ledger.close(held.response, stored=stored))
        if word != "OK":  # Redis lost it, and it was given up or begun anew: what is decided here is nobody's end
            held.interrupt(fenced=True)
            self._stay(held)
        held.ended, held.fate.kept = True, stored
        held.logged([terminal])
        try:
            if stored and held.proved:
                async with asyncio.timeout(STORE_S):
                    await self._store.settled(held.response)
        except (StoreUnavailable, TimeoutError):
            return  # `open/` is swept: an entry whose response is stored is removed there

    async def _look_again(self, held: Held) -> None:
        """This process was stopped since the decision, or took the turn over: Redis may have lost it, and another decided anew.

        Redis may even have come back as it was before that other owner, so what is stored is asked too: the first stored end stands.
        """
        current = await self._insist(held, lambda: self._ledger.turn(held.response))
        if current is not None and await self._ended_otherwise(held):
            await self._insist(held, lambda: self._ledger.discard(held.response, held.fence))
            current = None
        # None: another owner ended it, and the ledger has forgotten it since. What is decided here is nobody's end.
        if current is None or current.terminal != held.record.terminal:
            held.interrupt(fenced=True)
            raise Dropped
        held.record = current

    async def _ended_otherwise(self, held: Held) -> bool:
        """Whether another end of this turn is stored than the one decided here."""
        try:
            async with asyncio.timeout(STORE_S):
                document = await self._store.document(str(held.record.meta["tenant"]), held.response)
        except (StoreUnavailable, TimeoutError):
            return False
        return document is not None and document.events[-1] != orjson.loads(Entry.decode(held.record.terminal).data)

    async def _put(self, held: Held, document: bytes) -> bool:
        try:
            async with asyncio.timeout(STORE_S):
                await self._store.put_response(str(held.record.meta["tenant"]), held.response, document)
        except (StoreUnavailable, TimeoutError):
            return False
        return True
