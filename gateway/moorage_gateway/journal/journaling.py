"""The journal of boundary calls: started, made, completed, and met again by later attempts (turns.md §6). Layer: engine.

    ask ─ start ─┬─ RUN      → a flight, a task of its own (`making.py`)
                 ├─ WAIT     → the flight, if it is here; else ask again until it has ended
                 ├─ HELD     → ask again: an earlier attempt's effect of the same tool may yet be met by another call
                 ├─ EARLIER  → the outcome of that effect, and nothing is made
                 ├─ DONE     → the recorded answer
                 └─ UNKNOWN  → an error that agent or model can act on

A call that its attempt makes by itself (`Handed`) has no flight: the attempt is told to make it, and reports how it ended.

A gateway that ends lets its calls end first; what is left then may be made again by another one, if it is no effect.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from moorage_api.ledger.journal import Asking, Binding, JournalLedger, Outcome, Started
from moorage_api.ledger.script import LEASE_MS, LedgerError
from moorage_gateway.clock import Clock
from moorage_gateway.insisting import Insisting
from moorage_gateway.journal import handing
from moorage_gateway.journal.answers import Answer, error
from moorage_gateway.journal.carrying import Carrying, Gone
from moorage_gateway.journal.flights import Flight, Room
from moorage_gateway.journal.found import Stored
from moorage_gateway.journal.kinds import Report, is_handed, is_performed
from moorage_gateway.journal.making import LAST_S, Held, Making
from moorage_gateway.journal.recording import Recording
from moorage_gateway.journal.refusals import Refused, again, refusal
from moorage_gateway.journal.seeing import Began, Call, Observer, Telling
from moorage_gateway.journal.spilling import Spill
from moorage_gateway.recovery import Recovery
from moorage_gateway.store import StoreUnavailable

POLL_S = 0.25
"""Between two looks at a call that another gateway makes."""
WAIT_S = 1800.0
"""Longest wait for it, and for a Redis that is away: longer than any call may take."""
HELD_S = 1.0
"""That a new effect waits for an earlier attempt's one of the same tool to be met (turns.md §6)."""
HELD_POLL_S = 0.1


@dataclass(frozen=True)
class Limits:
    """`flights`: calls of this process at a time. `answer`: bytes of one. `room`: bytes of all."""

    flights: int = 1024
    answer: int = 32 * 2**20
    room: int = 512 * 2**20


@dataclass
class _Asker:
    """One call being asked for. `since`: when it was HELD first."""

    executor: str
    since: float | None = None


