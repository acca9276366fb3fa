"""The journal of boundary calls: started, made, completed, and met again by later attempts (turns.md §6). Layer: engine.

    ask ─ start ─┬─ RUN      → a flight, a task of this object's own: it goes on though its asker, its sandbox or its turn ends
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
import functools
import logging
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from moorage_api.ledger.journal import Asking, Binding, JournalLedger, Started
from moorage_api.ledger.script import LEASE_MS, RENEW_S, Lost, Unreachable
from moorage_gateway.clock import Clock
from moorage_gateway.journal import handing
from moorage_gateway.journal.answers import Answer, error
from moorage_gateway.journal.flights import Flight, Room
from moorage_gateway.journal.found import Refused, Stored, again, refusal
from moorage_gateway.journal.kinds import Handed, NoOutcome, NothingSent, Performed, Report
from moorage_gateway.journal.spilling import Spill
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
HELD_S = 1.0
"""That a new effect waits for an earlier attempt's one of the same tool to be met (turns.md §6)."""
HELD_POLL_S = 0.1


@dataclass(frozen=True)
class Limits:
    """`flights`: calls of this process at a time. `answer`: bytes of one. `room`: bytes of all."""

    flights: int = 1024
    answer: int = 32 * 2**20
    room: int = 512 * 2**20


@dataclass(eq=False)
class _Held:
    """A flight of this process with what its lease needs."""

    asking: Asking
    started: Started
    executor: str
    flight: Flight
    until: float
    task: asyncio.Task[None] | None = None


