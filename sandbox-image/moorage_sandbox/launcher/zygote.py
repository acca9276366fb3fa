"""The process every sandbox of a revision is forked from: runs the entry up to the fork point, then answers spawn requests.

Layer: top of the launcher. Its peer is the provider (`moorage_local.zygote`) on the control socket, and for each birth on a *gate*:

    zygote → provider   {"op": "ready", "import_s", "threads"} · {"op": "failed", "error", "log_tail"}
                        {"op": "refused", "sandbox", "error"}
                        {"op": "ended", "sandbox", "alive"}: plain mode, init is dead and its strays were killed
    provider → zygote   {"op": "spawn", "sandbox", "volume", "limits", "env", "shim_port"} with the control channel and the gate
    init → gate         {"op": "waiting"} (its credentials name its host pid) · {"op": "up"} · {"op": "failed", "error"}
    gate → init         {"op": "go", "entrances", "oom"} with its control group's files: those to enter by, the one that counts kills
"""

from __future__ import annotations

import gc
import os
import select
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from . import agent, dwelling, init, kernel, packets, processes, wakeup

GATE_SECONDS = 30.0
TAIL_CHARACTERS = 16_000
DEFAULT_TMP_BYTES = 256 * 1024 * 1024
INSIDE_A_LOOP = "serve() was called inside a running event loop, which cannot be forked: call it at the end of the file"


@dataclass(frozen=True)
class Setup:
    """How this zygote was asked for. `control` is an inherited descriptor."""

    control: int
    code: Path
    entry: str
    program: bool
    plain: bool
    kept: tuple[str, ...] = ()


