"""Simulated sandboxes and their shims, by the rules of turns.md §3."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from fakes.frames import Scripted
from moorage_api.ledger.records import SessionIdentity
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
    open: int = 0  # relayed requests that are open
    last_active: float = 0.0  # of the last relayed request
    cut_until: float = 0.0
    bound_at: float = 0.0
    whole_since: float = 0.0  # alive and reachable since then
    unheard_at: float = float("-inf")  # of the last announcement that got no answer

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
        sandbox.last_gateway = sandbox.whole_since = self.world.loop.time()
        self.by_endpoint[sandbox.endpoint] = sandbox

    def kill(self, sandbox: Sandbox) -> None:
        """SIGKILL of everything in it."""
        sandbox.alive = False
        if sandbox.attempt is not None and sandbox.attempt.task is not None:
            if sandbox.running:
                self.world.counts["kills of a running attempt"] += 1
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
        if sandbox.draining:
            raise ShimRefused("draining")
        if not sandbox.session:
            sandbox.bound_at = self.world.loop.now
        sandbox.session, sandbox.epoch = call.session, call.epoch
        sandbox.who = SessionIdentity(
            call.tenant, call.agent, call.user, call.session_id, call.session.partition(":")[2], "r1"
        )
        self.volume_binding[sandbox.volume] = (call.session, call.epoch)
        self.world.judge.bound(sandbox.volume, call.session)

    def start(self, sandbox: Sandbox, call: Start) -> Attempt:
        if not sandbox.session:
            raise ShimRefused("unbound")
        if call.session != sandbox.session and "no_session" not in self.flags:
            raise ShimRefused("other_session")
        if call.epoch != sandbox.epoch and "no_epoch" not in self.flags:
            raise ShimRefused("stale_epoch" if call.epoch < sandbox.epoch else "unbound")
        if sandbox.draining:
            raise ShimRefused("draining")
        if call.fence < sandbox.fence and "no_fence" not in self.flags:
            raise ShimRefused("fenced")
        sandbox.fence = max(sandbox.fence, call.fence)
        old = sandbox.attempt
        if old is not None and old.begun == call.fence:
            return old
        known = max(self.world.losses, default=0.0) * 1_000_000 < (old.begun if old is not None else 0)
        if old is not None and old.turn == call.turn and not old.ended and sandbox.running and known:
            self.violations.append(f"{call.turn}: its attempt {old.begun} ran here, and {call.fence} was begun over it")
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
        self.world.judge.started(call, sandbox)
        attempt.task = self.world.loop.create_task(self._agent(sandbox, attempt, call))
        return attempt

    async def _agent(self, sandbox: Sandbox, attempt: Attempt, call: Start) -> None:
        rng = random.Random(f"{call.turn}/{call.attempt}")
        number = 0
        for delay, event in self.program(call.turn, call.attempt, rng):
            await asyncio.sleep(delay)
            number += 1
            attempt.put(Source(number, json.dumps(event).encode()))
            if self.world.servers is not None:
                await self.world.servers.agent(sandbox, attempt, call, number)
        sandbox.running.discard(attempt.begun)
        sandbox.last_active = self.world.loop.now
        attempt.ended = True
        attempt.put(End("done"))

    def own(self, attempt: Attempt) -> int:
        """Drops the former owner: at once, when the shim takes a call, however late its caller reads the answer."""
        self._streams += 1
        attempt.owner = self._streams
        attempt.grown.set()
        return attempt.owner

    async def stream(
        self, sandbox: Sandbox, attempt: Attempt, mine: int, after: int, gate: Any
    ) -> AsyncIterator[Frame]:
        """What the attempt says, for as long as `mine` owns it."""
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
    """One gateway's calls to shims (implements upstream.Shims). `point`: before and after what a call does."""

    def __init__(self, world: Any, point: Any) -> None:
        self._shims: Shims = world.shims
        self._world = world
        self._point = point
        self._rng: random.Random = world.rng

    async def _travel(self, name: str, side: str, about: Any) -> None:
        await asyncio.sleep(self._rng.uniform(0.0002, 0.004))
        if await self._point(f"shim {name}", side, about):
            raise ShimLost("the connection broke")

    async def _gate(self) -> None:
        await self._point("frame", "before", None)

    async def bind(self, route: Route, call: Bind) -> None:
        await self._travel("bind", "before", route)
        self._shims.bind(self._shims.find(route), call)
        await self._travel("bind", "after", route)

    def start(self, route: Route, call: Start) -> Scripted:
        return Scripted(self._start(route, call))

    def attach(self, route: Route, call: Attach) -> Scripted:
        return Scripted(self._attach(route, call))

    async def _start(self, route: Route, call: Start) -> AsyncGenerator[Frame, None]:
        await self._travel("start", "before", route)
        sandbox = self._shims.find(route)
        attempt = self._shims.start(sandbox, call)
        mine = self._shims.own(attempt)
        await self._travel("start", "after", route)
        async for frame in self._shims.stream(sandbox, attempt, mine, 0, self._gate):
            yield frame

    async def _attach(self, route: Route, call: Attach) -> AsyncGenerator[Frame, None]:
        await self._travel("attach", "before", route)
        sandbox = self._shims.find(route)
        self._fence(sandbox, call.fence)
        attempt = sandbox.attempt
        if attempt is None or attempt.begun != call.begun:
            raise ShimRefused("unknown")
        async for frame in self._shims.stream(sandbox, attempt, self._shims.own(attempt), call.src, self._gate):
            yield frame

    async def stop(self, route: Route, call: Stop) -> None:
        await self._travel("stop", "before", route)
        sandbox = self._shims.find(route)
        self._fence(sandbox, call.fence)
        attempt = sandbox.attempt
        if attempt is not None and not attempt.ended and attempt.turn == call.turn:
            if attempt.task is not None:
                attempt.task.cancel()
            sandbox.running.discard(attempt.begun)
            attempt.ended = True
            attempt.put(End("stopped"))
        await self._travel("stop", "after", route)

    def _fence(self, sandbox: Sandbox, fence: int) -> None:
        if fence < sandbox.fence and "no_fence" not in self._shims.flags:
            raise ShimRefused("fenced")
        sandbox.fence = max(sandbox.fence, fence)

    async def drain(self, route: Route, call: Drain) -> bool:
        await self._travel("drain", "before", route)
        sandbox = self._shims.find(route)
        if not sandbox.session or call.epoch > sandbox.epoch:
            raise ShimRefused("unbound")
        if call.session != sandbox.session or call.epoch < sandbox.epoch:
            raise ShimRefused("stale_epoch")
        busy = sandbox.running or sandbox.open or sandbox.last_active * 1000 > call.idle_before
        if not busy or "no_busy" in self._shims.flags:
            sandbox.draining = "no_busy" not in self._shims.flags
            busy = False
        self._world.counts["drains refused as busy" if busy else "drains"] += 1
        await self._travel("drain", "after", route)
        return not busy

    async def relay(self, route: Route, seconds: float) -> None:
        """One raw request to the agent, by the rules of the shim: another session or binding is refused."""
        await self._travel("relay", "before", route)
        sandbox = self._shims.find(route)
        if sandbox.session != route.session_key and "no_session" not in self._shims.flags:
            raise ShimRefused("other_session")
        if sandbox.epoch != route.epoch and "no_epoch" not in self._shims.flags:
            raise ShimRefused("stale_epoch")
        if sandbox.draining:
            raise ShimRefused("draining")
        self._world.judge.relayed(route, sandbox)
        sandbox.open += 1
        try:
            await asyncio.sleep(seconds)
        finally:
            sandbox.open -= 1
            sandbox.last_active = self._world.loop.now
