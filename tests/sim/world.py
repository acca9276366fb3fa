"""One schedule: gateways of the product's own code, clients, faults at random, and what must hold at the end."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from moorage_api import names
from moorage_api.errors import ApiError
from moorage_api.ledger.provider import ProviderLedger
from moorage_api.ledger.records import SessionIdentity
from moorage_api.ledger.script import Lost, Unreachable
from moorage_api.ledger.sessions import SessionLedger
from moorage_api.ledger.turns import TurnLedger
from moorage_gateway.activation import Activation
from moorage_gateway.auth import Principal
from moorage_gateway.ledger_client import Recovery
from moorage_gateway.routing import RouteTable
from moorage_gateway.turns import engine as engines
from moorage_gateway.turns import keeper as keepers
from moorage_gateway.turns.archive import Archive
from moorage_gateway.turns.readers import LogHints, Readers
from moorage_gateway.turns.rules import Limits
from moorage_gateway.turns.service import TurnRequest, Turns
from sim.loop import SimLoop, Stuck
from sim.runner import Dead, Faults, SimRunner, Wire
from sim.sandboxes import Provider, Sandbox, ShimPort, Shims

FAULT_SECONDS = 40.0
SETTLE_SECONDS = 900.0
CALLER = Principal("dev", "u", "k", None, frozenset({"invoke"}))


@dataclass(frozen=True)
class Schedule:
    """What one seed does. `kind`: kills, redis (flush and roll-back too)."""

    seed: int
    kind: str
    gateways: int = 2
    turns: int = 4
    mutations: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    flags: frozenset[str] = frozenset()


class Store:
    """The object store of the world: never fails, takes a moment."""

    def __init__(self, rng: random.Random) -> None:
        self.objects: dict[str, bytes] = {}
        self.written: dict[str, set[bytes]] = {}
        self._rng = rng

    def port(self, gate: Any) -> Store:
        port = Store(self._rng)
        port.objects, port.written, port.gate = self.objects, self.written, gate  # type: ignore[attr-defined]
        return port

    async def _travel(self) -> None:
        await asyncio.sleep(self._rng.uniform(0.001, 0.02))
        await self.gate()  # type: ignore[attr-defined]

    async def put(self, key: str, data: bytes) -> None:
        await self._travel()
        self.objects[key] = data
        self.written.setdefault(key, set()).add(data)

    async def get(self, key: str) -> bytes | None:
        await self._travel()
        return self.objects.get(key)

    async def delete(self, key: str) -> None:
        await self._travel()
        self.objects.pop(key, None)

    async def delete_prefix(self, prefix: str) -> None:
        await self._travel()
        for key in [k for k in self.objects if k.startswith(prefix)]:
            del self.objects[key]

    async def list(self, prefix: str, after: str = "", limit: int = 1000) -> list[str]:
        await self._travel()
        return sorted(k for k in self.objects if k.startswith(prefix) and k > after)[:limit]


class SimClock:
    """The loop's time, and this process' pauses."""

    def __init__(self, loop: SimLoop, gate: Any) -> None:
        self._loop = loop
        self._gate = gate

    def now_ms(self) -> int:
        return int(self._loop.time() * 1000)

    def monotonic(self) -> float:
        return self._loop.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self._gate()


class NoSpans:
    """Telemetry of the world: none."""

    @contextmanager
    def attempt(self, held: Any, number: int) -> Any:
        yield engines.Attempted()


@dataclass
class Seen:
    """One client's view of a response."""

    response: str
    events: dict[int, bytes] = field(default_factory=dict)
    cursor: int = -1
    ended: bool = False
    on: set[str] = field(default_factory=set)


