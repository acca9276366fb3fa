"""One sandbox as its host sees it: its birth over the gate, its death with proof. Layer: local provider, below `zygote`."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moorage_local import cgroups
from moorage_local.isolation import Mode
from moorage_sandbox.launcher import packets, processes

KILL_SECONDS = 15.0
STRAY_STEP = 0.02
MARK = "MOORAGE_SANDBOX"
_CREDENTIALS = struct.Struct("3i")


class SandboxFailed(Exception):
    """A sandbox could not be made; nothing of it is left."""


class StillAlive(Exception):
    """Processes of a sandbox outlived SIGKILL and the deadline: its volume must not be used again yet."""


@dataclass(frozen=True)
class Death:
    """Every process of the sandbox is dead. `proof` says how that is known; `oom`: the kernel killed in it for memory."""

    sandbox: str
    oom: bool
    proof: str


class Exit:
    """The end of a process that need not be our child, by its pidfd. Owns the descriptor until the end is seen or `close`."""

    def __init__(self, pidfd: int, on_end: Callable[[], None] = lambda: None) -> None:
        self._pidfd = pidfd
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._seen = asyncio.Event()
        self._loop.add_reader(pidfd, self._end)

    @property
    def over(self) -> bool:
        """Whether the process is seen dead."""
        return self._seen.is_set()

    def kill(self) -> None:
        """SIGKILL to exactly this process."""
        if self._pidfd >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    async def wait(self, seconds: float | None = None) -> None:
        """Waits for the end. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            await self._seen.wait()

    def close(self) -> None:
        """Stops watching."""
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    def _end(self) -> None:
        self.close()
        self._seen.set()
        self._on_end()


class Gate:
    """The host's side of a sandbox's birth: init says who it is and waits outside until it is let in."""

    def __init__(self) -> None:
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours.setblocking(False)
        self._ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.theirs = theirs.detach()

    async def hear(self, expected: str) -> int:
        """The next message, which must be `expected`; the host pid of its sender as the kernel tells it. Raises SandboxFailed."""
        await _readable(self._ours)
        room = socket.CMSG_SPACE(_CREDENTIALS.size)
        data, ancillary, _, _ = self._ours.recvmsg(packets.MAX_PACKET, room)
        if not data:
            raise SandboxFailed(f"init ended before it said {expected!r}")
        body = packets.decode(data)
        if body.get("op") != expected:
            raise SandboxFailed(str(body.get("error") or f"init said {body.get('op')!r}, not {expected!r}"))
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
                pid: int = _CREDENTIALS.unpack(payload[: _CREDENTIALS.size])[0]
                return pid
        raise SandboxFailed("the kernel did not say who init is")

    def tell(self, body: dict[str, Any], fds: Sequence[int]) -> None:
        """Sends one message to init."""
        packets.send(self._ours, body, fds)

    def close_theirs(self) -> None:
        """Drops our copy of init's end, so that its death is seen here."""
        if self.theirs >= 0:
            os.close(self.theirs)
            self.theirs = -1

    def close(self) -> None:
        """Drops both ends; an init still waiting outside then ends."""
        self.close_theirs()
        self._ours.close()


async def _readable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(sock.fileno(), _wake, ready)
    try:
        await ready
    finally:
        loop.remove_reader(sock.fileno())


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


