"""The journal of boundary calls: started, made, completed, and met again by later attempts (turns.md §6). Layer: engine.

    ask ─ start ─┬─ RUN      → a flight, a task of this object's own: it goes on though its asker, its sandbox or its turn ends
                 ├─ WAIT     → the flight, if it is here; else ask again until it has ended
                 ├─ DONE     → the recorded answer
                 └─ UNKNOWN  → an error that agent or model can act on

A gateway that ends lets its calls end first; what is left then may be made again by another one, if it is no effect.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from moorage_api.ledger.journal import Asking, JournalLedger, Started
from moorage_api.ledger.script import LEASE_MS, RENEW_S, Lost, Unreachable
from moorage_gateway.clock import Clock
from moorage_gateway.journal.answers import Answer, error
from moorage_gateway.journal.flights import Flight, Room
from moorage_gateway.journal.kinds import NoOutcome, NothingSent, Prepared
from moorage_gateway.journal.refusals import Refused, again, refusal
from moorage_gateway.journal.seeing import Began, Call, Observer, Telling
from moorage_gateway.journal.spilling import Spill, fitting
from moorage_gateway.recovery import Recovery
from moorage_gateway.store import StoreUnavailable

T = TypeVar("T")

log = logging.getLogger(__name__)

RETRY_S = 0.2
POLL_S = 0.25
"""Between two looks at a call that another gateway makes."""
WAIT_S = 1800.0
"""Longest wait for it, and for a Redis that is away: longer than any call may take."""
RECORD_S = 600.0
"""For an answer that has come to be recorded."""
ABSENT_S = 30.0
"""For its owner to restore a turn that Redis has lost."""
MARGIN_S = 2.0
"""Of a lease: nothing is sent so shortly before its end."""
LAST_S = 2.0


@dataclass(frozen=True)
class Limits:
    """`flights`: calls of this process at a time. `answer`: bytes of one. `room`: bytes of all."""

    flights: int = 1024
    answer: int = 32 * 2**20
    room: int = 512 * 2**20


@dataclass(frozen=True)
class Stored:
    """The answer of a call that was made before."""

    entry: str
    answer: Answer


@dataclass(eq=False)
class _Held:
    """A flight of this process with what its lease needs."""

    call: Call
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


class Journaling:
    """Asks, makes, records. `calm`: seconds until leases may be taken (turns.md §7)."""

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
    ) -> None:
        self._ledger = ledger
        self._recovery = recovery
        self._spill = spill
        self._clock = clock
        self._calm = calm
        self._limits = limits
        self._tell = Telling(observer, clock)
        self._held: dict[tuple[str, str], _Held] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._starting: set[asyncio.Task[Flight | Stored | Refused | None]] = set()
        self._closing = False
        self.room = Room(limits.room)
        self.made = self.replayed = 0

    @property
    def flights(self) -> int:
        """Calls being made here."""
        return len(self._tasks)

    async def ask(self, call: Call) -> Flight | Stored | Refused:
        """What becomes of one call. May be cancelled: what was begun goes on."""
        executor, deadline = secrets.token_hex(8), self._clock.monotonic() + WAIT_S
        while True:
            if self._closing:
                return again("This gateway ends; another one serves.")
            if len(self._tasks) + len(self._starting) >= self._limits.flights:
                return again("This gateway makes as many calls as it can.")
            # A permission to run must not be lost with whoever asked: nobody else would make the call.
            step = asyncio.get_running_loop().create_task(self._step(call, executor))
            self._starting.add(step)
            step.add_done_callback(self._stepped)
            found = await asyncio.shield(step)
            if found is not None:
                return found
            if self._clock.monotonic() >= deadline:
                return again("Another gateway has been making this call for too long.")
            await self._clock.sleep(POLL_S)

    def _stepped(self, step: asyncio.Task[Flight | Stored | Refused | None]) -> None:
        self._starting.discard(step)
        if not step.cancelled():
            step.exception()  # read, so that one whose asker has left does not warn

    async def _step(self, call: Call, executor: str) -> Flight | Stored | Refused | None:
        """One look; None: somebody else makes the call."""
        began = Began.at(self._clock)
        asking, asked = call.asking, began.monotonic

        def send() -> Awaitable[Started]:
            nonlocal asked
            asked = self._clock.monotonic()
            return self._ledger.start(call.binding, asking, executor, settling=self._calm() > 0)

        try:
            started = await self._insist(send, WAIT_S)
        except TimeoutError:
            return again("The ledger does not answer.")
        match started.word:
            case "RUN":
                return self._fly(_Held(call, started, executor, self._flight(started.entry), asked, began))
            case "FREE":
                return self._fly(_Held(call, started, executor, self._flight(""), float("inf"), began))
            case "WAIT":
                mine = self._held.get((asking.response, started.entry))
                if mine is not None and asking.begun != mine.asking.begun:
                    mine.joined.setdefault(asking.begun, (call, began))
                return None if mine is None else mine.flight
            case "DONE":
                return await self._stored(call, started, began)
            case "UNKNOWN":
                self._tell(call, began, started.entry, status=0, fault="outcome_unknown", replayed=True)
                return Stored(started.entry, call.prepared.unknown())
            case "SHUT" | "RATE" | "SPENT" as word if call.prepared.bounded is not None:
                # No answer of the model's: the journal does not hold it, and asked later it may be made.
                self._tell(call, began, started.entry, status=429, fault=word.lower())
                return Refused("no", call.prepared.bounded.refuse(word, started.short, started.wait / 1000))
            case word:
                return refusal(word)

    async def _stored(self, call: Call, started: Started, began: Began) -> Stored | Refused:
        try:
            answer = await self._spill.get(call.binding.tenant, call.asking.response, started.answer)
        except StoreUnavailable:
            return again("The object store, which has the recorded answer, is away.")
        if answer is None:
            message = "The recorded answer of this call is gone from the object store."
            return Refused("no", error(502, "server_error", "journal_lost", message))
        self.replayed += 1
        self._tell(call, began, started.entry, status=answer.status, what=started.what, replayed=True)
        return Stored(started.entry, answer)

    def _flight(self, entry: str) -> Flight:
        return Flight(entry, self.room, self._limits.answer)

    def _fly(self, held: _Held) -> Flight:
        held.until += LEASE_MS / 1000
        held.flight.guard(functools.partial(self._may_send, held))
        if held.flight.entry:
            self._held[held.asking.response, held.started.entry] = held
        name = f"call {held.asking.what.get('kind')}"
        task = held.task = asyncio.get_running_loop().create_task(self._run(held), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.made += 1
        return held.flight

    async def _run(self, held: _Held) -> None:
        flight, prepared, fault = held.flight, held.call.prepared, ""
        try:
            await prepared.perform(flight)
        except NothingSent as why:
            fault = "nothing_sent"
            await self._drop(held)
            flight.refused(again(str(why)).answer)
        except NoOutcome as why:
            fault = "broken"
            await self._without_outcome(held, prepared, str(why))
        except asyncio.CancelledError:
            fault = "given_up"
            await self._given_up(held)
            raise
        except Exception as mistake:  # the outermost frame of a call: its followers must hear of it
            fault = "mistake"
            whose = held.call.binding
            log.exception("a call of %s/%s failed by a mistake of ours", whose.tenant, whose.agent)
            await self._without_outcome(held, prepared, f"the gateway failed: {type(mistake).__name__}")
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

    async def _record(self, held: _Held) -> str:
        """The whole answer into the journal, then to whoever follows. Returns a fault's word, or nothing."""
        flight = held.flight
        if not flight.entry:
            flight.recorded()
            return ""
        name = f"{held.started.entry}.{held.started.tried}"
        response = held.asking.response
        tenant = held.call.binding.tenant
        data = await self._spill.put(tenant, response, name, flight.answer, held=held.started.octets)
        word = await self._completed(held, "completed", data)
        if word == "OK":
            flight.recorded()
            return ""
        flight.broken(f"the answer could not be recorded: {word}")
        return "unrecorded"

    async def _spend(self, held: _Held) -> None:
        """What no entry tells of is taken from its purse all the same; once, and not insisted on."""
        bounds, tokens = held.asking.bounds, held.flight.outcome.tokens
        if not tokens or not (bounds.tokens or bounds.turn_tokens):
            return
        try:
            await self._ledger.spend(held.asking, tokens)
        except (Lost, Unreachable):
            log.info("%d tokens of %s were not taken from its purse", tokens, bounds.purse)

    async def _completed(self, held: _Held, state: str, data: bytes) -> str:
        until = self._clock.monotonic() + ABSENT_S
        while True:
            send = functools.partial(
                self._ledger.complete, held.asking, held.started, held.executor, state=state, answer=data,
                outcome=fitting(held.flight.outcome, held=held.started.octets),
            )  # fmt: skip
            try:
                word = await self._insist(send, RECORD_S)
            except TimeoutError:
                return "Redis is away"
            if word != "ABSENT" or self._clock.monotonic() >= until:
                return word
            await self._clock.sleep(RETRY_S)

    async def _without_outcome(self, held: _Held, prepared: Prepared, why: str) -> None:
        flight = held.flight
        if held.asking.permits == "once" and flight.sent:
            if flight.entry and await self._completed(held, "unknown", b"") != "OK":
                flight.broken(why)
                return
            if flight.passed_on:
                flight.broken(why)
            else:
                flight.instead(prepared.unknown())
            return
        await self._drop(held)
        if flight.passed_on:
            flight.broken(why)
        else:
            flight.refused(again(why).answer)

    async def _given_up(self, held: _Held) -> None:
        """This gateway ends. An effect that was sent keeps its entry: nobody may make it again."""
        if held.asking.permits == "once" and held.flight.sent:
            return
        try:
            async with asyncio.timeout(LAST_S):
                await self._drop(held)
        except TimeoutError:
            log.warning("a call could not be handed on: its lease runs out by itself")

    async def _drop(self, held: _Held) -> None:
        if not held.flight.entry:
            return
        send = functools.partial(self._ledger.drop, held.asking.response, held.started, held.executor)
        try:
            await self._insist(send, RECORD_S)
        except TimeoutError:
            log.warning("a call could not be taken out of the journal: its lease runs out by itself")

    async def _may_send(self, held: _Held) -> None:
        """By our own clock: whoever was stopped for longer than its lease must not send (turns.md §6). Raises NothingSent."""
        if self._clock.monotonic() < held.until - MARGIN_S:
            return
        await self._renew([held])
        if self._clock.monotonic() >= held.until - MARGIN_S:
            raise NothingSent("the lease of this call ran out before it was sent")

    # -- leases

    async def run(self) -> None:
        """Renews the leases of what is in flight, until cancelled."""
        while True:
            await self._clock.sleep(RENEW_S)
            if self._held:
                await self._renew(list(self._held.values()))

    async def _renew(self, held: list[_Held]) -> None:
        asked = self._clock.monotonic()
        flat = [(each.asking.response, each.started.entry, each.executor) for each in held]
        try:
            words = await self._ledger.hold(flat)
        except Lost:
            try:
                await self._recovery.recover()
            except Unreachable:
                return
            return
        except Unreachable:
            return
        for each, word in zip(held, words, strict=True):
            if word == "OK":
                each.until = asked + LEASE_MS / 1000

    async def _insist(self, call: Callable[[], Awaitable[T]], seconds: float) -> T:
        """Sends until an answer comes: every script answers the same when sent again. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            while True:
                if self._recovery.runs:
                    await self._recovery.settled()
                try:
                    return await call()
                except Lost:
                    try:
                        await self._recovery.recover()
                    except Unreachable:
                        await self._clock.sleep(RETRY_S)
                except Unreachable:
                    await self._clock.sleep(RETRY_S)

    # -- the end

    async def drain(self, seconds: float) -> None:
        """Takes no call any more, and lets those in flight end within so many seconds; what is left is given up."""
        self._closing = True
        waits: set[asyncio.Task[object]] = {*self._tasks, *self._starting}
        if waits and seconds:
            await asyncio.wait(waits, timeout=seconds)
        left = [*self._starting, *self._tasks]
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=LAST_S + 1)
