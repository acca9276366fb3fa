"""One schedule: gateways, provider, clients, faults at random, then quiet, then the judgement."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from moorage_api.ledger.records import SessionIdentity
from moorage_gateway.upstream import Route
from sim.announcing import Announcing
from sim.calling import POINTS as CALLED
from sim.calling import Servers
from sim.clients import Clients
from sim.gateways import Gateway, Store
from sim.judging import Judge, words_of
from sim.loop import SimLoop, Stuck
from sim.provider import Provider
from sim.runner import Faults, Wire
from sim.sandboxes import Sandbox, Shims
from sim.traps import PLAIN, Story, Trap, Traps, rare, stories
from sim.watching import Watch

FAULT_SECONDS = 40.0
SETTLE_SECONDS = 600.0
Mutations = Mapping[str, tuple[tuple[str, str], ...]]


@dataclass(frozen=True)
class Schedule:
    """What one seed does. `kind`: kills, or redis (flush and roll-back too). The rest takes rules out (mutants.py)."""

    seed: int
    kind: str
    gateways: int = 2
    turns: int = 4
    mutations: Mutations = field(default_factory=dict)
    flags: frozenset[str] = frozenset()
    parts: Mapping[str, Any] = field(default_factory=dict)
    calls: str = ""  # agents call models and tools: any, or long ones alone
    story: str = ""  # the beginning of a story's name that is told; empty: by chance


@dataclass(frozen=True)
class Played:
    """What a schedule came to. `counts`: what happened in it; `rounds`: turns of the loop; `commands`: sent to Redis."""

    violations: list[str]
    counts: dict[str, int]
    rounds: int
    commands: int


class World:
    """Builds it, breaks it, lets it settle, judges it."""

    def __init__(self, redis: Wire, loop: SimLoop, schedule: Schedule) -> None:
        self.redis, self.loop, self.schedule = redis, loop, schedule
        self.rng = random.Random(schedule.seed)
        self.faults = Faults(lost_reply=0.01, refused=0.005, slow=0.002, twice=0.03)
        self.lossy = schedule.kind == "redis"
        self.story = self._choose(stories(self.rng, lossy=self.lossy))
        self.servers = Servers(self, schedule.calls) if schedule.calls else None
        points = CALLED if schedule.calls else ()
        self.traps = Traps(self.rng, self.story, flush=self.lossy, more=points)
        self.texts: dict[str, tuple[str, str]] = {}
        self.violations: list[str] = []
        self.counts: Counter[str] = Counter()
        self.skew = 0.0  # of Redis' clock
        self.queue = self.story.queue or self.rng.choice((1, 1, 4))
        drains = self.rng.random() < 0.5
        self.drains = drains if self.story.drains is None else self.story.drains
        idle = "30m" if self.story.keeps else "2s"
        self.spec = {
            "session": {"idleTimeout": idle, "maxLifetime": "30m" if self.story.keeps else "25s", "retention": "1h"}
        }
        self.store = Store(self.rng)
        self.unflushed: set[str] = set()  # turns that were closed before the store had them
        self.judge = Judge(self)
        self.watch = Watch(self)
        self.shims = Shims(self, self.program, schedule.flags)
        self.provider = Provider(self)
        self.clients = Clients(self)
        self.gateways: list[Gateway] = []
        self.born = 0
        self.chores: list[asyncio.Task[Any]] = []
        self.identities: dict[str, SessionIdentity] = {}
        self.kinds: dict[str, str] = {}
        self.unstored: set[str] = set()
        self.founded: list[tuple[float, int]] = []
        self.losses: list[float] = []
        self.owner_deaths: list[float] = []
        self.dark_at = float("-inf")  # when no gateway was there to take an announcement, last
        self.long_pause = False
        self.quiet = False  # no more faults
        self._kept = False

    def _choose(self, known: tuple[Story, ...]) -> Story:
        """One by chance, or none; the schedule's own when it names one."""
        told, plain = self.rng.choice(known), self.rng.random() >= 0.6
        wanted = self.schedule.story
        if wanted:
            told = next((s for s in known if s.name.startswith(wanted)), None)
            return told or next(s for s in rare(self.rng) if s.name.startswith(wanted))
        return PLAIN if plain else told

    # -- the agents -----------------------------------------------------------------------------------------------------

    def program(self, turn: str, attempt: int, rng: random.Random) -> list[tuple[float, dict[str, Any]]]:
        """Events of one attempt: one message of words; `rechunked` in other chunks, `other` with other words later."""
        kind = self.kinds.get(turn, "same")
        words = words_of(turn, long=kind == "long")
        if kind == "other" and attempt > 1:
            at = rng.randrange(len(words))
            words[at:] = [f"x{attempt}.{i} " for i in range(len(words) - at)]
        text, chunks = "".join(words), words
        if kind == "rechunked":
            chunks, rest = [], text
            while rest:
                n = rng.randrange(1, 6)
                chunks.append(rest[:n])
                rest = rest[n:]
        item = {"id": f"m{attempt}", "type": "message", "role": "assistant", "status": "in_progress", "content": []}
        part = {"type": "output_text", "text": "", "annotations": []}
        where = {"item_id": item["id"], "output_index": 0, "content_index": 0}
        whole = part | {"text": text}
        done = item | {"status": "completed", "content": [whole]}
        events: list[dict[str, Any]] = [
            {"type": "response.created", "response": {"id": "r", "output": []}},
            {"type": "response.output_item.added", "output_index": 0, "item": item},
            {"type": "response.content_part.added", "part": part} | where,
            *({"type": "response.output_text.delta", "delta": c, "logprobs": []} | where for c in chunks),
            {"type": "response.output_text.done", "text": text, "logprobs": []} | where,
            {"type": "response.content_part.done", "part": whole} | where,
            {"type": "response.output_item.done", "output_index": 0, "item": done},
            {"type": "response.completed", "response": {"id": "r", "status": "completed", "output": [done]}},
        ]
        return [(rng.uniform(0.05, 0.9) * self.story.pace, e) for e in events]

    # -- what others ask ------------------------------------------------------------------------------------------------

    def redis_ms(self) -> float:
        """Redis' clock."""
        return (self.loop.now + self.skew) * 1000

    def noticed(self) -> bool:
        """Whether the last loss has been noticed: a ledger was founded since."""
        return not self.losses or self.founded[-1][0] > self.losses[-1]

    def sandbox_of(self, descriptor: Any) -> str:
        """The id in a descriptor's JSON."""
        return str(json.loads(descriptor)["sandbox"])

    def alive(self) -> list[Gateway]:
        """The gateways that were not killed."""
        return [g for g in self.gateways if not g.dead]

    def hint(self, channel: str, payload: str) -> None:
        """Pub/sub: some of it arrives."""
        for gateway in self.alive():
            if self.rng.random() < (0.3 if channel == "log" else 0.7):
                self.loop.call_later(self.rng.uniform(0.0005, 0.005), gateway.hear, channel, payload)

    async def some(self) -> Gateway:
        """A gateway that lives; a client finds one sooner or later."""
        while not (alive := self.alive()):
            await asyncio.sleep(0.2)
        return self.rng.choice(alive)

    async def born_gateway(self) -> None:
        """Starts one more."""
        self.born += 1
        gateway = Gateway(self, f"g{self.born}")
        self.gateways.append(gateway)
        await gateway.start()

    # -- one run --------------------------------------------------------------------------------------------------------

    async def run(self) -> list[str]:
        self.redis.execute_command("FLUSHALL")
        for _ in range(self.schedule.gateways):
            await self.born_gateway()
        background = [
            self.loop.create_task(w) for w in (self.provider.run(), Announcing(self).run(), self.clients.relays())
        ]
        users = [self.loop.create_task(self.clients.user(i)) for i in range(self.schedule.turns)]
        await self._break(users)
        self.faults.end()
        self.quiet = True
        self.traps.clear()
        deadline = self.loop.now + SETTLE_SECONDS
        while self.loop.now < deadline and not self._settled(users):
            await asyncio.sleep(0.5)
        for task in [*users, *background, *self.chores]:
            task.cancel()
        await asyncio.gather(*users, *background, *self.chores, return_exceptions=True)
        for user in users:
            if not user.cancelled() and user.exception() is not None:
                self.violations.append(f"a client met {user.exception()!r}")
        self.judge.end()
        if self.servers is not None:
            self.servers.end()
        for gateway in self.gateways:
            gateway.kill()
        return self.violations + self.shims.violations

    def _settled(self, users: list[asyncio.Task[Any]]) -> bool:
        if not all(u.done() for u in users):
            return False
        accepted = [key[len("open/") : -len(".json")] for key in self.store.objects if key.startswith("open/")]
        if any(not self.judge.document(response) for response in accepted):
            return False
        return not self.redis.execute_command("ZCARD", "due")

    # -- faults ---------------------------------------------------------------------------------------------------------

    async def _break(self, users: list[asyncio.Task[Any]]) -> None:
        """Faults until the time is over or there is nothing left to break."""
        until = self.loop.now + FAULT_SECONDS
        rng = self.rng
        quiet = self.loop.now + self.story.quiet
        while self.loop.now < quiet and (self.story.drains or not self._settled(users)):
            await asyncio.sleep(1.0)
        until = max(until, self.loop.now + FAULT_SECONDS / 4)
        while self.loop.now < until and not self._settled(users):
            await asyncio.sleep(rng.uniform(0.1, 2.2))
            dice = rng.random()
            live = [s for s in self.provider.sandboxes.values() if s.alive]
            busy = [s for s in live if s.running]
            if dice < 0.34:
                self.traps.arm()
            elif dice < 0.52 and live:
                self.shims.kill(rng.choice(busy or live))
            elif dice < 0.60 and len(self.alive()) > 1:
                self.kill_gateway(rng.choice(self.alive()))
            elif dice < 0.70 and self.alive():
                self.pause(rng.choice(self.alive()), rng.uniform(1.0, 25.0))
            elif dice < 0.74 and live:
                self._cut(rng.choice(live), rng.uniform(5.0, 60.0))
            elif dice < 0.76 and not self.lossy:
                self.skew = rng.choice((0.0, -3.0, -2_000.0, 5.0))
                self.counts["jumps of Redis' clock"] += 1
            elif self.lossy and dice < 0.86:
                self._keep()
            elif self.lossy and dice < 0.91 and self._kept:
                self.back()
            elif self.lossy and dice < 0.95:
                self.flush()

    def pause(self, gateway: Gateway, seconds: float) -> None:
        """Stops a process for a while; past its lease it may count as dead."""
        gateway.stop(seconds)
        self.counts["pauses"] += 1
        if seconds > 6.0:
            self.owner_deaths.append(self.loop.now)

    def kill_gateway(self, gateway: Gateway) -> None:
        """SIGKILL; another one is started soon."""
        self.owner_deaths.append(self.loop.now)
        self.counts["kills of a gateway"] += 1
        if gateway.keeper.count:
            self.counts["kills of an owner"] += 1
        gateway.kill()
        self.chores.append(self.loop.create_task(self._replace()))

    async def _replace(self) -> None:
        await asyncio.sleep(self.rng.uniform(0.1, 2.0))
        await self.born_gateway()

    def _cut(self, sandbox: Sandbox, seconds: float) -> None:
        """Alive, but nobody reaches it, for a while."""
        sandbox.cut = True
        sandbox.cut_until = self.loop.now + seconds
        if sandbox.attempt is not None:
            sandbox.attempt.grown.set()
        self.counts["sandboxes cut off"] += 1

    def sprung(self, gateway: Gateway, trap: Trap, about: Any) -> None:
        """A trap closed: what goes along with it."""
        self.counts[f"traps: {trap.action}"] += 1
        pauses = trap.action in ("pause", "late")
        if pauses and trap.seconds > 6.0:
            self.owner_deaths.append(self.loop.now)
        self.long_pause |= pauses and trap.seconds > 30.0
        response, session = self._about(about)
        if trap.also in ("sandbox", "rebind"):
            for sandbox in [s for s in self.provider.sandboxes.values() if s.alive and s.session == session]:
                self.shims.kill(sandbox)
        if trap.also == "rebind" and session in self.identities:
            others = [g for g in self.alive() if g is not gateway]
            if others:
                task = others[0].spawn(self.clients.relay(others[0], session, 0.1))
                self.chores.append(task)
        if trap.also == "cancel" and response in self.judge.told:
            self.chores.append(self.loop.create_task(self.clients.cancel(self.judge.told[response])))
        if trap.also == "cut and flush":
            for sandbox in [s for s in self.provider.sandboxes.values() if s.alive and s.session == session]:
                self._cut(sandbox, self.rng.uniform(14.0, 30.0))
            self.flush()
        if trap.also == "flush":
            self.flush()
        if trap.also == "keep":
            self._keep()
        if trap.also == "all die and back":  # nobody who could notice it by a mark of its own, and nobody to attach to
            for sandbox in [s for s in self.provider.sandboxes.values() if s.alive and s.session == session]:
                self.shims.kill(sandbox)
            for other in [g for g in self.alive() if g is not gateway]:
                self.kill_gateway(other)
            self.back()
        if trap.also == "back later":
            self.loop.call_later(self.rng.uniform(0.5, 4.0), self.back)
        if trap.also == "flush later":
            self.loop.call_later(self.rng.uniform(0.5, 6.0), self.flush)

    def _about(self, about: Any) -> tuple[str, str]:
        """(response, session) that a call is about, as far as one can tell."""
        if isinstance(about, Route):
            turn = self.redis.execute_command("HGET", f"s:{about.session_key}", "running")
            return (turn or b"").decode(), about.session_key
        first = str(about[0]) if isinstance(about, tuple) and about else str(about)
        for response, session in self.watch.turns.items():
            if response in first:
                return response, session
        turn = self.redis.execute_command("HGET", f"s:{first}", "running")
        return (turn or b"").decode(), first

    def flush(self) -> None:
        """Redis is empty."""
        self._lost("flushes", lambda: self.redis.execute_command("FLUSHDB"))

    def back(self) -> None:
        """Redis is as it was when the copy was made."""
        if self._kept:
            self._lost("roll-backs", self._roll_back)

    def _lost(self, name: str, how: Any) -> None:
        self.losses.append(self.loop.now)
        self.counts[name] += 1
        how()

    def _keep(self) -> None:
        """A copy, for a later roll-back."""
        run = self.redis.execute_command
        self.redis.pipeline([("SELECT", 1), ("FLUSHDB",), ("SELECT", 0)])
        self.redis.pipeline([("COPY", key, key, "DB", 1) for key in sorted(run("KEYS", "*"))])
        self.watch.kept()
        self._kept = True

    def _roll_back(self) -> None:
        self.redis.pipeline([("FLUSHDB",), ("SWAPDB", 0, 1)])
        self.watch.back()
        self._kept = False


def play(redis: Wire, schedule: Schedule) -> Played:
    """Runs one schedule to its judgement."""
    loop = SimLoop()
    asyncio.set_event_loop(loop)
    world, before = World(redis, loop, schedule), redis.commands
    try:
        violations = loop.run_until_complete(world.run())
    except Stuck as fault:
        violations = [*world.violations, f"stuck: {fault}"]
    finally:
        counts = dict(sorted(world.counts.items())) | {"traps sprung": world.traps.sprung}
        rounds, commands = loop.rounds, redis.commands - before
        pending = asyncio.all_tasks(loop)
        for task in pending:
            task.cancel()
        with suppress(Stuck):
            loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
        asyncio.set_event_loop(None)
        loop.close()
    return Played(violations, counts, rounds, commands)
