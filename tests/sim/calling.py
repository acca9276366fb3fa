"""Calls of simulated agents past the boundary, the servers that they reach, and what must hold of both (turns.md §6, §9.3).

Agents ask models (which may be asked again) and tools (effects), one by one and in parallel, some twice the same, some otherwise in a later
attempt. Shims number and send again; the gateways' part is the product's own journal.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from moorage_api.ledger.journal import Asking, Binding, Permits
from moorage_api.wire.shim import Start
from moorage_gateway.journal.answers import Answer
from moorage_gateway.journal.flights import Broken
from moorage_gateway.journal.found import Stored
from moorage_gateway.journal.kinds import NoOutcome, Outlet
from moorage_gateway.journal.refusals import Refused
from moorage_gateway.journal.seeing import Call
from sim.sandboxes import Attempt, Sandbox

FENCED, UNKNOWN, EARLIER = b"fenced", b"unknown", b"earlier "
POINTS = ("journal_start", "journal_start", "journal_complete", "journal_complete", "call", "call", "call answered")


@dataclass(frozen=True)
class Slot:
    """One call of a turn's agent, the same in every attempt but for `drifts`. `at`: after which event; equal `name`s are equal calls."""

    name: str
    at: int
    effect: bool
    seconds: float
    breaks: bool
    drifts: bool


def slots_of(turn: str) -> list[Slot]:
    """What a turn's agent calls."""
    rng = random.Random(f"{turn}/calls")
    drifts, at, found = rng.random() < 0.4, 0, list[Slot]()
    for n in range(rng.randrange(2, 6)):
        at += rng.random() < 0.6  # else beside the one before
        effect = rng.random() < 0.6
        seconds = rng.choice((0.02, 0.3, 0.3, 2.0, 2.0, 14.0))
        found.append(Slot(f"c{n}", at, effect, seconds, rng.random() < 0.06, drifts and effect))
    if not drifts and rng.random() < 0.4:
        found.append(rng.choice(found))
    return found


def said_in(slot: Slot, attempt: int) -> str:
    """What an attempt asks there."""
    return f"{slot.name}/{attempt}" if slot.drifts else slot.name


def fingerprint(said: str) -> str:
    """As a kind of call makes one."""
    return hashlib.sha256(said.encode()).hexdigest()[:16]


@dataclass
class Run:
    """One time that a server did what it was asked."""

    gateway: Any
    broke: bool = False


@dataclass(frozen=True)
class Told:
    """What an attempt's agent was answered."""

    begun: int
    slot: Slot
    body: bytes


class Asked:
    """One call as the journal sees it (`kinds.Performed`)."""

    bounded = None

    def __init__(self, servers: Servers, gateway: Any, turn: str, slot: Slot, attempt: int) -> None:
        self._servers, self._gateway, self._turn, self._slot = servers, gateway, turn, slot
        said = said_in(slot, attempt)
        self.fingerprint = fingerprint(said)
        self.permits: Permits = "once" if slot.effect else "again"
        self.what = {"kind": "tool" if slot.effect else "model"}
        self.tool = slot.name if slot.effect else ""
        self.call = said

    def unknown(self) -> Answer:
        """See Prepared."""
        return Answer(409, (), UNKNOWN)

    def earlier(self, call: str, answer: Answer | None) -> Answer:
        """See Prepared."""
        return Answer(409, (), EARLIER + (answer.body if answer is not None else UNKNOWN))

    async def perform(self, outlet: Outlet) -> None:
        """See Performed."""
        await self._gateway.point("call", "before", (self._turn,))
        await outlet.sending()
        run = self._servers.run(self._turn, self._slot, self._gateway)
        number = len(self._servers.runs[self._turn, self._slot.name])
        await asyncio.sleep(self._servers.seconds(self._slot))
        if self._slot.breaks and number == 1:
            run.broke = True
            raise NoOutcome("the server broke off")
        await self._gateway.point("call", "after", (self._turn,))
        outlet.begin(200, (), streams=False)
        outlet.put(f"{self._slot.name} run {number}".encode())


@dataclass
class Ledger:
    """What scripts of the journal said, by (turn, entry)."""

    permitted: dict[tuple[str, str], list[Any]] = field(default_factory=lambda: defaultdict(list))
    recorded: dict[tuple[str, str], bytes] = field(default_factory=dict)