@dataclass
class _Asker:
    """One call being asked for. `since`: when it was HELD first."""

    executor: str
    since: float | None = None


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
    ) -> None:
        self._ledger = ledger
        self._recovery = recovery
        self._spill = spill
        self._clock = clock
        self._calm = calm
        self._limits = limits
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

    async def ask(self, binding: Binding, asking: Asking, prepared: Performed | Handed) -> Flight | Stored | Refused:
        """What becomes of one call. May be cancelled: what was begun goes on."""
        asker = _Asker(handing.attempt(binding, asking) if isinstance(prepared, Handed) else secrets.token_hex(8))
        deadline = self._clock.monotonic() + WAIT_S
        while True:
            if self._closing:
                return again("This gateway ends; another one serves.")
            if len(self._tasks) + len(self._starting) >= self._limits.flights:
                return again("This gateway makes as many calls as it can.")
            # A permission to run must not be lost with whoever asked: nobody else would make the call.
            step = asyncio.get_running_loop().create_task(self._step(binding, asking, prepared, asker))
            self._starting.add(step)
            step.add_done_callback(self._stepped)
            found = await asyncio.shield(step)
            if found is not None:
                return found
            if self._clock.monotonic() >= deadline:
                return again("Another gateway has been making this call for too long.")
            await self._clock.sleep(POLL_S if asker.since is None else HELD_POLL_S)

    async def report(self, binding: Binding, asking: Asking, report: Report) -> Stored | Refused:
        """How a call ended that its attempt made by itself. Sent again, it says the same."""
        response, (begun, started) = asking.response, handing.marked(report.mark)
        if begun != asking.begun or not response:
            message = "The attempt that began this has ended: how it ended is recorded for nobody."
            return Refused("no", error(409, "conflict", "fenced", message))
        executor = handing.attempt(binding, asking)
        try:
            state, data = await self._reported(binding, response, started, executor, report.answer)
        except TimeoutError:
            return again("The ledger does not answer.")
        word = await self._recorded(asking, started, executor, state, data, binding)
        if word == "OK":
            return Stored(started.entry, report.told, replayed=False)
        return refusal(word) if word in ("SUPERSEDED", "NONE") else again(f"It could not be recorded: {word}.")

    async def _reported(
        self, binding: Binding, response: str, started: Started, executor: str, answer: Answer
    ) -> tuple[str, bytes]:
        """State and answer as the journal is to hold them. Only who makes a call may put something large for it."""
        if len(answer.body) <= handing.SMALL:
            return "completed", answer.encode()
        maker, held = await self._insist(functools.partial(self._ledger.making, response, started.entry), RECORD_S)
        if maker != executor:  # lost, and no later attempt will ask; or never begun
            return "unknown", b""
        name = f"{started.entry}.{started.tried}-{binding.sandbox}"
        return "completed", await self._spill.put(binding.tenant, response, name, answer, held=held)

    def _stepped(self, step: asyncio.Task[Flight | Stored | Refused | None]) -> None:
        self._starting.discard(step)
        if not step.cancelled():
            step.exception()  # read, so that one whose asker has left does not warn

    async def _step(
        self, binding: Binding, asking: Asking, prepared: Performed | Handed, asker: _Asker
    ) -> Flight | Stored | Refused | None:
        """One look; None: look again, somebody else makes the call, or another one must be met first."""
        asked = self._clock.monotonic()
        lease_ms = handing.LEASE_MS if isinstance(prepared, Handed) else LEASE_MS

        def send() -> Awaitable[Started]:
            nonlocal asked
            asked = self._clock.monotonic()
            waited = asker.since is not None and asked - asker.since >= HELD_S
            return self._ledger.start(
                binding, asking, asker.executor, settling=self._calm() > 0, lease_ms=lease_ms, waited=waited
            )

        try:
            started = await self._insist(send, WAIT_S)
        except TimeoutError:
            return again("The ledger does not answer.")
        match started.word:
            case "RUN" | "FREE":
                return self._begun(binding, asking, prepared, asker.executor, started, asked)
            case "HELD":
                asker.since = asked if asker.since is None else asker.since
                return None
            case "WAIT":
                mine = self._held.get((asking.response, started.entry))
                return None if mine is None else mine.flight
            case "DONE":
                return await self._stored(binding, asking, started)
            case "UNKNOWN":
                return Stored(started.entry, prepared.unknown())
            case "EARLIER_UNKNOWN":
                return Stored(started.entry, prepared.earlier(started.call, None))
            case "EARLIER":
                found = await self._stored(binding, asking, started)
                return (
                    found
                    if isinstance(found, Refused)
                    else Stored(found.entry, prepared.earlier(started.call, found.answer))
                )
            case word:
                return refusal(word)

    def _begun(
        self,
        binding: Binding,
        asking: Asking,
        prepared: Performed | Handed,
        executor: str,
        started: Started,
        asked: float,
    ) -> Flight | Stored:
        if isinstance(prepared, Handed):
            self.made += 1
            return Stored(started.entry, prepared.hand(handing.mark(asking, started)), replayed=False)
        until = asked if started.entry else float("inf")
        return self._fly(_Held(asking, started, executor, self._flight(started.entry), until), binding, prepared)

    async def _stored(self, binding: Binding, asking: Asking, started: Started) -> Stored | Refused:
        try:
            answer = await self._spill.get(binding.tenant, asking.response, started.answer)
        except StoreUnavailable:
            return again("The object store, which has the recorded answer, is away.")
        if answer is None:
            message = "The recorded answer of this call is gone from the object store."
            return Refused("no", error(502, "server_error", "journal_lost", message))
        self.replayed += 1
        return Stored(started.entry, answer)

    def _flight(self, entry: str) -> Flight:
        return Flight(entry, self.room, self._limits.answer)

    def _fly(self, held: _Held, binding: Binding, prepared: Performed) -> Flight:
        held.until += LEASE_MS / 1000
        held.flight.guard(functools.partial(self._may_send, held))
        if held.flight.entry:
            self._held[held.asking.response, held.started.entry] = held
        work = self._run(held, binding, prepared)
        task = held.task = asyncio.get_running_loop().create_task(work, name=f"call {held.asking.what.get('kind')}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.made += 1
        return held.flight

    async def _run(self, held: _Held, binding: Binding, prepared: Performed) -> None:
        flight = held.flight
        try:
            await prepared.perform(flight)
        except NothingSent as why:
            await self._drop(held)
            flight.refused(again(str(why)).answer)
        except NoOutcome as why:
            await self._without_outcome(held, prepared, str(why))
        except asyncio.CancelledError:
            await self._given_up(held)
            raise
        except Exception as mistake:  # the outermost frame of a call: its followers must hear of it
            log.exception("a call of %s/%s failed by a mistake of ours", binding.tenant, binding.agent)
            await self._without_outcome(held, prepared, f"the gateway failed: {type(mistake).__name__}")
        else:
            await self._record(held, binding)
        finally:
            if self._held.get((held.asking.response, held.started.entry)) is held:
                del self._held[held.asking.response, held.started.entry]
            if not flight.over:
                flight.broken("the call was given up")

    async def _record(self, held: _Held, binding: Binding) -> None:
        """The whole answer into the journal, then to whoever follows."""
        flight = held.flight
        if not flight.entry:
            flight.recorded()
            return
        name = f"{held.started.entry}.{held.started.tried}"
        response = held.asking.response
        data = await self._spill.put(binding.tenant, response, name, flight.answer, held=held.started.octets)
        word = await self._completed(held, "completed", data)
        if word == "OK":
            flight.recorded()
        else:
            flight.broken(f"the answer could not be recorded: {word}")

    async def _completed(self, held: _Held, state: str, data: bytes) -> str:
        return await self._recorded(held.asking, held.started, held.executor, state, data, None)

    async def _recorded(
        self, asking: Asking, started: Started, executor: str, state: str, data: bytes, by: Binding | None
    ) -> str:
        until = self._clock.monotonic() + ABSENT_S
        while True:
            send = functools.partial(self._ledger.complete, asking, started, executor, state=state, answer=data, by=by)
            try:
                word = await self._insist(send, RECORD_S)
            except TimeoutError:
                return "Redis is away"
            if word != "ABSENT" or self._clock.monotonic() >= until:
                return word
            await self._clock.sleep(RETRY_S)

    async def _without_outcome(self, held: _Held, prepared: Performed, why: str) -> None:
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
