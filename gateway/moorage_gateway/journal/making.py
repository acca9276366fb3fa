"""Calls being made by this gateway: each a task of its own with a lease, to its recorded end (turns.md §6). Layer: engine.

It goes on though its asker, its sandbox or its turn ends.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from dataclasses import dataclass, field

from moorage_api.ledger.journal import Asking, JournalLedger, Started
from moorage_api.ledger.script import LEASE_MS, RENEW_S, Lost, Unreachable
from moorage_gateway.clock import Clock
from moorage_gateway.insisting import Insisting
from moorage_gateway.journal.flights import Flight
from moorage_gateway.journal.kinds import NoOutcome, NothingSent, Performed
from moorage_gateway.journal.recording import RECORD_S, Recording
from moorage_gateway.journal.refusals import again
from moorage_gateway.journal.seeing import Began, Call, Telling

log = logging.getLogger(__name__)

MARGIN_S = 2.0
"""Of a lease: nothing is sent so shortly before its end."""
LAST_S = 2.0


@dataclass(eq=False)
class Held:
    """A call of this process with what its lease needs. `until`, by the monotonic clock: its lease; infinite where no entry is kept."""

    call: Call
    prepared: Performed
    started: Started
    executor: str
    flight: Flight
    until: float
    began: Began
    task: asyncio.Task[None] | None = None
    joined: dict[int, tuple[Call, Began]] = field(default_factory=dict)
    """Later attempts that asked for it while it was being made, by their name."""

    @property
    def asking(self) -> Asking:
        """What is asked of the ledger."""
        return self.call.asking


class Making:
    """Makes calls, holds their leases, records what came of them."""

    def __init__(
        self, ledger: JournalLedger, insist: Insisting, recording: Recording, clock: Clock, tell: Telling
    ) -> None:
        self._ledger = ledger
        self._insist = insist
        self._recording = recording
        self._clock = clock
        self._tell = tell
        self._held: dict[tuple[str, str], Held] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        """Of calls being made."""

    def fly(self, held: Held) -> Flight:
        """Begins it."""
        held.flight.guard(functools.partial(self._may_send, held))
        if held.flight.entry:
            self._held[held.asking.response, held.started.entry] = held
        name = f"call {held.asking.what.get('kind')}"
        task = held.task = asyncio.get_running_loop().create_task(self._run(held), name=name)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return held.flight

    def joined(self, call: Call, entry: str, began: Began) -> Flight | None:
        """The flight of an entry that is being made here, for one more that asks for it."""
        mine = self._held.get((call.asking.response, entry))
        if mine is None:
            return None
        if call.asking.begun != mine.asking.begun:
            mine.joined.setdefault(call.asking.begun, (call, began))
        return mine.flight

    async def _run(self, held: Held) -> None:
        flight, fault = held.flight, ""
        try:
            await held.prepared.perform(flight)
        except NothingSent as why:
            fault = "nothing_sent"
            await self._drop(held)
            flight.refused(again(str(why)).answer)
        except NoOutcome as why:
            fault = "broken"
            await self._without_outcome(held, str(why))
        except asyncio.CancelledError:
            fault = "given_up"
            await self._given_up(held)
            raise
        except Exception as mistake:  # the outermost frame of a call: its followers must hear of it
            fault = "mistake"
            whose = held.call.binding
            log.exception("a call of %s/%s failed by a mistake of ours", whose.tenant, whose.agent)
            await self._without_outcome(held, f"the gateway failed: {type(mistake).__name__}")
        else:
            fault = await self._record(held)
        finally:
            tell = functools.partial(self._tell, status=flight.status, what=flight.outcome.what, fault=fault)
            tell(held.call, held.began, held.started.entry)
            for call, began in held.joined.values():
                tell(call, began, held.started.entry, replayed=True)
            if self._held.get((held.asking.response, held.started.entry)) is held:
                del self._held[held.asking.response, held.started.entry]
            if not flight.over:
                flight.broken("the call was given up")
        if fault or not flight.entry:
            await self._spend(held)

    async def _record(self, held: Held) -> str:
        """The whole answer into the journal, then to whoever follows. Returns a fault's word, or nothing."""
        flight = held.flight
        if not flight.entry:
            flight.recorded()
            return ""
        tenant = held.call.binding.tenant
        word = await self._recording.made(
            held.asking, held.started, held.executor, tenant, flight.answer, flight.outcome
        )
        if word == "OK":
            flight.recorded()
            return ""
        flight.broken(f"the answer could not be recorded: {word}")
        return "unrecorded"

    async def _spend(self, held: Held) -> None:
        """What no entry tells of is taken from its purse all the same; once, and not insisted on."""
        bounds, tokens = held.asking.bounds, held.flight.outcome.tokens
        if not tokens or not (bounds.tokens or bounds.turn_tokens):
            return
        try:
            await self._ledger.spend(held.asking, tokens)
        except (Lost, Unreachable):
            log.info("%d tokens of %s were not taken from its purse", tokens, bounds.purse)

    async def _without_outcome(self, held: Held, why: str) -> None:
        flight = held.flight
        if held.asking.permits == "once" and flight.sent:
            if flight.entry and await self._unknown(held) != "OK":
                flight.broken(why)
                return
            if flight.passed_on:
                flight.broken(why)
            else:
                flight.instead(held.prepared.unknown())
            return
        await self._drop(held)
        if flight.passed_on:
            flight.broken(why)
        else:
            flight.refused(again(why).answer)

    async def _unknown(self, held: Held) -> str:
        outcome = held.flight.outcome
        return await self._recording.completed(
            held.asking, held.started, held.executor, "unknown", b"", outcome=outcome
        )

    async def _given_up(self, held: Held) -> None:
        """This gateway ends. An effect that was sent keeps its entry: nobody may make it again."""
        if held.asking.permits == "once" and held.flight.sent:
            return
        try:
            async with asyncio.timeout(LAST_S):
                await self._drop(held)
        except TimeoutError:
            log.warning("a call could not be handed on: its lease runs out by itself")

    async def _drop(self, held: Held) -> None:
        if not held.flight.entry:
            return
        send = functools.partial(self._ledger.drop, held.asking.response, held.started, held.executor)
        try:
            await self._insist(send, RECORD_S)
        except TimeoutError:
            log.warning("a call could not be taken out of the journal: its lease runs out by itself")

    # -- leases

    async def _may_send(self, held: Held) -> None:
        """By our own clock: whoever was stopped for longer than its lease must not send (turns.md §6). Raises NothingSent."""
        if self._clock.monotonic() < held.until - MARGIN_S:
            return
        await self._renew([held])
        if self._clock.monotonic() >= held.until - MARGIN_S:
            raise NothingSent("the lease of this call ran out before it was sent")

    async def run(self) -> None:
        """Renews the leases of what is in flight, until cancelled."""
        while True:
            await self._clock.sleep(RENEW_S)
            if self._held:
                await self._renew(list(self._held.values()))

    async def _renew(self, held: list[Held]) -> None:
        asked = self._clock.monotonic()
        flat = [(each.asking.response, each.started.entry, each.executor) for each in held]
        try:
            words = await self._ledger.hold(flat)
        except Lost:
            await self._insist.recovered()
            return
        except Unreachable:
            return
        for each, word in zip(held, words, strict=True):
            if word == "OK":
                each.until = asked + LEASE_MS / 1000
