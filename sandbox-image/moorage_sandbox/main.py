"""The composition of one shim process: config and descriptors in, parts in order, until the sandbox is over. Layer: roof.

Called by the forkserver's children and by `python -m moorage_sandbox`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import orjson

from moorage_api.wire.calls import agent_environment, steps_environment
from moorage_api.wire.checkpoints import Save
from moorage_sandbox.agent import Agent
from moorage_sandbox.announcer import Announcer
from moorage_sandbox.attempt import Parts
from moorage_sandbox.binding import BindingFile
from moorage_sandbox.boundary import Boundary
from moorage_sandbox.checkpoint import swapping
from moorage_sandbox.clock import Clock
from moorage_sandbox.config import ShimConfig
from moorage_sandbox.control import Control
from moorage_sandbox.door import Door
from moorage_sandbox.errors import ControlLost, NotReady, Refused
from moorage_sandbox.keeping import Keeping
from moorage_sandbox.leaving import Leaving
from moorage_sandbox.output import Console, Output
from moorage_sandbox.proof import Proof
from moorage_sandbox.relay import Relay
from moorage_sandbox.routes import Routes
from moorage_sandbox.server import HttpServer
from moorage_sandbox.shim import Busy, Shim

HELLO_SECONDS = 10.0
LAST_WORDS = 0.5
"""After the end was decided: for owners to be told."""
EXIT_FAILED = 3
"""Exit status of a shim whose agent never became ready."""


class Status:
    """Tells the provider how far the sandbox is: JSON lines on a pipe. A provider that is gone or slow is no trouble."""

    def __init__(self, fd: int | None) -> None:
        self._fd = fd
        if fd is not None:
            os.set_blocking(fd, False)

    def tell(self, op: str, **more: object) -> None:
        """Writes one line; `op` is one of listening, ready, failed, over."""
        if self._fd is not None:
            with suppress(OSError):
                os.write(self._fd, orjson.dumps({"op": op, **more}, option=orjson.OPT_APPEND_NEWLINE))


def proxy_env(listener: socket.socket) -> dict[str, str]:
    """What makes ordinary HTTP clients in the agent use the door."""
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    none = "127.0.0.1,localhost"
    return {
        **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), url),
        **dict.fromkeys(("NO_PROXY", "no_proxy"), none),
    }


async def run(
    config: ShimConfig, control_sock: socket.socket, status: Status, clock: Clock, console: Console | None = None
) -> int:
    """Serves one sandbox until it is over; the exit status. Everything opened here is closed here.

    `console`: where its log goes if the configuration names no file.
    """
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        # The log first: every other part reports to it, to the end.
        most = config.limits.log_file
        output = Output(config.log_file, config.sandbox, clock=clock, max_file=most, console=console)
        stack.callback(output.close)
        agent = Agent(config, output, clock)
        stack.push_async_callback(agent.close)
        parts = Parts(agent, output, clock, config.limits)
        proof = Proof(config.token, config.token_file)
        keeping = Keeping(config.volume, proof, lambda: announcer.gateways, clock)
        stack.push_async_callback(keeping.close)
        if swapping.finish(Path(config.volume)):
            output.shim("files whose restoring was interrupted are in place")
        file = BindingFile(config.volume)
        shim = Shim(config, file, parts, keeping, bound=lambda call: _bound(announcer, call.gateways))
        stack.push_async_callback(shim.close)
        announcer = Announcer(
            config.gateways,
            proof,
            describe=shim.announcement,
            answered=shim.answered,
            note=output.shim,
            clock=clock,
            limits=config.limits,
        )
        stack.push_async_callback(announcer.close)

        def lost() -> None:
            agent.lost()
            loop.call_later(config.limits.exit_notice, shim.retire, "init of the sandbox is gone")

        # Then the way to init, before anything may ask for a process.
        control = Control(control_sock, exited=agent.note_exit, lost=lost)
        stack.callback(control.close)
        leaving = Leaving(shim, output, config)
        stack.push_async_callback(leaving.close)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, leaving.asked)
            stack.callback(loop.remove_signal_handler, number)
        # The port before the agent is ready: a gateway may look at the status of a sandbox that starts.
        routes = Routes(config, shim, Relay(config, agent, output), output)
        server = HttpServer(
            routes.handle, lambda error: output.shim(f"a request failed: {error!r}"), config.limits.connections
        )
        await server.listen(config.endpoint)
        stack.push_async_callback(server.close)
        status.tell("listening")
        await stack.enter_async_context(_looping(shim, announcer, output, clock, config))
        boundary = Boundary(shim, lambda: announcer.gateways, proof, clock, config.limits, note=output.shim)
        stack.push_async_callback(boundary.close)
        opening = loop.create_task(_open(config, control, agent, output, boundary, stack))
        if not await _came_up(shim, opening, status, output):
            return EXIT_FAILED
        announcer.poke()
        status.tell("over", reason=await shim.over)
        await shim.close()  # what it does to files ends before its processes
        with suppress(NotReady, ControlLost):
            await agent.finish()
        await asyncio.sleep(LAST_WORDS)
        return 0


async def _came_up(shim: Shim, opening: asyncio.Task[int], status: Status, output: Output) -> bool:
    """Waits until the agent serves, or the sandbox is over before; False when the agent did not come up."""
    both: list[asyncio.Future[Any]] = [opening, shim.over]
    await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    if not opening.done():
        opening.cancel()
    found = (await asyncio.gather(opening, return_exceptions=True))[0]
    if isinstance(found, NotReady | ControlLost):
        status.tell("failed", detail=str(found), log_tail=output.tail())
        return False
    if isinstance(found, int):
        shim.pids = [os.getpid(), *([found] if found else [])]
        status.tell("ready", pids=shim.pids)
    elif not shim.over.done():
        raise found
    return True


def _bound(announcer: Announcer, gateways: list[str]) -> None:
    announcer.use(gateways)
    announcer.heard()
    announcer.poke()


async def _open(
    config: ShimConfig, control: Control, agent: Agent, output: Output, boundary: Boundary, stack: AsyncExitStack
) -> int:
    """Takes init's greeting, opens the agent's door, waits for the agent; the pid of init as the host sees it."""
    hello = await control.hello(HELLO_SECONDS)
    env = {"PORT": str(config.port), **config.env}
    if hello.fds:
        listener = socket.socket(fileno=hello.fds[0])
        proof = Proof(config.token, config.token_file)
        most = config.limits.connections
        server = HttpServer(boundary.handle, lambda error: output.shim(f"a call failed: {error!r}"), most)
        door = Door(config.egress, proof, max_connections=most, note=output.shim, server=server)
        env = {**env, **proxy_env(listener), **_variables(config, listener)}
        await door.open(listener)
        stack.push_async_callback(door.close)
    agent.use(control, env)
    await agent.ready(config.ready_timeout)
    return control.host_pid


def _variables(config: ShimConfig, listener: socket.socket) -> dict[str, str]:
    port = listener.getsockname()[1]
    found = agent_environment(port)
    return steps_environment(port) | {name: found[name] for name in config.variables if name in found}


@asynccontextmanager
async def _looping(
    shim: Shim, announcer: Announcer, output: Output, clock: Clock, config: ShimConfig
) -> AsyncIterator[None]:
    """Runs the loops of a shim as long as the body runs."""
    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(announcer.run()), loop.create_task(watch(shim, announcer, config))]
    if config.keeps and config.limits.checkpoint:
        tasks.append(loop.create_task(keep(shim, output, clock, config)))
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def watch(shim: Shim, announcer: Announcer, config: ShimConfig) -> None:
    """Looks at the clocks until cancelled."""
    while True:
        await asyncio.sleep(config.limits.tick)
        look(shim, announcer, config)


async def keep(shim: Shim, output: Output, clock: Clock, config: ShimConfig) -> None:
    """Makes a checkpoint now and then while there is activity that none has seen, until cancelled."""
    last = clock.now()
    while True:
        await asyncio.sleep(config.limits.tick)
        bound = shim.binding
        if bound is None or clock.now() < last + config.limits.checkpoint or not shim.unsaved_since:
            continue
        try:
            await shim.save(
                Save(session=bound.session, epoch=bound.epoch, why="schedule", deadline=config.limits.checkpoint)
            )
        except (Refused, Busy) as fault:
            output.shim(f"no checkpoint now: {fault}")
        except Exception as fault:  # the outermost frame of the loop: the next one may come through
            output.shim(f"no checkpoint, by a mistake of ours: {fault!r}")
        last = clock.now()


def look(shim: Shim, announcer: Announcer, config: ShimConfig) -> None:
    """One look at the clocks: attempts without owner, and a bound sandbox that no gateway knows of."""
    shim.tick()
    if shim.is_bound and announcer.silence >= config.limits.silence:
        shim.retire(f"no gateway for {config.limits.silence:g} s")
