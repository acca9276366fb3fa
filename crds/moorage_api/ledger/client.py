"""The Redis client behind every ledger call: pipelined, guarded, counted.

Layer: the floor; stdlib, I/O. Whoever makes one brings address and speech (`wire`). Implements
`moorage_api.ledger.script.PostingRunner`. Calls made while a pipeline is in flight share the next one (performance.md §4: appends of all
turns share one pipeline). Nothing here decides.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from moorage_api import names
from moorage_api.ledger.records import text
from moorage_api.ledger.script import FOUND, REDIS_CLOCK, SETTLE_MS, Arguments, Landed, Lost, Script, Unreachable
from moorage_api.ledger.wire import Address, Command, Speech, Wire, WireLost, dial

MAX_PIPELINE = 512  # commands in one pipeline
IN_FLIGHT = 2  # pipelines at once: one waits for its fsync while the next is filled
# Where posted scripts come closer than CROWD_S together, they gather for PATIENCE_S after a pipeline left: one for the deltas of
# many turns costs less than one for each, and what a turn says meanwhile joins its script (decisions/0010).
CROWD_S = 0.002
PATIENCE_S = 0.020
WAITAOF_MS = 2000
# Replies that say "not now" rather than "no": the server is loading, may not write, or is out of memory or disk.
NOT_NOW = ("LOADING", "MISCONF", "READONLY", "OOM", "BUSY", "MASTERDOWN", "NOREPLICAS", "CLUSTERDOWN")


class _NoScript(Exception):
    """The server has not seen this script since it started."""


class RedisRefused(Exception):
    """Redis answered a command with an error that trying again does not mend."""


@dataclass(slots=True)
class _Pending:
    """A command, and who hears of it: called once, with the reply or an exception, unless `dropped()` or without `rest`."""

    command: Command
    landed: Callable[[Any, BaseException | None], None]
    dropped: Callable[[], bool]
    effect: bool = False
    rest: Arguments | None = None  # the end of the command, known when it leaves

    def leaves(self) -> bool:
        """Whether it goes along; completes it."""
        if self.rest is None:
            return not self.dropped()
        more, self.rest = self.rest(), None
        self.command += tuple(more or ())
        return more is not None


@dataclass(eq=False, slots=True)
class _Flight:
    """One pipeline: what it carries, and the wire it is on."""

    batch: list[_Pending]
    durable: bool
    over: asyncio.Future[None]
    wire: Wire | None = None
    timer: asyncio.TimerHandle | None = None


@dataclass
class Identity:
    """Which ledger this writer knows, and what its witness counter was last told (turns.md §1)."""

    who: str
    ledger: str = ""
    generation: int = 0
    told: int = 0
    settle_ms: int = 0


class Client:
    """Runs ledger scripts and plain reads on one Redis primary.

    `found` must be called before the first script and after each `Lost`. Raises `Lost`, `Unreachable`, `RedisRefused`. `where` is asked
    for each new connection.
    """

    def __init__(
        self,
        where: Callable[[], Address],
        speech: Speech,
        *,
        who: str,
        replicas: int = 0,
        call_timeout: float = 5.0,
        clock: str = REDIS_CLOCK,
    ) -> None:
        self._where = where
        self._speech = speech
        self._replicas = replicas
        self._timeout = call_timeout
        self._clock = clock
        self._scripts: dict[str, tuple[str, str]] = {}
        self._pending: list[_Pending] = []
        self._flights: set[_Flight] = set()
        self._urgent = False  # somebody waits for something that is pending
        self._due = False  # a launch is scheduled
        self._later: asyncio.TimerHandle | None = None  # … for what can wait a little
        self._left_at = float("-inf")  # loop time of the last one
        self._posted_at = float("-inf")
        self._idle: list[Wire] = []
        self._dials: set[asyncio.Task[None]] = set()
        self.identity = Identity(who)
        self.trouble_at = float("-inf")  # loop time of the last call without an answer (turns.md §7)
        self.commands = 0  # requests sent, a script counts one (performance.md §1)

    async def found(self, *, stored_generation: int = 0) -> bool:
        """Adopts the ledger, or makes the next generation after a loss. True when this call made one."""
        ident = self.identity
        out = await self.send(
            (
                "EVAL",
                FOUND.text(self._clock),
                0,
                ident.who,
                names.new_secret()[:16],
                ident.ledger,
                ident.generation,
                ident.told,
                stored_generation,
                SETTLE_MS,
            )
        )
        ident.ledger, ident.generation, ident.told = text(out[0]), int(out[1]), int(out[2])
        ident.settle_ms = int(out[3])
        return bool(out[4])

    async def run(self, script: Script, *args: str | bytes | int) -> list[Any]:
        """One guarded script. Raises `Lost` on LOSS, `Unreachable` when no answer came."""
        ident = self.identity
        sha, body = self._loaded(script)
        guard = (ident.ledger, ident.generation, ident.who, ident.told)
        try:
            out = await self.send(("EVALSHA", sha, 0, *guard, *args), effect=script.effect)
        except _NoScript:
            out = await self.send(("EVAL", body, 0, *guard, *args), effect=script.effect)
        return self._heard(script, guard[0], out)

    def post(self, script: Script, args: Arguments, landed: Landed) -> None:
        """See PostingRunner."""
        ident = self.identity
        sha, _ = self._loaded(script)
        sent_to = ident.ledger

        def told(out: Any, fault: BaseException | None) -> None:
            try:
                landed(None if fault is not None else self._heard(script, sent_to, out))
            except Lost:
                landed(None)

        command = ("EVALSHA", sha, 0, sent_to, ident.generation, ident.who, ident.told)
        self._pending.append(_Pending(command, told, _never, script.effect, args))
        now, before = asyncio.get_running_loop().time(), self._posted_at
        self._posted_at = now
        self._wait_a_little(self._left_at + PATIENCE_S - now if now - before < CROWD_S else 0.0)

    def _heard(self, script: Script, sent_to: str, out: list[Any]) -> list[Any]:
        """The reply after the witness, which is remembered. Raises Lost."""
        ident, witness = self.identity, int(out[0])
        if witness < 0:
            raise Lost(f"{script.name}: the ledger is not the one this process wrote to")
        if ident.ledger == sent_to and witness > ident.told:
            ident.told = witness
        return out[1:]

    async def read(self, *command: str | bytes | int) -> Any:
        """One plain command. Raises `Unreachable`."""
        return await self.send(command)

    def calm(self, now_ms: int) -> float:
        """Seconds until leases may be taken and attempts begun: 10 s after Redis was away or was founded anew.

        turns.md §7. After a roll-back the leases in Redis are old ones: their owners get the time to write theirs again.
        """
        away = self.trouble_at + SETTLE_MS / 1000 - asyncio.get_running_loop().time()
        return max(0.0, away, (self.identity.settle_ms - now_ms) / 1000)

    async def aclose(self) -> None:
        """Sends what waits, waits for what is in flight, then closes the connections."""
        while self._pending or self._flights:
            self._launch()
            if self._flights:
                await asyncio.wait([flight.over for flight in self._flights])
        for task in self._dials:
            task.cancel()
        await asyncio.gather(*self._dials, return_exceptions=True)
        for wire in self._idle:
            wire.drop(WireLost("closed"))
        self._idle.clear()

    def _loaded(self, script: Script) -> tuple[str, str]:
        known = self._scripts.get(script.name)
        if known is None:
            body = script.text(self._clock)
            known = (hashlib.sha1(body.encode(), usedforsecurity=False).hexdigest(), body)
            self._scripts[script.name] = known
        return known

    async def send(self, command: Command, *, effect: bool = False) -> Any:
        """One command and its reply; all but what is posted goes through here."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def landed(value: Any, fault: BaseException | None) -> None:
            if future.done():
                return
            if fault is not None:
                future.set_exception(fault)
            else:
                future.set_result(value)

        self._queue(_Pending(command, landed, future.done, effect))
        return await future

    def _queue(self, pending: _Pending) -> None:
        self._pending.append(pending)
        self._urgent = True
        if not self._due and len(self._flights) < IN_FLIGHT:
            self._due = True
            # What else is asked in this round of the loop goes along.
            asyncio.get_running_loop().call_soon(self._launch)

    def _wait_a_little(self, seconds: float) -> None:
        """For what was posted: it leaves with the next urgent command, or by then."""
        if not self._due and self._later is None and len(self._flights) < IN_FLIGHT:
            self._later = asyncio.get_running_loop().call_later(max(0.0, seconds), self._launch)

    # -- flights: callbacks, no task but for a new connection

    def _launch(self) -> None:
        self._due = False
        if self._later is not None:
            self._later.cancel()
            self._later = None
        self._urgent = False
        while self._pending and len(self._flights) < IN_FLIGHT:
            batch, self._pending = self._pending[:MAX_PIPELINE], self._pending[MAX_PIPELINE:]
            batch = [one for one in batch if one.leaves()]
            if not batch:
                continue
            durable = self._replicas > 0 and any(one.effect for one in batch)
            flight = _Flight(batch, durable, asyncio.get_running_loop().create_future())
            self._flights.add(flight)
            self._left_at = asyncio.get_running_loop().time()
            self.commands += len(batch)
            while self._idle and flight.wire is None:
                wire = self._idle.pop()
                flight.wire = None if wire.closed else wire
            if flight.wire is not None:
                self._take_off(flight)
                continue
            task = asyncio.get_running_loop().create_task(self._dialled(flight))
            self._dials.add(task)
            task.add_done_callback(self._dials.discard)

    async def _dialled(self, flight: _Flight) -> None:
        try:
            flight.wire = await dial(self._where(), self._speech, self._timeout)
        except (OSError, TimeoutError) as fault:
            self._landed(flight, None, fault)
            return
        except BaseException as fault:
            self._landed(
                flight, None, WireLost("the client closes") if isinstance(fault, asyncio.CancelledError) else fault
            )
            raise
        self._take_off(flight)

    def _take_off(self, flight: _Flight) -> None:
        wire = flight.wire
        assert wire is not None
        commands = [one.command for one in flight.batch]
        if flight.durable:
            commands.append(("WAITAOF", 1, self._replicas, WAITAOF_MS))
        late = WireLost(f"no answer within {self._timeout:g} s")
        flight.timer = asyncio.get_running_loop().call_later(self._timeout, wire.drop, late)
        try:
            wire.send(commands, lambda replies, fault: self._landed(flight, replies, fault))
        except TypeError as mistake:  # ours: whoever waits must hear of it rather than wait for ever
            self._landed(flight, None, mistake)

    def _landed(self, flight: _Flight, replies: list[Any] | None, fault: BaseException | None) -> None:
        self._flights.discard(flight)
        flight.over.set_result(None)
        if flight.timer is not None:
            flight.timer.cancel()
        if flight.wire is not None and not flight.wire.closed:
            self._idle.append(flight.wire)
        if replies is not None:
            self._settle(flight, replies)
        elif isinstance(fault, OSError | TimeoutError):
            self.trouble_at = asyncio.get_running_loop().time()
            _fail(flight.batch, Unreachable(f"no answer from Redis: {type(fault).__name__}"))
        else:
            _fail(flight.batch, fault or Unreachable("no answer from Redis"))
        if self._urgent:
            self._launch()
        elif self._pending:
            self._wait_a_little(self._left_at + PATIENCE_S - asyncio.get_running_loop().time())

    def _settle(self, flight: _Flight, replies: list[Any]) -> None:
        if flight.durable:
            acks = replies.pop()
            if not isinstance(acks, list) or acks[0] < 1 or acks[1] < self._replicas:
                not_yet = Unreachable("not yet on the replicas' disks")
                replies = [not_yet if one.effect else reply for one, reply in zip(flight.batch, replies, strict=True)]
        for item, value in zip(flight.batch, replies, strict=True):
            if isinstance(value, self._speech.refusal):
                item.landed(None, _refusal(str(value)))
            elif isinstance(value, Unreachable):
                item.landed(None, value)
            else:
                item.landed(value, None)


def _never() -> bool:
    return False


def _refusal(said: str) -> Exception:
    if said.startswith("NOSCRIPT"):
        return _NoScript(said)
    return Unreachable(said) if said.startswith(NOT_NOW) else RedisRefused(said)


def _fail(batch: list[_Pending], fault: BaseException) -> None:
    for item in batch:
        item.landed(None, fault)
