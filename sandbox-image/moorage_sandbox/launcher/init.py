"""PID 1 of a sandbox (plain mode: a subreaper): forks agent processes, opens connections for the shim, kills, reaps.

Layer: top of the launcher. One thread, one loop; its peer is the shim on the control channel (the messages: sandbox-image/README.md).
When the channel closes, everything in the sandbox is killed and init ends; when init ends, the kernel kills all of its pid namespace.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from . import agent, kernel, oom, packets, processes, wakeup

AGENT_PORT = 8088
CONNECT_SECONDS = 5.0
MAX_CONNECTING = 256
KILL_SECONDS = 10.0
KILL_STEP = 0.02


@dataclass(frozen=True)
class Home:
    """What this sandbox is made of. An agent process gets `base`, over it what the shim says, over that `fixed`."""

    plain: bool
    base: dict[str, str]
    fixed: dict[str, str]
    limits: dict[str, int]


@dataclass(frozen=True)
class Connecting:
    """A connection to the agent that the shim waits for."""

    request: int
    sock: socket.socket
    deadline: float


class ShimGone(Exception):
    """The control channel is closed: nobody can use this sandbox any more."""


class Init:
    """The loop. `run` returns only in a forked agent process; in init itself it ends the process."""

    def __init__(self, control: socket.socket, watch: wakeup.ChildWatch, calls: kernel.Kernel, home: Home) -> None:
        self._control = control
        self._watch = watch
        self._calls = calls
        self._home = home
        self._oom = oom.OomCounter(None)
        self._heard = True
        self._agents: set[int] = set()
        self._connecting: dict[int, Connecting] = {}
        self._poller = select.poll()
        for source in (control, watch):
            self._poller.register(source.fileno(), select.POLLIN)

    def count_oom(self, fd: int | None) -> None:
        """Uses the cgroup file `fd` to tell an out-of-memory kill from any other."""
        self._oom = oom.OomCounter(fd)

    def hello(self, listener: socket.socket) -> None:
        """Hands the shim its listener inside this network namespace and forgets it."""
        port = listener.getsockname()[1]
        mode = "plain" if self._home.plain else "isolated"
        body = {"op": "hello", "pid": os.getpid(), "listener": True, "port": port, "mode": mode}
        packets.send(self._control, body, [listener.fileno()])
        listener.close()

    def run(self) -> agent.Start:
        """Serves the shim until it is gone."""
        try:
            return self._serve()
        except ShimGone:
            self._heard = False
            self._control.close()
            self._kill_all()
            os._exit(0)

    def _serve(self) -> agent.Start:
        while True:
            for fd, _ in self._poller.poll(self._patience()):
                if fd == self._watch.fileno():
                    self._watch.drain()
                    self._reap()
                elif fd == self._control.fileno():
                    start = self._handle(self._receive())
                    if start is not None:
                        return start
                elif fd in self._connecting:
                    self._settle(self._connecting[fd])
            self._expire()

    def _receive(self) -> packets.Packet:
        try:
            packet = packets.receive(self._control)
        except packets.PacketError as fault:
            return packets.Packet({"op": "", "error": str(fault)}, ())
        if packet is None:
            raise ShimGone
        packet.close()  # the shim sends no descriptors
        return packet

    def _handle(self, packet: packets.Packet) -> agent.Start | None:
        request = packet.body.get("id", 0)
        match packet.op:
            case "spawn":
                return self._spawn(request, packet.body.get("env", {}))
            case "connect":
                self._connect(request, packet.body.get("port", AGENT_PORT))
            case "killall":
                alive = self._kill_all()
                self._tell({"op": "killed", "id": request, "alive": alive})
            case "term":
                for pid in self._agents:
                    processes.signal_quietly(pid, 15)
                self._tell({"op": "termed", "id": request, "pids": sorted(self._agents)})
            case _:
                reason = packet.body.get("error") or f"unknown op {packet.op!r}"
                self._tell({"op": "error", "id": request, "error": reason})
        return None

    def _spawn(self, request: int, env: dict[str, str]) -> agent.Start | None:
        """Forks an agent process; not None in that process."""
        wanted = self._home.base | {str(name): str(value) for name, value in env.items()} | self._home.fixed
        wanted["PORT"] = str(agent.free_port()) if self._home.plain else wanted.get("PORT", str(AGENT_PORT))
        read, write = os.pipe2(os.O_CLOEXEC)
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError as fault:  # the sandbox is full of processes
            os.close(read)
            os.close(write)
            self._tell({"op": "failed", "id": request, "error": f"fork: {fault}"})
            return None
        if pid == 0:
            os.close(read)
            self._forget()
            return agent.Start(wanted, write, self._home.limits, self._home.plain, parent)
        os.close(write)
        self._agents.add(pid)
        self._tell({"op": "spawned", "id": request, "pid": pid, "port": int(wanted["PORT"])}, [read])
        os.close(read)
        return None

    def _connect(self, request: int, port: int) -> None:
        if len(self._connecting) >= MAX_CONNECTING:
            self._tell({"op": "refused", "id": request, "error": "too many connections are being opened"})
            return
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        pending = Connecting(request, sock, time.monotonic() + CONNECT_SECONDS)
        code = sock.connect_ex(("127.0.0.1", port))
        if code in (errno.EINPROGRESS, errno.EAGAIN):
            self._connecting[sock.fileno()] = pending
            self._poller.register(sock.fileno(), select.POLLOUT)
            return
        self._answer(pending, code)

    def _settle(self, pending: Connecting) -> None:
        self._drop(pending)
        self._answer(pending, pending.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    def _answer(self, pending: Connecting, code: int) -> None:
        with pending.sock:
            if code == 0:
                self._tell({"op": "connected", "id": pending.request}, [pending.sock.fileno()])
            else:
                self._tell({"op": "refused", "id": pending.request, "error": os.strerror(code)})

    def _drop(self, pending: Connecting) -> None:
        del self._connecting[pending.sock.fileno()]
        self._poller.unregister(pending.sock.fileno())

    def _expire(self) -> None:
        now = time.monotonic()
        for pending in [each for each in self._connecting.values() if each.deadline <= now]:
            self._drop(pending)
            self._answer(pending, errno.ETIMEDOUT)

    def _patience(self) -> float | None:
        if not self._connecting:
            return None
        soonest = min(each.deadline for each in self._connecting.values())
        return max(0.0, soonest - time.monotonic()) * 1000

    def _reap(self) -> bool:
        """Takes in all ended children and tells of agents among them; True while any child is left."""
        ended, more = processes.reap()
        for child in ended:
            if child.pid in self._agents:
                self._agents.discard(child.pid)
                killed_for_memory = child.signal == 9 and self._oom.rose()
                outcome: dict[str, Any] = {"status": child.status, "signal": child.signal, "oom": killed_for_memory}
                self._tell({"op": "exited", "pid": child.pid} | outcome)
        return more

    def _kill_all(self) -> int:
        """Kills all but init; the number still alive when `KILL_SECONDS` are over, 0 when seen dead."""
        deadline = time.monotonic() + KILL_SECONDS
        self._oom.rose()  # what was killed for memory before this is not why the agent dies now
        self._kill_once()
        while self._reap():
            if time.monotonic() > deadline:
                return max(1, len(processes.descendants(os.getpid())))
            self._watch.wait(KILL_STEP)
            self._kill_once()
        return 0

    def _kill_once(self) -> None:
        if self._home.plain:
            processes.kill_descendants(os.getpid())
        else:
            processes.kill_namespace()

    def _tell(self, body: dict[str, Any], fds: Sequence[int] = ()) -> None:
        if not self._heard:
            return
        try:
            packets.send(self._control, body, fds)
        except OSError as fault:  # closed, or deaf for `packets.SEND_SECONDS`
            raise ShimGone from fault

    def _forget(self) -> None:
        """In the agent process: gives up everything that is init's."""
        self._control.close()
        for pending in self._connecting.values():
            pending.sock.close()
        if self._oom.fd is not None:
            os.close(self._oom.fd)
        self._watch.undo()
