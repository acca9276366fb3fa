"""A gateway of the world: the product's own turns, sessions and lifecycle over simulated ports, with a process' life and pauses."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from contextlib import contextmanager, suppress
from types import SimpleNamespace
from typing import Any

from moorage_api.errors import ApiError
from moorage_api.ledger.journal import JournalLedger
from moorage_api.ledger.records import SessionRecord
from moorage_api.ledger.script import Lost, Unreachable
from moorage_api.ledger.sessions import SessionLedger
from moorage_api.ledger.turns import TurnLedger
from moorage_gateway.activation import Activation
from moorage_gateway.journal import journaling
from moorage_gateway.journal.carrying import Carrying
from moorage_gateway.journal.spilling import Spill
from moorage_gateway.lifecycle import Lifecycle
from moorage_gateway.recovery import Recovery
from moorage_gateway.routing import RouteTable
from moorage_gateway.store.errors import StoreUnavailable
from moorage_gateway.turns import engine as engines
from moorage_gateway.turns import keeper as keepers
from moorage_gateway.turns import service, steps
from moorage_gateway.turns.archive import Archive
from moorage_gateway.turns.lost import LostSweep
from moorage_gateway.turns.readers import LogHints, Readers
from moorage_gateway.turns.rules import Limits
from sim.loop import SimLoop
from sim.runner import CALL_S, Dead, SimRunner
from sim.sandboxes import ShimPort

PARTS: Mapping[str, Any] = {
    "engine": engines.Engine, "keeper": keepers.Keeper, "sweep": LostSweep, "readers": Readers, "turns": service.Turns,
    "activation": Activation, "lifecycle": Lifecycle, "journaling": journaling.Journaling,
}  # fmt: skip


LONG_S = 6.0
"""Stopped for so long a process may count as dead: it renews its leases every 3 s, and they last 10."""


class Store:
    """The object store: never fails, takes a moment. One `port` a gateway, which knows that gateway's pauses and death."""

    def __init__(self, rng: random.Random) -> None:
        self.objects: dict[str, bytes] = {}
        self.written: dict[str, set[bytes]] = {}
        self._rng = rng
        self._point: Any = None

    def port(self, point: Any) -> Store:
        port = Store(self._rng)
        port.objects, port.written, port._point = self.objects, self.written, point
        return port

    async def _travel(self, point: str, side: str, key: str) -> None:
        await asyncio.sleep(self._rng.uniform(0.0005, 0.01))
        if await self._point(point, side, key):
            raise StoreUnavailable("no answer")

    async def put(self, key: str, data: bytes) -> None:
        name = "accepted" if key.startswith("open/") else key.rpartition("/")[2].removesuffix(".json")
        await self._travel(f"put {name}", "before", key)
        self.objects[key] = data
        self.written.setdefault(key, set()).add(data)
        await self._travel(f"put {name}", "after", key)

    async def get(self, key: str) -> bytes | None:
        await self._travel("get", "before", key)
        return self.objects.get(key)

    async def delete(self, key: str) -> None:
        await self._travel("delete object", "before", key)
        self.objects.pop(key, None)

    async def delete_prefix(self, prefix: str) -> None:
        await self._travel("delete object", "before", prefix)
        for key in [k for k in self.objects if k.startswith(prefix)]:
            del self.objects[key]

    async def list(self, prefix: str, after: str = "", limit: int = 1000) -> list[str]:
        await self._travel("get", "before", prefix)
        return sorted(k for k in self.objects if k.startswith(prefix) and k > after)[:limit]


class SimClock:
    """The loop's time, and this process' pauses."""

    def __init__(self, loop: SimLoop, gate: Any) -> None:
        self._loop = loop
        self._gate = gate

    def now_ms(self) -> int:
        return int(self._loop.now * 1000)

    def monotonic(self) -> float:
        return self._loop.now

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self._gate()


class NoSpans:
    """Telemetry of the world: none."""

    @contextmanager
    def attempt(self, held: Any, number: int) -> Any:
        yield steps.Attempted()


class NoObserver:
    """Calls that ended: nobody looks."""

    def ended(self, call: Any) -> None:
        return


class NoFiles:
    """Checkpoints of the world: none. Its volumes carry every session over."""

    async def source(self, *about: Any) -> str:
        return ""

    async def keep(self, *about: Any) -> str:
        return ""

    async def archive(self, record: SessionRecord) -> bool:
        return False

    async def move(self, record: SessionRecord) -> bool:
        return False