class Servers:
    """Models and tools, the agents' way to them, and the judge of it."""

    def __init__(self, world: Any, calls: str) -> None:
        """`calls`: any, or `long` for those that outlast a lease alone."""
        self._world = world
        self._long = calls == "long"
        self.runs: dict[tuple[str, str], list[Run]] = defaultdict(list)
        self.told: dict[str, list[Told]] = defaultdict(list)
        self.ledger = Ledger()
        self._numbers: dict[int, int] = defaultdict(int)

    def seconds(self, slot: Slot) -> float:
        """How long it takes."""
        return slot.seconds + 12.0 if self._long else slot.seconds

    def run(self, turn: str, slot: Slot, gateway: Any) -> Run:
        """It is done, whatever becomes of who asked."""
        made = Run(gateway)
        self.runs[turn, slot.name].append(made)
        self._world.counts["effects done" if slot.effect else "models asked"] += 1
        return made

    # -- the agent and its shim -----------------------------------------------------------------------------------------

    async def agent(self, sandbox: Sandbox, attempt: Attempt, start: Start, event: int) -> None:
        """The calls that follow an event."""
        mine = [slot for slot in slots_of(start.turn) if slot.at == event]
        asks = []
        for slot in mine:
            self._numbers[attempt.begun] += 1
            asks.append(self._ask(sandbox, attempt, start, slot, self._numbers[attempt.begun]))
        await asyncio.gather(*asks)

    async def _ask(self, sandbox: Sandbox, attempt: Attempt, start: Start, slot: Slot, number: int) -> None:
        rng, resent = self._world.rng, False
        while True:
            await asyncio.sleep(rng.uniform(0.0005, 0.01))
            gateways = self._world.alive()
            if sandbox.cut or not gateways:
                await asyncio.sleep(0.5)
                continue
            found = await self._sent(rng.choice(gateways), sandbox, attempt, start, slot, (number, resent))
            if found is not None:
                break
            resent = True
            await asyncio.sleep(rng.uniform(0.1, 1.0))
        if found == FENCED:
            await asyncio.Event().wait()  # nobody's any more: the attempt is about to be ended
        self._answered(start.turn, Told(attempt.begun, slot, found))

    async def _sent(
        self, gateway: Any, sandbox: Sandbox, attempt: Attempt, start: Start, slot: Slot, sending: tuple[int, bool]
    ) -> bytes | None:
        """To one gateway; None: no answer came."""
        assert sandbox.who is not None
        asked = Asked(self, gateway, start.turn, slot, start.attempt)
        binding = Binding(sandbox.id, sandbox.session, sandbox.epoch, sandbox.who.tenant, sandbox.who.agent)
        number, resent = sending
        asking = Asking(
            start.turn, attempt.begun, number, asked.fingerprint, asked.permits, resent, asked.what, tool=asked.tool, call=asked.call
        )  # fmt: skip
        serving: asyncio.Task[bytes | None] = gateway.spawn(self._served(gateway, Call(binding, asking, asked)))
        try:
            while not serving.done():
                await asyncio.wait({serving}, timeout=0.5)
                if gateway.dead or sandbox.cut:
                    return None
        finally:
            if not serving.done() and self._world.rng.random() < 0.5:
                serving.cancel()  # else it does not notice that its shim has left
        return None if serving.cancelled() else serving.result()

    async def _served(self, gateway: Any, call: Call) -> bytes | None:
        found = await gateway.journaling.ask(call)
        if isinstance(found, Refused):
            return {"again": None, "fenced": FENCED}.get(found.word, b"no")
        if isinstance(found, Stored):
            self._world.counts["calls met again"] += 1
            body = found.answer.body
        else:
            try:
                if not await found.head():
                    return None
                body = b"".join([piece async for piece in found.follow()])
            except Broken:
                return None
        lost = await gateway.point("call answered", "before", (call.asking.response,))
        return None if lost else bytes(body)

    # -- what must hold as it happens -----------------------------------------------------------------------------------

    def started(self, who: Any, args: tuple[Any, ...], out: list[Any], seen: list[Any]) -> None:
        """`journal_start` answered; `seen`: the turn's attempt, cancel and state just before."""
        if out[0] != b"RUN":
            return
        turn, begun, key = args[5], args[6], (args[5], out[1].decode())
        gateway = next(each for each in self._world.gateways if each.name == who.who)
        again = any(each == (gateway, args[11]) for each in self.ledger.permitted[key])
        if int(seen[0][0] or 0) != begun:
            self._broken(f"{turn}: attempt {begun} was permitted a call, and {seen[0][0]} runs")
        if not again and (seen[0][1] == b"1" or seen[0][2] != b"running"):
            self._broken(f"{turn} was permitted a call after its cancel or its end")
        if key in self.ledger.recorded and not self._world.losses:
            self._broken(f"{turn}: a call that is recorded was permitted again")
        self.ledger.permitted[key].append((gateway, args[11]))

    def completed(self, who: Any, args: tuple[Any, ...], out: list[Any], seen: list[Any]) -> None:
        """`journal_complete` answered."""
        if out[0] == b"OK" and args[4] == "completed":
            key, body = (args[0], args[1]), args[5].partition(b"\n")[2]
            if self._world.losses:
                self.ledger.recorded[key] = body  # what was recorded before may be lost
            self.ledger.recorded.setdefault(key, body)

    def _answered(self, turn: str, told: Told) -> None:
        """An agent was answered."""
        self.told[turn].append(told)
        body = told.body.removeprefix(EARLIER)
        if body != told.body:
            self._world.counts["calls turned away"] += 1
        if body == UNKNOWN:
            self._world.counts["outcomes unknown"] += 1
            if not self._excused(turn, told.slot):
                self._broken(f"{turn}: nobody who made {told.slot.name} died, and its outcome is unknown")
        elif body not in {data for (other, _), data in self.ledger.recorded.items() if other == turn}:
            self._broken(f"{turn}: {told.slot.name} was answered {body!r} before that was recorded")

    def _excused(self, turn: str, slot: Slot) -> bool:
        """Whether a gateway that may have made it died, or was stopped past its lease, or the server broke off."""
        if self._world.losses or self._world.counts["jumps of Redis' clock"]:
            return True
        asked = {fingerprint(said_in(slot, attempt)) for attempt in range(1, 25)}
        mine = [
            them for (other, e), them in self.ledger.permitted.items() if other == turn and e.partition(".")[0] in asked
        ]
        makers = [each for them in mine for each, _ in them]
        return any(each.dead or each.stopped for each in makers) or any(run.broke for run in self.runs[turn, slot.name])

    # -- at the end -----------------------------------------------------------------------------------------------------

    def end(self) -> None:
        """Every turn."""
        for turn in sorted({turn for turn, _ in self.runs} | set(self.told)):
            self._effects(turn)
            self._replays(turn)

    def _effects(self, turn: str) -> None:
        for name, wanted, told in self._by_name(turn):
            runs = self.runs[turn, name]
            if len(runs) > wanted:
                self._broken(f"{turn}: {name} is to be done {wanted} times at most, and was done {len(runs)} times")
            last = [each for each in told if each.begun == max(x.begun for x in self.told[turn])]
            sure = len(last) == wanted and all(UNKNOWN not in each.body for each in last)
            if sure and len(runs) != wanted:
                self._broken(f"{turn}: {name} was answered {wanted} times, and done {len(runs)} times")

    def _by_name(self, turn: str) -> Iterator[tuple[str, int, list[Told]]]:
        slots = slots_of(turn)
        for name in sorted({slot.name for slot in slots if slot.effect}):
            told = [each for each in self.told[turn] if each.slot.name == name]
            yield name, sum(1 for slot in slots if slot.name == name), told

    def _replays(self, turn: str) -> None:
        """The same call is answered the same in every attempt, once it was answered."""
        slots = slots_of(turn)
        for slot in dict.fromkeys(slots):
            said = {each.body.removeprefix(EARLIER) for each in self.told[turn] if each.slot == slot}
            if slots.count(slot) == 1 and len(said) > 1 and not self._world.losses:
                self._broken(f"{turn}: {slot.name} was answered {sorted(said)}")

    def _broken(self, text: str) -> None:
        self._world.violations.append(text)
