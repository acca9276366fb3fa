"""The agent process of a sandbox: spawn, readiness, exit, kill. Layer: engine; asks init through `control.py`.

    Agent                 what start, relay and stop use: `ready()` gives a process that answers, `reset()` sees none alive
      └─ Process          one agent process: where it listens, how it ended, its output pipe

A *dirty* sandbox holds, or may hold, processes of an attempt that did not end cleanly; `ready` then kills all first.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from moorage_api.wire.hop import HopError, HopPool
from moorage_sandbox.clock import Clock
from moorage_sandbox.config import ShimConfig
from moorage_sandbox.control import Control, Exited
from moorage_sandbox.errors import ControlLost, NotReady
from moorage_sandbox.output import Lines, Output, pump

POLL_FIRST = 0.003
POLL_LAST = 0.1
READINESS_ANSWER = 2.0
"""For one answer of the readiness path; also how long a kill may have to wait for a poll under way."""
MAX_READINESS_BODY = 64 * 1024
KEPT_SECONDS = 3.0
"""How long a connection to the agent is kept: servers of agents drop theirs after 5 s."""
STABLE_SECONDS = 5.0
"""A process that lived shorter is not replaced before somebody needs one: no crash loop in an idle sandbox."""
DRAIN_SECONDS = 0.2
"""After the exit: for the last words of the process to arrive."""


@dataclass
class Process:
    """One agent process. `exited` and `drained` (its output has ended) resolve once."""

    pid: int
    port: int
    born: float
    exited: asyncio.Future[Exited]
    drained: asyncio.Future[None]
    answering: bool = False

    @property
    def endpoint(self) -> str:
        """Its name in the connection pools; no other process ever has it."""
        return f"agent:{self.pid}:{self.born}"


class Agent:
    """The one agent process at a time."""

    def __init__(self, config: ShimConfig, output: Output, clock: Clock) -> None:
        self._config = config
        self._output = output
        self._clock = clock
        self._control: Control | None = None
        self._env: dict[str, str] = {}
        self._process: Process | None = None
        self._dirty = False
        self._grace = 0.0
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._pipes: dict[int, Process] = {}
        self._early: dict[int, Exited] = {}
        self._seen = ""
        self._closed = False
        self.relays = HopPool(idle_seconds=KEPT_SECONDS, connector=self._connect)
        # An attempt must reach the agent once: never over a kept connection, which may be dying.
        self.fresh = HopPool(max_idle=0, connector=self._connect)

    def use(self, control: Control, env: dict[str, str]) -> None:
        """Gives the channel to init, and the environment of processes to come."""
        self._control = control
        self._env = env

    @property
    def pid(self) -> int | None:
        """The pid as init sees it."""
        return None if self._process is None else self._process.pid

    async def ready(self, seconds: float) -> Process:
        """A process that answers its readiness path, made anew where needed. Raises NotReady, ControlLost."""
        self._seen = "another wait came first"
        try:
            async with asyncio.timeout(seconds), self._lock:
                if self._closed:
                    raise NotReady("the sandbox is ending")
                if self._dirty:
                    await self._kill()
                process = self._process or await self._spawn()
                if not process.answering:
                    await self._until_ready(process)
                return process
        except TimeoutError as error:
            raise NotReady(f"the agent was not ready within {seconds:g} s: {self._seen}") from error

    async def reset(self) -> None:
        """Kills every process in the sandbox and sees none alive. Raises NotReady when some will not die."""
        self._dirty = True
        async with self._lock:
            if self._dirty:
                await self._kill()

    @asynccontextmanager
    async def stopped(self) -> AsyncIterator[None]:
        """None of the sandbox's processes lives, and none is made, as long as the body runs. Raises NotReady, ControlLost."""
        async with self._lock:
            self._dirty = True
            await self._kill()
            yield

    def taint(self) -> None:
        """Something of an unfinished attempt may live: nothing is served before all is killed."""
        self._dirty = True

    @property
    def tainted(self) -> bool:
        """Processes of an unfinished attempt may still live."""
        return self._dirty

    def condemn(self) -> None:
        """The attempt did not end cleanly: nothing of its processes may serve another. A fresh one is made ahead of need."""
        self._dirty = True
        self._background(self._renew(respawn=True))

    def dismiss(self, grace: float) -> None:
        """As `condemn`, after its process was asked to end and had `grace` seconds for it."""
        self._grace = grace
        self.condemn()

    def warm(self) -> None:
        """Makes a process ahead of need."""
        self._background(self._renew(respawn=True))

    async def term(self, seconds: float) -> None:
        """Asks the process to end and waits for it."""
        process = self._process
        if process is None:
            return
        await self._init.call("term", self._config.limits.control)
        await asyncio.wait([process.exited], timeout=seconds)

    async def how_it_ended(self, process: Process, seconds: float) -> Exited | None:
        """How the process ended, with its last words in the log; None when it still lives after `seconds`."""
        await asyncio.wait([process.exited], timeout=seconds)
        if not process.exited.done():
            return None
        await asyncio.wait([process.drained], timeout=DRAIN_SECONDS)
        return process.exited.result()

    def note_exit(self, news: Exited) -> None:
        """Init saw an agent process end."""
        process = self._process
        if process is None or process.pid != news.pid:
            self._early[news.pid] = news  # perhaps of the process whose birth is being told right now
            return
        self._process = None
        self._dirty = True  # its children may live on
        process.exited.set_result(news)
        self.relays.drop(process.endpoint)
        self._output.shim(f"the agent process {news.pid} ended: status {news.status}, signal {news.signal}")
        stable = self._clock.now() - process.born >= STABLE_SECONDS
        self._background(self._renew(respawn=stable and process.answering))

    def lost(self) -> None:
        """Init is gone, and with it every process of the sandbox."""
        if self._process is not None:
            self.note_exit(Exited(self._process.pid, None, 9, False))

    async def finish(self) -> None:
        """Kills every process in the sandbox; none is made any more. Raises NotReady, ControlLost."""
        self._closed = True
        await self.reset()

    async def close(self) -> None:
        """Ends the tasks and lets go of pipes and connections. The processes are init's to end."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for fd in list(self._pipes):
            self._end_pipe(fd)
        await self.relays.close()
        await self.fresh.close()

    @property
    def _init(self) -> Control:
        if self._control is None:
            raise ControlLost("init has not come yet")
        return self._control

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        if self._closed:
            work.close()
            return
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _renew(self, *, respawn: bool) -> None:
        try:
            if self._dirty:
                await self.reset()
            if respawn and not self._closed:
                await self.ready(self._config.ready_timeout)
        except (NotReady, ControlLost) as fault:
            self._output.shim(f"no fresh agent process yet: {fault}")

    async def _kill(self) -> None:
        grace, self._grace = self._grace, 0.0
        if grace:
            await self.term(grace)
        reply = await self._init.call("killall", self._config.limits.killall)
        alive = int(reply.body.get("alive", 1))
        if alive:
            raise NotReady(f"{alive} processes of an earlier attempt could not be killed")
        process, self._process = self._process, None
        if process is not None:
            self.relays.drop(process.endpoint)
            if not process.exited.done():
                process.exited.set_result(Exited(process.pid, None, 9, False))
        self._dirty = False

    async def _spawn(self) -> Process:
        self._early.clear()
        reply = await self._init.call("spawn", self._config.limits.control, env=self._env)
        if reply.body.get("op") != "spawned" or len(reply.fds) != 1:
            reply.close()
            raise NotReady(f"no process could be made: {reply.body.get('error', 'refused')}")
        loop = asyncio.get_running_loop()
        port = int(reply.body.get("port", self._config.port))
        process = Process(int(reply.body["pid"]), port, self._clock.now(), loop.create_future(), loop.create_future())
        self._process = process
        fd = reply.fds[0]
        os.set_blocking(fd, False)
        self._pipes[fd] = process
        loop.add_reader(fd, self._printed, fd, Lines(self._config.limits.log_line))
        if process.pid in self._early:
            self.note_exit(self._early.pop(process.pid))
        return process

    def _printed(self, fd: int, lines: Lines) -> None:
        if not pump(fd, lines, self._output.agent):
            self._end_pipe(fd)

    def _end_pipe(self, fd: int) -> None:
        process = self._pipes.pop(fd)
        asyncio.get_running_loop().remove_reader(fd)
        os.close(fd)
        if not process.drained.done():
            process.drained.set_result(None)

    async def _until_ready(self, process: Process) -> None:
        pause = POLL_FIRST
        self._seen = "it has not listened yet"
        while True:
            if process.exited.done():
                await asyncio.wait([process.drained], timeout=DRAIN_SECONDS)
                end = process.exited.result()
                raise NotReady(f"the agent process ended at start-up: status {end.status}, signal {end.signal}")
            if self._dirty:
                raise NotReady("its processes are to be killed first")
            self._seen = await self._ask(process)
            if not self._seen:
                process.answering = True
                return
            await asyncio.wait([process.exited], timeout=pause)
            pause = min(pause * 1.5, POLL_LAST)

    async def _ask(self, process: Process) -> str:
        """Asks the readiness path once; empty when it said yes, else what was seen."""
        headers = [(b"host", b"127.0.0.1:%d" % process.port)]
        try:
            answer = await self.relays.request(
                process.endpoint, "GET", self._config.readiness, headers, None,
                connect_timeout=READINESS_ANSWER, head_timeout=READINESS_ANSWER,
            )  # fmt: skip
            async with answer:
                await answer.read(MAX_READINESS_BODY, idle=READINESS_ANSWER)
                return "" if answer.status == 200 else f"{self._config.readiness} answered {answer.status}"
        except HopError as fault:
            return str(fault)

    async def _connect(self, endpoint: str) -> socket.socket:
        process = self._process
        if process is None or process.endpoint != endpoint:
            raise ConnectionRefusedError("that agent process is gone")
        try:
            reply = await self._init.call("connect", self._config.limits.agent_connect, port=process.port)
        except ControlLost as fault:
            raise ConnectionRefusedError(str(fault)) from fault
        if reply.body.get("op") != "connected" or len(reply.fds) != 1:
            reply.close()
            raise ConnectionRefusedError(f"the agent does not listen on port {process.port}")
        made = socket.socket(fileno=reply.fds[0])
        made.setblocking(False)
        return made