class Gateway:
    """One process. `parts` of a schedule may replace a class of the product by one without a rule."""

    def __init__(self, world: Any, name: str) -> None:
        self.world, self.name = world, name
        self.dead = False
        self.stopped = False  # ever, for about as long as a lease
        self.paused_until = 0.0
        self.tasks: dict[asyncio.Task[Any], None] = {}  # in order: a set's order is not the seed's
        self._raw: set[asyncio.Task[Any]] = set()
        self.runner = SimRunner(world, name, self.point, self.spawn)
        self._compose(PARTS | world.schedule.parts)

    def _compose(self, parts: Mapping[str, Any]) -> None:
        world, runner = self.world, self.runner
        clock = SimClock(world.loop, self.gate)
        turns, self.sessions = TurnLedger(runner), SessionLedger(runner)
        self.archive = Archive(world.store.port(self.point))  # type: ignore[arg-type]
        self.recovery = Recovery(runner, stored_generation=self.archive.generation)  # type: ignore[arg-type]
        shims = self.shims = ShimPort(world, self.point)
        self.table = RouteTable(clock)
        files = NoFiles()
        self.activation = parts["activation"](self.sessions, shims, self.table, clock, self.recovery, lambda: [], files)
        generation = lambda: runner.identity.generation  # noqa: E731
        calm = lambda: runner.calm(clock.now_ms())  # noqa: E731
        if "no_calm" in world.schedule.flags:
            calm = lambda: 0.0  # noqa: E731

        async def history(held: Any) -> list[dict[str, Any]]:
            return []

        ports = steps.Ports(
            turns,
            self.activation,
            shims,
            self.archive,
            clock,
            self.recovery,
            NoSpans(),
            history,
            generation,
            calm,
            JournalLedger(runner).progress,
            history,
        )
        port = world.store.port(self.point)
        spill = Spill(port, clock)  # type: ignore[arg-type]

        async def carries(response: str) -> bool:
            return False  # no turn of this world is a further try of another

        carrying = Carrying(JournalLedger(runner), spill, port, carries)  # type: ignore[arg-type]
        self.journaling = parts["journaling"](
            JournalLedger(runner), self.recovery, spill, clock, calm=calm, limits=journaling.Limits(), observer=NoObserver(),
            carrying=carrying,
        )  # fmt: skip
        limits = Limits(timeout_s=300.0, acquire_s=60.0, queue=world.queue)
        self.keeper = parts["keeper"](
            engine=parts["engine"](ports), ledger=turns, store=self.archive, clock=clock, recovery=self.recovery,
            limits=lambda record: limits, generation=generation, calm=calm, capacity=100,
        )  # fmt: skip

        async def stored(tenant: str, response: str) -> list[dict[str, Any]] | None:
            document = await self.archive.document(tenant, response)
            return document.events if document else None

        self.logs = LogHints()
        self.turns = parts["turns"](
            ledger=turns, keeper=self.keeper, readers=parts["readers"](turns, clock, self.logs, self.keeper.get, stored),
            store=self.archive, clock=clock, recovery=self.recovery, limits_of=lambda tenant, agent: limits,
            generation=generation,
        )  # fmt: skip
        self.sweep = parts["sweep"](turns, self.archive, clock, self.keeper.get)
        catalog = SimpleNamespace(get=lambda tenant, agent: SimpleNamespace(spec=world.spec))
        self.lifecycle = parts["lifecycle"](self.sessions, shims, catalog, clock, self.recovery, self._forget, files, 0)

    async def _forget(self, record: SessionRecord) -> None:
        await self.sessions.delete_session(record.key)

    def held_up(self) -> bool:
        """Whether it is paused."""
        return self.paused_until > self.world.loop.now

    def stop(self, seconds: float) -> None:
        """Stops it for a while."""
        self.paused_until = max(self.paused_until, self.world.loop.now + seconds)
        self.stopped |= self.paused_until - self.world.loop.now > LONG_S

    async def gate(self) -> None:
        """Where a killed process stops and a paused one waits."""
        if self.dead:
            raise Dead
        while self.paused_until > self.world.loop.now:
            await asyncio.sleep(self.paused_until - self.world.loop.now)
            if self.dead:
                raise Dead

    async def point(self, name: str, side: str, about: Any) -> bool:
        """Before and after everything it does outside itself. True: the reply is lost."""
        if self.dead:
            raise Dead
        trap = self.world.traps.spring(name, side)
        lost = False
        if trap is not None:
            self.world.sprung(self, trap, about)
            lost = trap.action in ("late", "lose")
            if trap.action in ("pause", "late"):
                self.stop(trap.seconds)
            elif trap.action == "kill":
                self.world.kill_gateway(self)
            elif trap.action == "slow":
                await asyncio.sleep(min(trap.seconds, CALL_S))
                lost = trap.seconds > CALL_S
        await self.gate()
        return lost

    async def start(self) -> None:
        while True:
            with suppress(Unreachable, Lost):
                await self.runner.found(stored_generation=await self.archive.generation())
                break
        self.recovery.adopted()
        await self.archive.put_generation(self.runner.identity.generation)
        loops = [self.keeper.run(), self._beats(), self.sweep.run(self.recovery)]
        if self.world.servers is not None:
            loops.append(self.journaling.run())
        if self.world.drains:
            loops.append(self.lifecycle.run())
        for work in loops:
            self.spawn(work)

    def spawn(self, work: Any, *, raw: bool = False) -> asyncio.Task[Any]:
        """A task of this process: it ends when the process is killed. `raw`: a ledger call, whose errors its caller meets."""
        task = self.world.loop.create_task(work)
        self.tasks[task] = None
        if raw:
            self._raw.add(task)
        task.add_done_callback(self._ended)
        return task  # type: ignore[no-any-return]

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self.tasks.pop(task, None)
        if task.cancelled() or task.exception() is None or isinstance(task.exception(), ApiError | TimeoutError):
            return
        if task in self._raw and isinstance(task.exception(), Lost | Unreachable):
            return
        self.world.violations.append(f"{self.name} met {task.exception()!r}")

    async def _beats(self) -> None:
        """The invalidation stream: it beats, or is silent for a while."""
        while True:
            await asyncio.sleep(2.0)
            await self.gate()
            if self.world.rng.random() < 0.5:
                self.table.beat()

    def hear(self, channel: str, payload: str) -> None:
        """A hint arrived."""
        if self.dead or self.paused_until > self.world.loop.now:
            return
        if channel == "turns":
            self.keeper.hint(payload)
        elif channel == "log":
            self.logs.hint(payload)

    def kill(self) -> None:
        self.dead = True
        calls = [*self.journaling._starting, *self.journaling._making.tasks]
        for task in [*self.tasks, *self.keeper._tasks.values(), *sorted(calls, key=lambda each: each.get_name())]:
            task.cancel()