class Gateway:
    """A gateway process: the product's composition of turns over simulated ports."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.dead = False
        self.paused_until = 0.0
        self.tasks: set[asyncio.Task[Any]] = set()
        loop, rng = world.loop, world.rng
        runner = SimRunner(world.redis, loop, rng, name, world.faults, world.schedule.mutations, self.gate)
        runner.on_found = world.founded.append
        self.runner = runner
        clock = SimClock(loop, self.gate)
        turns, sessions = TurnLedger(runner), SessionLedger(runner)
        archive = Archive(world.store.port(self.gate))  # type: ignore[arg-type]
        self.recovery = Recovery(runner, stored_generation=archive.generation)  # type: ignore[arg-type]
        shims = ShimPort(world.shims, self.gate, rng)
        self.table = RouteTable(clock)
        activation = Activation(sessions, shims, self.table, clock, self.recovery, lambda: [])
        self.sessions = sessions
        generation = lambda: runner.identity.generation  # noqa: E731
        calm = lambda: runner.calm(clock.now_ms())  # noqa: E731

        async def history(held: Any) -> list[dict[str, Any]]:
            return []

        engine = world.engine_type(
            engines.Ports(turns, activation, shims, archive, clock, self.recovery, NoSpans(), history, generation, calm)
        )
        limits = Limits(timeout_s=300.0, acquire_s=60.0, queue=4)
        self.keeper = keepers.Keeper(
            engine=engine,
            ledger=turns,
            store=archive,
            clock=clock,
            recovery=self.recovery,
            limits=lambda record: limits,
            generation=generation,
            calm=calm,
            capacity=100,
        )

        async def stored(tenant: str, response: str) -> list[dict[str, Any]] | None:
            document = await archive.document(tenant, response)
            return document.events if document else None

        readers = Readers(turns, clock, LogHints(), self.keeper.get, stored)
        self.turns = Turns(
            ledger=turns,
            keeper=self.keeper,
            readers=readers,
            store=archive,
            clock=clock,
            recovery=self.recovery,
            limits_of=lambda tenant, agent: limits,
            generation=generation,
        )
        self.sweep = keepers.LostSweep(turns, archive, clock, self.keeper.get)
        self.archive = archive

    async def gate(self) -> None:
        """Where a killed process stops and a paused one waits: before and after everything it does outside itself."""
        if self.dead:
            raise Dead
        while self.paused_until > self.world.loop.time():
            await asyncio.sleep(self.paused_until - self.world.loop.time())
            if self.dead:
                raise Dead

    async def start(self) -> None:
        while True:
            with suppress(Unreachable, Lost):
                await self.runner.found(stored_generation=await self.archive.generation())
                break
        self.recovery.adopted()
        await self.archive.put_generation(self.runner.identity.generation)
        for work in (self.keeper.run(), self._beats(), self.sweep.run(self.recovery)):
            self.spawn(work)

    def spawn(self, work: Any) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        if task.cancelled() or task.exception() is None or isinstance(task.exception(), ApiError | TimeoutError):
            return
        self.world.violations.append(f"{self.name} met {task.exception()!r}")

    async def _beats(self) -> None:
        while True:
            await asyncio.sleep(2.0)
            await self.gate()
            if self.world.rng.random() < 0.5:
                self.table.beat()

    def kill(self) -> None:
        self.dead = True
        for task in [*self.tasks, *self.keeper._tasks.values()]:
            task.cancel()


class World:
    """Builds it, breaks it, lets it settle, judges it."""

    def __init__(self, redis: Wire, loop: SimLoop, schedule: Schedule, engine_type: Any = engines.Engine):
        self.redis, self.loop, self.schedule = redis, loop, schedule
        self.rng = random.Random(schedule.seed)
        self.engine_type = engine_type
        self.faults = Faults(lost_reply=0.01, refused=0.005, slow=0.002)
        self.store = Store(self.rng)
        self.shims = Shims(self, self.program, schedule.flags)
        self.gateways: list[Gateway] = []
        self.born = 0
        self.identities: dict[str, SessionIdentity] = {}
        self.volume_owner: dict[str, set[str]] = {}
        self.starts: dict[str, list[tuple[int, int]]] = {}
        self.seen: list[Seen] = []
        self.accepted: dict[str, str] = {}
        self.kinds: dict[str, str] = {}
        self.cancelled: set[str] = set()
        self.violations: list[str] = []
        self.accepted_in: dict[str, int] = {}  # ledger generation in which a client was told of acceptance, at the latest
        self.founded: list[tuple[float, int]] = []
        self.losses: list[float] = []
        self.owner_deaths: list[float] = []
        self.clients: set[asyncio.Task[Any]] = set()

    # -- the agents -----------------------------------------------------------------------------------------------------

    def program(self, turn: str, attempt: int, rng: random.Random) -> list[tuple[float, dict[str, Any]]]:
        """Events of one attempt: one message of words; `rechunked` in other chunks, `other` with other words later."""
        kind = self.kinds.get(turn, "same")
        base = random.Random(turn)
        words = [f"w{base.randrange(100)} " for _ in range(base.randrange(4, 12))]
        if kind == "other" and attempt > 1:
            at = rng.randrange(len(words))
            words[at:] = [f"x{attempt}.{i} " for i in range(len(words) - at)]
        text = "".join(words)
        chunks = words
        if kind == "rechunked":
            chunks, rest = [], text
            while rest:
                n = rng.randrange(1, 6)
                chunks.append(rest[:n])
                rest = rest[n:]
        item = {"id": f"m{attempt}", "type": "message", "role": "assistant", "status": "in_progress", "content": []}
        part = {"type": "output_text", "text": "", "annotations": []}
        events: list[dict[str, Any]] = [
            {"type": "response.created", "response": {"id": "r", "output": []}},
            {"type": "response.output_item.added", "output_index": 0, "item": item},
            {"type": "response.content_part.added", "item_id": item["id"], "output_index": 0, "content_index": 0, "part": part},
        ]
        where = {"item_id": item["id"], "output_index": 0, "content_index": 0}
        events += [{"type": "response.output_text.delta", "delta": c, "logprobs": []} | where for c in chunks]
        whole = part | {"text": text}
        done = item | {"status": "completed", "content": [whole]}
        events += [
            {"type": "response.output_text.done", "text": text, "logprobs": []} | where,
            {"type": "response.content_part.done", "part": whole} | where,
            {"type": "response.output_item.done", "output_index": 0, "item": done},
            {"type": "response.completed", "response": {"id": "r", "status": "completed", "output": [done]}},
        ]
        return [(rng.uniform(0.05, 1.2), e) for e in events]

    def attempt_started(self, turn: str, begun: int, number: int, sandbox: Sandbox, session: str) -> None:
        if sandbox.session != session:
            self.violations.append(f"{turn} started in the sandbox of another session")
        for other in self.shims.by_endpoint.values():
            if other is not sandbox and other.alive and other.attempt is not None and other.attempt.turn == turn:
                if other.attempt.begun in other.running and not other.cut:
                    self.violations.append(f"{turn} runs in {other.id} and {sandbox.id}")
        running = self.redis.execute_command("HGET", f"s:{session}", "running")
        if running is not None and running.decode() != turn and not self.losses:
            self.violations.append(f"{turn} started although {running.decode() or 'no turn'} is the session's running turn")
        volumes = [x for x in self.shims.by_endpoint.values() if x.alive and not x.cut and x.volume == sandbox.volume]
        if len(volumes) > 1:
            self.violations.append(f"{sandbox.volume} is written by {[x.id for x in volumes]}")
        self.starts.setdefault(turn, []).append((begun, number))
        mine = self.accepted_in.get(turn)
        for at, generation in self.founded:
            if mine is not None and generation > mine and begun > at * 1_000_000:
                self.violations.append(f"{turn} is of generation {mine} and began an attempt in {generation}")

    # -- one run --------------------------------------------------------------------------------------------------------

    async def run(self) -> list[str]:
        self.redis.execute_command("FLUSHALL")
        for _ in range(self.schedule.gateways):
            await self.born_gateway()
        runner = SimRunner(self.redis, self.loop, self.rng, "provider", self.faults, self.schedule.mutations, self._nothing)
        runner.on_found = self.founded.append
        while True:
            with suppress(Unreachable, Lost):
                await runner.found()
                break
        provider = Provider(self, ProviderLedger(runner), runner, self.shims, pool=2)
        background = [asyncio.ensure_future(provider.run()), asyncio.ensure_future(self._announcements())]
        users = [asyncio.ensure_future(self._user(i)) for i in range(self.schedule.turns)]
        breaker = asyncio.ensure_future(self._break(provider))
        await breaker
        self.faults.lost_reply = self.faults.refused = self.faults.slow = 0.0
        deadline = self.loop.time() + SETTLE_SECONDS
        while self.loop.time() < deadline and not self._settled(users):
            await asyncio.sleep(2.0)
        for task in [*users, *background]:
            task.cancel()
        await asyncio.gather(*users, *background, return_exceptions=True)
        self._judge()
        for gateway in self.gateways:
            gateway.kill()
        return self.violations + self.shims.violations

    async def _nothing(self) -> None:
        return

    async def born_gateway(self) -> Gateway:
        self.born += 1
        gateway = Gateway(self, f"g{self.born}")
        self.gateways.append(gateway)
        await gateway.start()
        return gateway

    def alive(self) -> list[Gateway]:
        return [g for g in self.gateways if not g.dead]

    def _settled(self, users: list[asyncio.Task[Any]]) -> bool:
        return all(u.done() for u in users) and not self.redis.execute_command("ZCARD", "due")

    async def _break(self, provider: Provider) -> None:
        until = self.loop.time() + FAULT_SECONDS
        snapshot = False
        while self.loop.time() < until:
            await asyncio.sleep(self.rng.uniform(0.2, 4.0))
            dice = self.rng.random()
            alive = self.alive()
            live = [s for s in provider.sandboxes.values() if s.alive]
            if dice < 0.30 and live:
                busy = [s for s in live if s.running] or live
                self.shims.kill(self.rng.choice(busy))
            elif dice < 0.42 and len(alive) > 1:
                self.owner_deaths.append(self.loop.time())
                self.rng.choice(alive).kill()
                await self.born_gateway()
            elif dice < 0.55:
                pause = self.rng.uniform(1.0, 25.0)
                self.rng.choice(alive).paused_until = self.loop.time() + pause
                if pause > 6.0:
                    self.owner_deaths.append(self.loop.time())  # past its lease it may count as dead
            elif dice < 0.60 and live:
                self.rng.choice(live).cut = True
            elif dice < 0.68 and live:
                # An owner stops in the middle of a write, and what it was driving dies: its write arrives late.
                owners = [g for g in alive if g.keeper.count] or alive
                self.rng.choice(owners).paused_until = self.loop.time() + self.rng.uniform(11.0, 25.0)
                self.owner_deaths.append(self.loop.time())
                for busy in [s for s in live if s.running]:
                    self.shims.kill(busy)
            elif self.schedule.kind == "redis" and dice < 0.78:
                self._snapshot()
                snapshot = True
            elif self.schedule.kind == "redis" and dice < 0.84 and snapshot:
                self.losses.append(self.loop.time())
                self._roll_back()
            elif self.schedule.kind == "redis" and dice < 0.90:
                self.losses.append(self.loop.time())
                self.redis.execute_command("FLUSHDB")

    def _snapshot(self) -> None:
        run = self.redis.execute_command
        run("SELECT", 1)
        run("FLUSHDB")
        run("SELECT", 0)
        self.redis.pipeline([("COPY", key, key, "DB", 1) for key in run("KEYS", "*")])

    def _roll_back(self) -> None:
        self.redis.execute_command("FLUSHDB")
        self.redis.execute_command("SWAPDB", 0, 1)

    async def _announcements(self) -> None:
        while True:
            await asyncio.sleep(8.0)
            for sandbox in list(self.shims.by_endpoint.values()):
                if not sandbox.alive or sandbox.cut or not sandbox.session or sandbox.who is None:
                    continue
                alive = self.alive()
                place = SimpleNamespace(to_json=lambda s=sandbox: json.dumps(self._place(s)))
                try:
                    found = await self.rng.choice(alive).sessions.announce(
                        sandbox.session, sandbox.epoch, place, sandbox.who  # type: ignore[arg-type]
                    )
                except (Lost, Unreachable, Dead):
                    if self.loop.time() - sandbox.last_gateway > 60:
                        self.shims.kill(sandbox)
                    continue
                sandbox.last_gateway = self.loop.time()
                if found.epoch > sandbox.epoch:
                    self.shims.kill(sandbox)

    def _place(self, s: Sandbox) -> dict[str, str]:
        return {
            "sandbox": s.id, "tenant": "dev", "agent": "a", "revision": "r1", "endpoint": s.endpoint,
            "secret": "x" * 8, "volume": s.volume, "pids": "[]",
        }  # fmt: skip

    # -- clients --------------------------------------------------------------------------------------------------------

    async def _user(self, number: int) -> None:
        await asyncio.sleep(self.rng.uniform(0, 12))
        session = f"session-{self.rng.randrange(2)}"
        key = f"key-{number}"
        wants_cancel = self.rng.random() < 0.3
        twice = self.rng.random() < 0.3
        kind = self.rng.choice(["same", "rechunked", "other"])
        response = await self._create(session, key, kind)
        if response is None:
            return
        if twice:
            again = await self._create(session, key, kind)
            if again is not None and again != response and not self.losses:
                self.violations.append(f"one idempotency key made {response} and {again}")
        readers = [asyncio.ensure_future(self._read(Seen(response))) for _ in range(2)]
        if wants_cancel:
            await asyncio.sleep(self.rng.uniform(0, 12))
            await self._cancel(response)
        await asyncio.gather(*readers)

    async def _create(self, session: str, key: str, kind: str) -> str | None:
        part = names.partition("dev", "a", "u", session)
        place = SimpleNamespace(
            tenant="dev", agent="a", user="u", session_id=session, partition=part, revision="r1",
            session_key=names.session_key("dev", part), is_new=False,
        )  # fmt: skip
        self.identities[place.session_key] = SessionIdentity("dev", "a", "u", session, part, "r1")
        for _ in range(60):
            gateway = self.rng.choice(self.alive())
            response = f"caresp_{part}00{self.rng.getrandbits(128):032x}"
            self.kinds[response] = kind
            request = TurnRequest(
                response_id=response, body={"model": "a"}, input_items=[], stream=True, background=True, store=True,
                idempotency_key=key, retry_count=0, body_hash="h", headers={}, trace_id="", created_at=1,
            )  # fmt: skip
            task = gateway.spawn(gateway.turns.accept(CALLER, place, request))
            try:
                found = await task
            except (ApiError, asyncio.CancelledError):
                if asyncio.current_task().cancelling():  # type: ignore[union-attr]
                    raise
                await asyncio.sleep(0.5)
                continue
            self.accepted[found] = key
            self.accepted_in.setdefault(found, gateway.runner.identity.generation)
            return found
        return None

    async def _cancel(self, response: str) -> None:
        self.cancelled.add(response)
        for _ in range(20):
            gateway = self.rng.choice(self.alive())
            task = gateway.spawn(gateway.turns.cancel(response, tenant="dev"))
            try:
                await task
                return
            except (ApiError, TimeoutError, asyncio.CancelledError):
                if asyncio.current_task().cancelling():  # type: ignore[union-attr]
                    raise
                await asyncio.sleep(1.0)

    async def _read(self, seen: Seen) -> None:
        self.seen.append(seen)
        while not seen.ended:
            gateway = self.rng.choice(self.alive())
            task = gateway.spawn(self._follow(gateway, seen))
            try:
                async with asyncio.timeout(self.rng.uniform(2, 40)):
                    await task
            except (TimeoutError, asyncio.CancelledError, ApiError):
                if asyncio.current_task().cancelling():  # type: ignore[union-attr]
                    raise
            await asyncio.sleep(0.3)

    async def _follow(self, gateway: Gateway, seen: Seen) -> None:
        async for number, data in gateway.turns.follow(seen.response, tenant="dev", after=seen.cursor):
            await gateway.gate()
            if number != seen.cursor + 1 and not (number <= seen.cursor):
                self.violations.append(f"{seen.response}: event {number} after {seen.cursor}")
            old = seen.events.setdefault(number, data)
            if old != data and not self._may_lose(seen.response):
                self.violations.append(f"{seen.response}: event {number} changed")
            seen.cursor = max(seen.cursor, number)
            kind = json.loads(data)["type"]
            if kind in ("response.completed", "response.failed", "response.incomplete"):
                seen.ended = True

    # -- judgement ------------------------------------------------------------------------------------------------------

    def _may_lose(self, response: str) -> bool:
        """turns.md §9, not promised: Redis lost and the owner dead too."""
        return bool(self.losses) and bool(self.owner_deaths)

    def _judge(self) -> None:
        for response in self.accepted:
            self._judge_one(response)
        for volume, sessions in self.volume_owner.items():
            if len(sessions) > 1:
                self.violations.append(f"{volume} was given to {len(sessions)} sessions")
        by_key: dict[str, set[str]] = {}
        for response, key in self.accepted.items():
            by_key.setdefault(key, set()).add(response)
        if not self.losses:
            for key, responses in by_key.items():
                ran = [r for r in responses if self.starts.get(r)]
                if len(ran) > 1:
                    self.violations.append(f"{key} ran as {len(ran)} turns")

    def _judge_one(self, response: str) -> None:
        key = f"t/dev/responses/{response}/response.json"
        lost = f"t/dev/responses/{response}/lost.json"
        document = self.store.objects.get(lost) or self.store.objects.get(key)
        if document is None:
            self.violations.append(f"{response} was accepted and never ended (state {self.redis.execute_command('HGETALL', 't:' + response)})")
            return
        if len(self.store.written.get(key, ())) > 1 and not self.losses:
            self.violations.append(f"{response} was stored with different bytes")
        stored = json.loads(document)
        events = stored["events"]
        numbers = [e["sequence_number"] for e in events]
        if numbers != list(range(len(events))):
            self.violations.append(f"{response}: stored numbers {numbers}")
        terminals = [e["type"] for e in events if e["type"] in ("response.completed", "response.failed", "response.incomplete")]
        if len(terminals) != 1:
            self.violations.append(f"{response}: {len(terminals)} terminal events")
        for seen in self.seen:
            if seen.response != response:
                continue
            if not seen.ended and not self._may_lose(response):
                self.violations.append(f"{response}: a client never saw the end")
            if self._may_lose(response):
                continue
            for number, data in seen.events.items():
                if number >= len(events) or json.loads(data) != events[number]:
                    self.violations.append(f"{response}: event {number} that was seen is not what was stored")
                    break
        self._judge_text(response, stored["response"], events)
        self._judge_outcome(response, stored["response"])

    def _judge_outcome(self, response: str, body: dict[str, Any]) -> None:
        cancel, outcome = self.redis.execute_command("HMGET", f"t:{response}", "cancel", "outcome")
        if cancel == b"1" and outcome != b"cancelled" and not self.losses:
            self.violations.append(f"{response} was cancelled first and ended {outcome}")
        if self.losses or body["status"] == "completed" or (body["status"] == "cancelled" and response in self.cancelled):
            return
        self.violations.append(f"{response} ended {body['status']}: {body.get('error')}")

    def _judge_text(self, response: str, body: dict[str, Any], events: list[dict[str, Any]]) -> None:
        for item in body["output"]:
            deltas = "".join(
                e["delta"]
                for e in events
                if e["type"] == "response.output_text.delta" and e["item_id"] == item["id"]
            )
            text = "".join(p.get("text", "") for p in item.get("content", []))
            if deltas != text:
                self.violations.append(f"{response}: deltas and text differ")
        if body["status"] == "completed" and self.kinds[response] != "other":
            base = random.Random(response)
            words = "".join(f"w{base.randrange(100)} " for _ in range(base.randrange(4, 12)))
            texts = ["".join(p["text"] for p in i["content"]) for i in body["output"]]
            if texts != [words]:
                self.violations.append(f"{response}: said {texts}, the agent said {words!r}")


def play(redis: Wire, schedule: Schedule, engine_type: Any = engines.Engine) -> list[str]:
    """Runs one schedule to its judgement; the violations found."""
    loop = SimLoop()
    asyncio.set_event_loop(loop)
    world = World(redis, loop, schedule, engine_type)
    try:
        return loop.run_until_complete(world.run())
    except Stuck as fault:
        return [*world.violations, f"stuck: {fault}"]
    finally:
        pending = asyncio.all_tasks(loop)
        for task in pending:
            task.cancel()
        with suppress(Stuck):
            loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
        asyncio.set_event_loop(None)
        loop.close()
