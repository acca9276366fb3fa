"""Simulated sandboxes, their shims by turns.md §3, and the provider that makes, ends and proves them."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from moorage_api.ledger.provider import ProviderLedger
from moorage_api.ledger.records import Descriptor, SessionIdentity
from moorage_api.ledger.script import Lost, Unreachable
from moorage_api.wire.shim import Acknowledged, Attach, Bind, Drain, End, Frame, Source, Start, Stop
from moorage_gateway.upstream import Route, ShimLost, ShimRefused

ORPHAN_S = 120.0


@dataclass
class Attempt:
    turn: str
    begun: int
    frames: list[Frame] = field(default_factory=list)
    grown: asyncio.Event = field(default_factory=asyncio.Event)
    owner: int = 0  # number of the stream that owns it
    task: asyncio.Task[None] | None = None
    ended: bool = False

    def put(self, frame: Frame) -> None:
        self.frames.append(frame)
        self.grown.set()


@dataclass
class Sandbox:
    id: str
    volume: str
    alive: bool = True
    proved: bool = False
    cut: bool = False  # alive, but nobody reaches it
    session: str = ""
    epoch: int = 0
    fence: int = 0
    who: SessionIdentity | None = None
    draining: bool = False
    attempt: Attempt | None = None
    running: set[int] = field(default_factory=set)  # attempts whose processes are alive
    last_gateway: float = 0.0

    @property
    def endpoint(self) -> str:
        return f"unix:/{self.id}"


Program = Callable[[str, int, random.Random], list[tuple[float, dict[str, Any]]]]


class Shims:
    """Every sandbox of the world; each gateway gets a `port` of its own that knows when that gateway is dead."""

    def __init__(self, world: Any, program: Program, flags: frozenset[str]) -> None:
        self.world = world
        self.program = program
        self.flags = flags  # rules taken out: no_kill, no_fence, no_epoch, no_session
        self.by_endpoint: dict[str, Sandbox] = {}
        self.violations: list[str] = []
        self.volume_binding: dict[str, tuple[str, int]] = {}
        self._streams = 0

    def add(self, sandbox: Sandbox) -> None:
        sandbox.last_gateway = self.world.loop.time()
        self.by_endpoint[sandbox.endpoint] = sandbox

    def kill(self, sandbox: Sandbox) -> None:
        """SIGKILL of everything in it."""
        sandbox.alive = False
        if sandbox.attempt is not None and sandbox.attempt.task is not None:
            sandbox.attempt.task.cancel()
        sandbox.running.clear()
        if sandbox.attempt is not None:
            sandbox.attempt.grown.set()

    def find(self, route: Route) -> Sandbox:
        sandbox = self.by_endpoint.get(route.endpoint)
        if sandbox is None or not sandbox.alive:
            raise ShimLost("nothing listens", refused=True)
        if sandbox.cut:
            raise ShimLost("no answer")
        return sandbox

    def bind(self, sandbox: Sandbox, call: Bind) -> None:
        marker = self.volume_binding.get(sandbox.volume)
        held = sandbox.session or (marker[0] if marker else "")
        if held and held != call.session and "no_session" not in self.flags:
            raise ShimRefused("other_session")
        known = max(sandbox.epoch, marker[1] if marker and marker[0] == call.session else 0)
        if call.epoch < known and "no_epoch" not in self.flags:
            raise ShimRefused("stale_epoch")
        sandbox.session, sandbox.epoch = call.session, call.epoch
        sandbox.who = SessionIdentity(
            call.tenant, call.agent, call.user, call.session_id, call.session.partition(":")[2], "r1"
        )
        self.volume_binding[sandbox.volume] = (call.session, call.epoch)
        self.world.volume_owner.setdefault(sandbox.volume, set()).add(call.session)

    def start(self, sandbox: Sandbox, call: Start) -> Attempt:
        if not sandbox.session:
            raise ShimRefused("unbound")
        if call.session != sandbox.session and "no_session" not in self.flags:
            raise ShimRefused("other_session")
        if call.epoch < sandbox.epoch and "no_epoch" not in self.flags:
            raise ShimRefused("stale_epoch")
        if sandbox.draining:
            raise ShimRefused("draining")
        if call.fence < sandbox.fence and "no_fence" not in self.flags:
            raise ShimRefused("fenced")
        sandbox.fence = max(sandbox.fence, call.fence)
        old = sandbox.attempt
        if old is not None and old.begun == call.fence:
            return old
        if old is not None and "no_kill" not in self.flags:
            if old.task is not None:
                old.task.cancel()
            sandbox.running.discard(old.begun)
            if not old.ended:
                old.ended = True
                old.put(End("superseded"))
        attempt = Attempt(call.turn, call.fence)
        sandbox.attempt = attempt
        if sandbox.running:
            self.violations.append(f"two attempts run in {sandbox.id}: {sandbox.running} and {call.fence}")
        sandbox.running.add(call.fence)
        self.world.attempt_started(call.turn, call.fence, call.attempt, sandbox, call.session)
        attempt.task = asyncio.get_running_loop().create_task(self._agent(sandbox, attempt, call))
        return attempt

    async def _agent(self, sandbox: Sandbox, attempt: Attempt, call: Start) -> None:
        rng = random.Random(f"{call.turn}/{call.attempt}")
        number = 0
        for delay, event in self.program(call.turn, call.attempt, rng):
            await asyncio.sleep(delay)
            number += 1
            attempt.put(Source(number, json.dumps(event).encode()))
        sandbox.running.discard(attempt.begun)
        attempt.ended = True
        attempt.put(End("done"))

    async def stream(self, sandbox: Sandbox, attempt: Attempt, after: int, gate: Any) -> AsyncIterator[Frame]:
        self._streams += 1
        mine = attempt.owner = self._streams
        attempt.grown.set()
        yield Acknowledged(attempt.begun)
        index = 0
        while True:
            await gate()
            if not sandbox.alive or sandbox.cut:
                raise ShimLost("the connection broke")
            if attempt.owner != mine:
                yield End("superseded")
                return
            while index < len(attempt.frames):
                frame = attempt.frames[index]
                index += 1
                if isinstance(frame, Source) and frame.src <= after:
                    continue
                yield frame
                if isinstance(frame, End):
                    return
                if not sandbox.alive or sandbox.cut:
                    raise ShimLost("the connection broke")
                if attempt.owner != mine:
                    break
            if attempt.owner == mine and index == len(attempt.frames):
                attempt.grown.clear()
                try:
                    async with asyncio.timeout(15):
                        await attempt.grown.wait()
                except TimeoutError:
                    if sandbox.cut:
                        raise ShimLost("silence") from None


class ShimPort:
    """One gateway's calls to shims (implements upstream.Shims)."""

    def __init__(self, shims: Shims, gate: Any, rng: random.Random) -> None:
        self._shims = shims
        self._gate = gate
        self._rng = rng

    async def _travel(self) -> None:
        await asyncio.sleep(self._rng.uniform(0.0002, 0.004))
        await self._gate()

    async def bind(self, route: Route, call: Bind) -> None:
        await self._travel()
        self._shims.bind(self._shims.find(route), call)
        await self._travel()

    async def start(self, route: Route, call: Start) -> AsyncIterator[Frame]:
        await self._travel()
        sandbox = self._shims.find(route)
        attempt = self._shims.start(sandbox, call)
        await self._travel()
        async for frame in self._shims.stream(sandbox, attempt, 0, self._gate):
            yield frame

    async def attach(self, route: Route, call: Attach) -> AsyncIterator[Frame]:
        await self._travel()
        sandbox = self._shims.find(route)
        if call.fence < sandbox.fence and "no_fence" not in self._shims.flags:
            raise ShimRefused("fenced")
        sandbox.fence = max(sandbox.fence, call.fence)
        attempt = sandbox.attempt
        if attempt is None or attempt.begun != call.begun:
            raise ShimRefused("unknown")
        async for frame in self._shims.stream(sandbox, attempt, call.src, self._gate):
            yield frame

    async def stop(self, route: Route, call: Stop) -> None:
        await self._travel()
        sandbox = self._shims.find(route)
        if call.fence < sandbox.fence and "no_fence" not in self._shims.flags:
            raise ShimRefused("fenced")
        attempt = sandbox.attempt
        if attempt is not None and not attempt.ended and attempt.turn == call.turn:
            if attempt.task is not None:
                attempt.task.cancel()
            sandbox.running.discard(attempt.begun)
            attempt.ended = True
            attempt.put(End("stopped"))
        await self._travel()

    async def drain(self, route: Route, call: Drain) -> bool:
        await self._travel()
        sandbox = self._shims.find(route)
        if call.epoch != sandbox.epoch or sandbox.running:
            return False
        sandbox.draining = True
        await self._travel()
        return True