class Journaling:
    """Asks, has made, tells what is recorded. `calm`: seconds until leases may be taken (turns.md §7)."""

    def __init__(
        self,
        ledger: JournalLedger,
        recovery: Recovery,
        spill: Spill,
        clock: Clock,
        *,
        calm: Callable[[], float],
        limits: Limits,
        observer: Observer,
        carrying: Carrying,
    ) -> None:
        self._ledger = ledger
        self._carrying = carrying
        self._spill = spill
        self._clock = clock
        self._calm = calm
        self._limits = limits
        self._tell = Telling(observer, clock)
        self._insist = Insisting(recovery, clock)
        self._recording = Recording(ledger, self._insist, spill, clock)
        self._making = Making(ledger, self._insist, self._recording, clock, self._tell)
        self._starting: set[asyncio.Task[Flight | Stored | Refused | None]] = set()
        self._closing = False
        self.room = Room(limits.room)
        self.made = self.replayed = 0

    @property
    def flights(self) -> int:
        """Calls being made here."""
        return len(self._making.tasks)

    async def run(self) -> None:
        """Renews the leases of what is in flight, until cancelled."""
        await self._making.run()

    async def ask(self, call: Call) -> Flight | Stored | Refused:
        """What becomes of one call. May be cancelled: what was begun goes on."""
        handed = is_handed(call.prepared)
        asker = _Asker(handing.attempt(call.binding, call.asking) if handed else secrets.token_hex(8))
        deadline = self._clock.monotonic() + WAIT_S
        while True:
            if self._closing:
                return again("This gateway ends; another one serves.")
            if self.flights + len(self._starting) >= self._limits.flights:
                return again("This gateway makes as many calls as it can.")
            # A permission to run must not be lost with whoever asked: nobody else would make the call.
            step = asyncio.get_running_loop().create_task(self._step(call, asker))
            self._starting.add(step)
            step.add_done_callback(self._stepped)
            found = await asyncio.shield(step)
            if found is not None:
                return found
            if self._clock.monotonic() >= deadline:
                return again("Another gateway has been making this call for too long.")
            await self._clock.sleep(POLL_S if asker.since is None else HELD_POLL_S)

    async def report(self, binding: Binding, asking: Asking, report: Report, traceparent: str = "") -> Stored | Refused:
        """How a call ended that its attempt made by itself. Sent again, it says the same."""
        begun, started = handing.marked(report.mark)
        if begun != asking.begun or not asking.response:
            message = "The attempt that began this has ended: how it ended is recorded for nobody."
            return Refused("no", error(409, "conflict", "fenced", message))
        try:
            executor = handing.attempt(binding, asking)
            found = await self._recording.reported(binding, asking, started, executor, report.answer)
        except TimeoutError:
            return again("The ledger does not answer.")
        word = found.word
        if word == "OK":
            if found.lease:
                began = Began.since(found.lease - handing.LEASE_MS, self._clock)
                self._tell.of(binding, asking, began, started.entry, found.what, traceparent, fault=report.fault)
            return Stored(started.entry, report.told, replayed=False)
        return refusal(word) if word in ("SUPERSEDED", "NONE") else again(f"It could not be recorded: {word}.")

    def _stepped(self, step: asyncio.Task[Flight | Stored | Refused | None]) -> None:
        self._starting.discard(step)
        if not step.cancelled():
            step.exception()  # read, so that one whose asker has left does not warn

    async def _step(self, call: Call, asker: _Asker) -> Flight | Stored | Refused | None:
        """One look; None: look again, somebody else makes the call, or another one must be met first."""
        began = Began.at(self._clock)
        asked, lease_ms = began.monotonic, handing.LEASE_MS if is_handed(call.prepared) else LEASE_MS

        def send() -> Awaitable[Started]:
            nonlocal asked
            asked = self._clock.monotonic()
            waited = asker.since is not None and asked - asker.since >= HELD_S
            settling = self._calm() > 0
            return self._ledger.start(
                call.binding, call.asking, asker.executor, settling=settling, lease_ms=lease_ms, waited=waited
            )

        try:
            started = await self._insist(send, WAIT_S)
        except TimeoutError:
            return again("The ledger does not answer.")
        match started.word:
            case "RUN" if is_handed(call.prepared):
                given = await self._given(call, asker.executor, started, began)
                return given or self._begun(call, asker.executor, started, asked, began)
            case "RUN" | "FREE":
                return self._begun(call, asker.executor, started, asked, began)
            case "HELD":
                asker.since = asked if asker.since is None else asker.since
                return None
            case "WAIT":
                return self._making.joined(call, started.entry, began)
            case _:
                return await self._ended(call, started, began)

    async def _given(self, call: Call, executor: str, started: Started, began: Began) -> Stored | Refused | None:
        """A step that an earlier try of the same run made: recorded as this turn's, and answered. None: it is to be run."""
        asking, tenant = call.asking, call.binding.tenant
        try:
            given = await self._carrying.get(tenant, asking.response, started.entry)
        except (LedgerError, StoreUnavailable):
            return again("What the run's earlier turns completed cannot be read.")
        except Gone:
            return Refused("no", _lost("step of an earlier try"))
        if given is None:
            return None
        outcome = Outcome(what={"carried": "true"})
        if given.answer is None:
            word = await self._recording.completed(asking, started, executor, "unknown", b"", outcome=outcome)
        else:
            word = await self._recording.made(asking, started, executor, tenant, given.answer, outcome)
        if word != "OK":
            return refusal(word) if word in ("SUPERSEDED", "ABSENT") else again(f"It could not be recorded: {word}.")
        if given.answer is None:
            self._tell(call, began, started.entry, status=0, what=outcome.what, fault="outcome_unknown", replayed=True)
            return Stored(started.entry, call.prepared.unknown())
        self.replayed += 1
        self._tell(call, began, started.entry, status=given.answer.status, what=outcome.what, replayed=True)
        return Stored(started.entry, given.answer)

    def _begun(self, call: Call, executor: str, started: Started, asked: float, began: Began) -> Flight | Stored:
        """The call is this asker's to make. `asked`: when its lease began."""
        self.made += 1
        prepared = call.prepared
        if is_handed(prepared):
            return Stored(started.entry, prepared.hand(handing.mark(call.asking, started)), replayed=False)
        assert is_performed(prepared), "a prepared call is one of the two"
        flight = self._flight(call.asking, started.entry)
        until = asked + LEASE_MS / 1000 if started.entry else float("inf")
        return self._making.fly(Held(call, prepared, started, executor, flight, until, began))

    async def _ended(self, call: Call, started: Started, began: Began) -> Stored | Refused:
        """Nothing is made."""
        match started.word:
            case "DONE":
                found = await self._stored(call, started)
                if isinstance(found, Refused):
                    return found
                self._tell(call, began, started.entry, status=found.status, what=started.what, replayed=True)
                return Stored(started.entry, found)
            case "UNKNOWN":
                self._tell(call, began, started.entry, status=0, fault="outcome_unknown", replayed=True)
                return Stored(started.entry, call.prepared.unknown())
            case "EARLIER" | "EARLIER_UNKNOWN":
                earlier = await self._stored(call, started) if started.word == "EARLIER" else None
                if isinstance(earlier, Refused):
                    return earlier
                told = call.prepared.earlier(started.call, earlier)
                fault = "already_done_in_earlier_attempt"
                self._tell(call, began, started.entry, status=told.status, fault=fault, replayed=True)
                return Stored(started.entry, told)
            case "SHUT" | "RATE" | "SPENT" as word if call.prepared.bounded is not None:
                # No answer of the model's: the journal does not hold it, and asked later it may be made.
                self._tell(call, began, started.entry, status=429, fault=word.lower())
                return Refused("no", call.prepared.bounded.refuse(word, started.short, started.wait / 1000))
            case word:
                return refusal(word)

    async def _stored(self, call: Call, started: Started) -> Answer | Refused:
        """The recorded answer."""
        try:
            answer = await self._spill.get(call.binding.tenant, call.asking.response, started.answer)
        except StoreUnavailable:
            return again("The object store, which has the recorded answer, is away.")
        if answer is None:
            return Refused("no", _lost("call"))
        self.replayed += 1
        return answer

    def _flight(self, asking: Asking, entry: str) -> Flight:
        # Of the entry, so that every try has the same one; hashed, since a response's id is a right to read it.
        named = f"{asking.response}\n{entry}" if entry else secrets.token_hex(16)
        call_id = f"call_{hashlib.sha256(named.encode()).hexdigest()[:32]}"
        return Flight(entry, self.room, self._limits.answer, call_id)

    async def drain(self, seconds: float) -> None:
        """Takes no call any more, and lets those in flight end within so many seconds; what is left is given up."""
        self._closing = True
        waits: set[asyncio.Task[object]] = {*self._making.tasks, *self._starting}
        if waits and seconds:
            await asyncio.wait(waits, timeout=seconds)
        left = [*self._starting, *self._making.tasks]
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=LAST_S + 1)


def _lost(what: str) -> Answer:
    message = f"The recorded answer of this {what} is gone from the object store."
    return error(502, "server_error", "journal_lost", message)