class Sandbox:
    """A running sandbox. `host_pid` is its init as the host numbers it.

    mode     | all dead is known by
    ---------|---------------------------------------------------------------------------------------------------------
    isolated | init's end: the kernel ends it only after every process of its pid namespace
    plain    | init's end, then the zygote's word that it killed and reaped the rest (it is their next parent); with a control
             | group that it is empty; without the zygote, that no process carries the sandbox's mark
    """

    def __init__(self, name: str, group: cgroups.Cgroup | None, mode: Mode) -> None:
        self.name = name
        self.host_pid = 0
        self._group = group
        self._mode = mode
        self._exit: Exit | None = None
        self._death: asyncio.Task[Death] | None = None
        self._zygote_spoke = asyncio.Event()
        self._left_alive = 0
        self._zygote_lives = True

    def begin(self, pid: int, on_death: Callable[[], None]) -> None:
        """Init has told who it is; from here its end is watched and cleared up after, whoever asks."""
        self.host_pid = pid
        self._exit = Exit(os.pidfd_open(pid))
        self._death = asyncio.create_task(self._clear_up(self._exit), name=f"death of {self.name}")
        self._death.add_done_callback(lambda _: on_death())

    def let_in(self, gate: Gate) -> None:
        """Lets init in: into its control group, by files opened here that it writes itself (or by us), with the file that counts kills."""
        group = self._group
        if group is None:
            gate.tell({"op": "go"}, [])
            return
        entrances, counter = group.entrances(), group.oom_path()
        if not entrances:
            group.add(self.host_pid)
        opened = [os.open(path, os.O_WRONLY | os.O_CLOEXEC) for path in entrances]
        if counter is not None:
            opened.append(os.open(counter, os.O_RDONLY | os.O_CLOEXEC))
        try:
            gate.tell({"op": "go", "entrances": len(entrances), "oom": counter is not None}, opened)
        finally:
            for fd in opened:
                os.close(fd)

    def check_in(self) -> None:
        """Makes sure that init did enter: what the entry imported might have kept it from it."""
        if self._group is not None and not self._group.holds(self.host_pid):
            self._group.add(self.host_pid)

    @property
    def alive(self) -> bool:
        """Whether its init lives."""
        return self._exit is not None and not self._exit.over

    def pids(self) -> list[int]:
        """Its processes as the host numbers them, init first; empty when it is dead."""
        return [self.host_pid, *processes.descendants(self.host_pid)] if self.alive else []

    async def ended(self) -> Death:
        """Waits until it is dead, of itself or by `kill`; many may wait. Raises StillAlive, CgroupBusy."""
        if self._death is None:
            raise SandboxFailed(f"{self.name} was never born")
        return await asyncio.shield(self._death)

    async def kill(self) -> Death:
        """SIGKILLs everything in it and waits for the proof. Raises StillAlive, CgroupBusy."""
        if self._mode == "plain" and self.alive:
            processes.kill_descendants(self.host_pid)
        if self._exit is not None:
            self._exit.kill()
        try:
            async with asyncio.timeout(KILL_SECONDS):
                return await self.ended()
        except TimeoutError as fault:
            raise StillAlive(
                f"{self.name}: process {self.host_pid} has not ended after SIGKILL; is it in state D?"
            ) from fault

    async def abandon(self) -> None:
        """Clears up after a birth that failed."""
        if self._death is not None:
            await self.kill()
        elif self._group is not None:
            await self._group.kill()
            await self._group.remove()

    def strays_killed(self, left_alive: int) -> None:
        """Plain mode: the zygote has killed what init left behind."""
        self._left_alive = left_alive
        self._zygote_spoke.set()

    def zygote_gone(self) -> None:
        """The zygote is dead: its word is not to be waited for."""
        self._zygote_lives = False
        self._zygote_spoke.set()

    async def _clear_up(self, end: Exit) -> Death:
        await end.wait()
        oom = self._group is not None and self._group.oom_kills() > 0
        proof = "pid namespace ended"
        if self._mode == "plain":
            proof = await self._end_strays()
        if self._group is not None:
            await self._group.kill()
            await self._group.remove()
        return Death(self.name, oom, proof)

    async def _end_strays(self) -> str:
        with suppress(TimeoutError):  # without its word they are looked for
            async with asyncio.timeout(KILL_SECONDS):
                await self._zygote_spoke.wait()
        if self._group is not None:
            await self._group.kill()
            return "control group empty"
        if self._zygote_lives and self._zygote_spoke.is_set() and self._left_alive == 0:
            return "no descendant left"
        await end_marked(self.name)
        return "no process carries its mark"


def marked(sandbox: str) -> list[int]:
    """Processes whose environment says that they belong to `sandbox`. One that hid its environment is not found."""
    mark = f"{MARK}={sandbox}".encode()
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError):
                if mark in Path("/proc", name, "environ").read_bytes().split(b"\0"):
                    found.append(int(name))
    return found


async def end_marked(sandbox: str) -> None:
    """SIGKILLs every process marked as `sandbox`'s, also of an earlier provider, until none is left. Raises StillAlive."""
    try:
        async with asyncio.timeout(KILL_SECONDS):
            while pids := marked(sandbox):
                for pid in pids:
                    processes.signal_quietly(pid, signal.SIGKILL)
                await asyncio.sleep(STRAY_STEP)
    except TimeoutError as fault:
        raise StillAlive(f"{sandbox}: processes {marked(sandbox)} have not ended after SIGKILL") from fault