class Provider:
    """Keeps a pool, serves waking sessions, ends what is doomed, proves deaths."""

    def __init__(self, world: Any, ledger: ProviderLedger, runner: Any, shims: Shims, pool: int) -> None:
        self._world = world
        self._ledger = ledger
        self._runner = runner
        self._shims = shims
        self._pool = pool
        self._count = 0
        self.sandboxes: dict[str, Sandbox] = {}

    def _make(self, volume: str) -> Sandbox:
        self._count += 1
        sandbox = Sandbox(f"sb-{self._count}", volume or f"vol-{self._count}")
        self.sandboxes[sandbox.id] = sandbox
        self._shims.add(sandbox)
        return sandbox

    def _descriptor(self, s: Sandbox) -> Descriptor:
        return Descriptor(s.id, "dev", "a", "r1", s.endpoint, "x" * 8, s.volume)

    async def run(self) -> None:
        while True:
            await asyncio.sleep(0.3)
            try:
                await self._round()
            except Lost:
                try:
                    await self._runner.found()
                    await self._relabel()
                except (Lost, Unreachable):
                    continue
            except Unreachable:
                continue

    async def _round(self) -> None:
        for sandbox in list(self.sandboxes.values()):
            if not sandbox.alive:
                await self._ledger.gone(sandbox.id, "exit")
                self._drop(sandbox)
        for name, reason in (await self._ledger.doomed()).items():
            sandbox = self.sandboxes.get(name)
            if sandbox is not None:
                self._shims.kill(sandbox)
            await self._ledger.gone(name, reason)
            if sandbox is not None:
                self._drop(sandbox)
        for key in await self._ledger.waking():
            record = await self._ledger.session(key)
            if record is None or record.state != "waking":
                continue
            if record.volume and any(s.volume == record.volume and s.alive for s in self.sandboxes.values()):
                for other in [s for s in self.sandboxes.values() if s.volume == record.volume]:
                    self._shims.kill(other)
                continue  # one writer a volume: its death is reported first
            sandbox = self._make(record.volume)
            if not await self._ledger.ready(key, record.epoch, self._descriptor(sandbox)):
                self._shims.kill(sandbox)
        ready = await self._ledger.pool("dev", "a", "r1")
        for _ in range(self._pool - len(ready)):
            await self._ledger.offer(self._descriptor(self._make("")))

    def _drop(self, sandbox: Sandbox) -> None:
        self.sandboxes.pop(sandbox.id, None)
        self._shims.by_endpoint.pop(sandbox.endpoint, None)

    async def _relabel(self) -> None:
        """After a loss: unbound shims are offered again, volumes without a sandbox give their labels back."""
        live = {s.volume for s in self.sandboxes.values() if s.alive}
        for volume, (session, epoch) in list(self._shims.volume_binding.items()):
            who = self._world.identities.get(session)
            if volume not in live and who is not None:
                await self._ledger.label(session, epoch, volume, who)
        for sandbox in list(self.sandboxes.values()):
            if sandbox.alive and not sandbox.session:
                await self._ledger.offer(self._descriptor(sandbox))