class Zygote:
    """One fork point. `wait` is what `moorage_forkpoint.wait` calls."""

    def __init__(self, setup: Setup, now: Callable[[], float]) -> None:
        self.forked = False
        self._setup = setup
        self._now = now
        self._born = now()
        self._calls = kernel.Kernel()
        self._control = socket.socket(fileno=setup.control)
        self._control.settimeout(packets.SEND_SECONDS)
        os.set_inheritable(setup.control, False)

    def wait(self) -> None:
        """The fork point: returns only in a forked agent process, and at once when called there again."""
        if self.forked:
            return
        if loop_runs():
            raise RuntimeError(INSIDE_A_LOOP)
        start = self._serve()
        self.forked = True
        agent.become(start, self._calls)

    def fail(self, error: str, trace: str) -> None:
        """Tells the provider that there will be no fork point."""
        sys.stderr.write(trace)
        sys.stderr.flush()
        tail = trace[-TAIL_CHARACTERS:].splitlines()
        with suppress(OSError):
            packets.send(self._control, {"op": "failed", "error": error, "log_tail": tail})

    def _serve(self) -> agent.Start:
        watch, threads = before_forks(self._calls, reaps=self._setup.plain)
        self._tell({"op": "ready", "import_s": round(self._now() - self._born, 3), "threads": threads})
        return self._loop(watch, frozenset(processes.descendants(os.getpid())))

    def _loop(self, watch: wakeup.ChildWatch, elders: frozenset[int]) -> agent.Start:
        inits: dict[int, str] = {}
        poller = select.poll()
        poller.register(self._control, select.POLLIN)
        poller.register(watch, select.POLLIN)
        while True:
            for fd, _ in poller.poll():
                if fd == watch.fileno():
                    watch.drain()
                    self._reap(inits, elders)
                    continue
                packet = self._receive()
                if packet is None:
                    continue
                pid = self._fork(packet)
                if pid == 0:
                    return self._child(packet, watch)
                packet.close()
                if pid is not None:
                    inits[pid] = str(packet.body["sandbox"])

    def _receive(self) -> packets.Packet | None:
        """A spawn request, or None when there was none to be had; ends the process when the provider is gone."""
        try:
            packet = packets.receive(self._control)
        except packets.PacketError as fault:
            self._refuse("", str(fault))
            return None
        if packet is None:
            self._end()
        if packet.op != "spawn" or len(packet.fds) != 2 or not packet.body.get("sandbox"):
            self._refuse(str(packet.body.get("sandbox", "")), f"no spawn request with two sockets: {packet.op!r}")
            packet.close()
            return None
        return packet

    def _refuse(self, sandbox: str, error: str) -> None:
        self._tell({"op": "refused", "sandbox": sandbox, "error": error})

    def _tell(self, body: dict[str, Any]) -> None:
        try:
            packets.send(self._control, body)
        except OSError:  # nobody is there to serve
            self._end()

    def _end(self) -> NoReturn:
        if self._setup.plain:
            processes.kill_descendants(os.getpid())
        os._exit(0)

    def _fork(self, packet: packets.Packet) -> int | None:
        try:
            return os.fork()
        except OSError as fault:
            self._refuse(str(packet.body["sandbox"]), f"fork: {fault}")
            return None

    def _reap(self, inits: dict[int, str], elders: frozenset[int]) -> None:
        ended, _ = processes.reap()
        gone = [inits.pop(child.pid) for child in ended if child.pid in inits]
        if not self._setup.plain or not gone:
            return
        # A dead init's processes have come here, to the next subreaper. What is neither an init nor older than the fork point is theirs.
        own = os.getpid()
        deadline = self._now() + init.KILL_SECONDS
        while strays := [
            pid for pid, parent in processes.parents().items() if parent == own and pid not in {*inits, *elders}
        ]:
            for pid in strays:
                processes.kill_descendants(pid)
                processes.signal_quietly(pid, 9)
            ended, _ = processes.reap()  # of another init, too, which may have died meanwhile
            gone += [inits.pop(child.pid) for child in ended if child.pid in inits]
            if self._now() > deadline:
                break
        for sandbox in gone:
            self._tell({"op": "ended", "sandbox": sandbox, "alive": len(strays)})

    def _child(self, packet: packets.Packet, watch: wakeup.ChildWatch) -> agent.Start:
        """In a fork: becomes an init. Comes back only in an agent process forked from that."""
        self._control.close()
        gate = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, fileno=packet.fds[1])
        gate.settimeout(packets.SEND_SECONDS)
        try:
            control = socket.socket(fileno=packet.fds[0])
            control.settimeout(packets.SEND_SECONDS)
            if not self._setup.plain:
                dwelling.leave(self._calls)
                if os.fork() > 0:
                    os._exit(0)
            watch.restart()
            ready = self._settle(packet.body, control, gate, watch)
        except BaseException as fault:
            with suppress(OSError):
                packets.send(gate, {"op": "failed", "error": f"{type(fault).__name__}: {fault}"})
            traceback.print_exc()
            os._exit(1)
        return self._run(ready)

    def _settle(
        self, request: dict[str, Any], control: socket.socket, gate: socket.socket, watch: wakeup.ChildWatch
    ) -> init.Init:
        """Everything between birth and the first word to the shim; the host has put us in our cgroup before anything is mounted."""
        gc.disable()
        packets.send(gate, {"op": "waiting"})
        gate.settimeout(GATE_SECONDS)
        go = packets.receive(gate)
        if go is None or go.op != "go":
            raise ConnectionError("the provider withdrew its request")
        entrances = go.fds[: int(go.body.get("entrances", 0))]
        for fd in entrances:
            os.write(
                fd, b"0"
            )  # by itself and as one thread: the host would wait for every processor to pass a quiet point
            os.close(fd)
        home = self._home(request)
        if self._setup.plain:
            os.setsid()
            self._calls.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
            self._calls.prctl(kernel.PR_SET_PDEATHSIG, 9)
            self._calls.drop_capabilities()
            listener = dwelling.listen(0)
        else:
            dwelling.furnish(self._calls, str(request["volume"]), home.limits.get("tmp", DEFAULT_TMP_BYTES))
            dwelling.restore(self._calls, self._setup.kept)
            self._calls.raise_loopback()
            listener = dwelling.listen(int(request.get("shim_port", 8099)))
            dwelling.lock(self._calls)
        one = init.Init(control, watch, self._calls, home)
        one.count_oom(go.fds[-1] if go.body.get("oom") else None)
        packets.send(gate, {"op": "up"})
        gate.close()
        one.hello(listener)
        return one

    def _home(self, request: dict[str, Any]) -> init.Home:
        limits = {str(name): int(value) for name, value in request.get("limits", {}).items()}
        base = {str(name): str(value) for name, value in request.get("env", {}).items()}
        if self._setup.plain:
            volume = Path(str(request["volume"]))
            own = {"HOME": volume / "home", "MOORAGE_WORKSPACE": volume / "workspace", "TMPDIR": volume / "tmp"}
        else:
            own = {
                "HOME": Path(dwelling.HOME),
                "MOORAGE_WORKSPACE": Path(dwelling.WORKSPACE),
                "TMPDIR": Path(dwelling.TMP),
            }
        fixed = {name: str(path) for name, path in own.items()} | {"MOORAGE_SANDBOX": str(request["sandbox"])}
        return init.Home(self._setup.plain, base, fixed, limits)

    def _run(self, one: init.Init) -> agent.Start:
        try:
            return one.run()
        except (
            Exception
        ):  # the outermost frame of an init: what lies above is the zygote's, and must not go on in a fork of it
            traceback.print_exc()
            os._exit(1)


def before_forks(calls: kernel.Kernel, *, reaps: bool) -> tuple[wakeup.ChildWatch, int]:
    """What a process does once before it forks agents: tells its author of threads that no fork will have, and shares its pages.

    `reaps`: orphans come here, where no pid namespace brings them. Gives the watch over children and the number of threads.
    """
    threads = max(threading.active_count(), len(os.listdir("/proc/self/task")))
    if threads > 1:
        sys.stderr.write(
            f"moorage: {threads - 1} thread(s) were started before serve(); they do not exist in the forked agent processes."
            " Start them inside the agent function, or after serve() has been called.\n"
        )
    if reaps:
        calls.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    watch = wakeup.ChildWatch()
    sys.stdout.flush()
    sys.stderr.flush()
    gc.collect()
    gc.freeze()  # what was imported is never looked at again: its pages stay shared
    return watch, threads


def loop_runs() -> bool:
    """Whether an event loop runs here; only looked up when the entry has imported asyncio itself."""
    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and asyncio._get_running_loop() is not None
