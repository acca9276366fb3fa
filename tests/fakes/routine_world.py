"""Schedulers of routines on one Valkey, by a clock that the test sets, over turns that are played.

Limits: a played turn ends when the test's clock says so, and is never queued; no sandbox and no session is behind it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import redis.asyncio as aioredis

from fakes.valkey import Valkey
from moorage_api import names
from moorage_api.catalog import RoutineEntry
from moorage_api.errors import ApiError, Kind
from moorage_api.kinds import Routine, parse_any
from moorage_api.kinds.agent import API_VERSION
from moorage_api.ledger.routines import RoutineLedger
from moorage_gateway.ledger_client import LedgerClient
from moorage_gateway.routines.history import History
from moorage_gateway.routines.holds import Holds
from moorage_gateway.routines.known import Known
from moorage_gateway.routines.scheduling import Scheduler
from moorage_gateway.routines.state import Alert, Run, State, Turn
from moorage_gateway.store.memory import MemoryStore

CLOCK_KEY = "test:clock"  # microseconds
CLOCK = f"{{math.floor(tonumber(redis.call('GET', '{CLOCK_KEY}')) / 1e6), tonumber(redis.call('GET', '{CLOCK_KEY}')) % 1e6}}"
START_MS = 1_800_000_000_000


class HandClock:
    """The wall is the test's, waiting is the machine's."""

    def __init__(self) -> None:
        self.ms = START_MS

    def now_ms(self) -> int:
        return self.ms

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def _set() -> asyncio.Event:
    made = asyncio.Event()
    made.set()
    return made


@dataclass
class PlayedTurns:
    """Every turn that was ever accepted, by its response, in order. `faults`: the share of acceptances that are refused for a moment,
    half of them after the turn was accepted."""

    clock: HandClock
    rng: random.Random
    lasts_ms: int = 0
    faults: float = 0.0
    accepted: dict[str, tuple[str, int, int]] = field(default_factory=dict)
    """Response → routine, slot, when (ms)."""
    times: int = 0
    cancelled: list[str] = field(default_factory=list)
    cancels: asyncio.Event = field(default_factory=_set)
    """Cleared: whoever cancels waits."""
    unheard: set[str] = field(default_factory=set)
    """Routines whose acceptances nobody is told of."""
    fails: set[str] = field(default_factory=set)
    """Routines whose agent reports a failure."""
    longer: Callable[[int], int] = lambda _: 0
    """What a turn lasts beyond `lasts_ms`, by its slot (ms)."""

    async def accept(self, tenant: str, known: Known, state: State, run: Run) -> str:
        self.times += 1
        response = self.response(tenant, known, run)
        if self.rng.random() < self.faults / 2:
            raise ApiError(Kind.UNAVAILABLE, "not now")
        # As long as some of the test's steps: what was taken is taken by others meanwhile.
        await asyncio.sleep(self.rng.choice((0, 0, 0, 0.05, 0.1)))
        self.accepted.setdefault(response, (known.name, run.slot, self.clock.ms))
        if known.name in self.unheard or self.rng.random() < self.faults / 2:
            raise ApiError(Kind.UNAVAILABLE, "accepted, but who knows")
        return response

    async def look(self, tenant: str, response: str) -> Turn:
        found = self.accepted.get(response)
        if found is None:
            return Turn("missing")
        if self.clock.ms < found[2] + self.lasts_ms + self.longer(found[1]):
            return Turn("open")
        return Turn("failed", "", "told to fail") if found[0] in self.fails else Turn("completed", "done")

    async def ended(self, tenant: str, response: str) -> Turn:
        while (turn := await self.look(tenant, response)).status == "open":
            await asyncio.sleep(0.01)
        return turn

    async def cancel(self, tenant: str, response: str) -> None:
        await self.cancels.wait()
        self.cancelled.append(response)

    def response(self, tenant: str, known: Known, run: Run) -> str:
        """See Running."""
        return names.derived_response_id("0123456789abcdef", known.spec.agent, known.name, run.id, str(run.number))

    async def carry(self, tenant: str, run: Run) -> None:
        """No steps are played."""

    async def forget(self, tenant: str, names: Iterable[str]) -> None:
        """Turns are kept."""


class NobodyTold:
    """Takes every alert."""

    def __init__(self) -> None:
        self.alerts: list[Alert] = []
        self.answers = asyncio.Event()
        """Cleared: whoever tells waits."""
        self.answers.set()

    async def told(self, tenant: str, routine: str, agent: str, targets: Any, alerts: list[Alert]) -> dict[str, str]:
        self.alerts += alerts
        await self.answers.wait()
        return {alert.id: "" for alert in alerts}


class RoutineWorld:
    """The clock, the turns, and schedulers by number."""

    def __init__(self, server: Valkey, *, seed: int, faults: float = 0.0, lasts_ms: int = 0) -> None:
        self._server = server
        self.clock = HandClock()
        self.rng = random.Random(seed)
        self.turns = PlayedTurns(self.clock, self.rng, lasts_ms, faults)
        self.store = MemoryStore()
        self.history = History(self.store)
        self.people = NobodyTold()
        self._running: dict[int, tuple[asyncio.Task[None], LedgerClient, Scheduler]] = {}
        self._own: LedgerClient | None = None

    async def begin(self) -> None:
        """The clock is there, before any script."""
        await self._write_clock()
        self._own = await self._client("test")

    async def start(self, number: int) -> None:
        """One more scheduler."""
        client = await self._client(f"gw-{number}-{self.rng.getrandbits(32):x}")

        class Recovering:
            async def recover(self) -> None:
                await client.found()

        running: Any = self.turns
        people: Any = self.people
        made: Scheduler = Scheduler(
            RoutineLedger(client), running, self.history, Holds(self.store), people, Recovering(), self.clock
        )
        self._running[number] = (asyncio.create_task(made.run()), client, made)

    async def kill(self, number: int) -> None:
        """It stops between two of its steps, wherever it is."""
        task, client, _ = self._running.pop(number)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await client.aclose()

    @property
    def alive(self) -> list[int]:
        return sorted(self._running)

    async def publish(self, name: str, **spec: Any) -> None:
        """A routine, as a provider makes it known."""
        whole = {"agent": "a", "input": "go", **spec}
        made = parse_any({"apiVersion": API_VERSION, "kind": "Routine", "metadata": {"name": name}, "spec": whole})
        assert isinstance(made, Routine)
        await self.ledger.publish(RoutineEntry("dev", name, made.wire_spec()))

    @property
    def ledger(self) -> RoutineLedger:
        assert self._own is not None
        return RoutineLedger(self._own)

    async def tick(self, seconds: float) -> None:
        """Everybody's clock moves, and everybody looks."""
        self.clock.ms += int(seconds * 1000)
        await self._write_clock()
        self.wake()

    def wake(self) -> None:
        """What a hint does, and what real time would: schedulers sleep by a clock that this one is not."""
        for _, _, made in self._running.values():
            made.hint("")

    async def emptied(self, server: Valkey) -> None:
        """Redis has lost all it held; no scheduler runs."""
        client = aioredis.Redis.from_url(server.url)
        try:
            await client.flushall()
        finally:
            await client.aclose()
        await self._write_clock()
        await self.again()

    async def again(self) -> None:
        """Our own client meets its ledger again."""
        assert self._own is not None
        await self._own.found()

    async def _write_clock(self) -> None:
        client = aioredis.Redis.from_url(self._server.url)
        try:
            await client.set(CLOCK_KEY, self.clock.ms * 1000)
        finally:
            await client.aclose()

    async def _client(self, who: str) -> LedgerClient:
        client = LedgerClient(aioredis.Redis.from_url(self._server.url), who=who, clock=CLOCK, call_timeout=5)
        await client.found()
        return client

    async def aclose(self) -> None:
        """Ends everything."""
        for number in self.alive:
            await self.kill(number)
        if self._own is not None:
            await self._own.aclose()
