"""Starts a zygote and asks it for sandboxes. Layer: local provider, above `isolation` and `cgroups`; the other end is the launcher.

Zygote.start(spec, isolation)      the entry is imported up to serve(), or ZygoteFailed with the last log lines
zygote.spawn(sandbox, volume, …)   an init whose control channel is the given socket, in its control group: Sandbox
sandbox.kill() / sandbox.ended()   Death: proof that every process of the sandbox is dead
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import subprocess
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from moorage_local import cgroups, enclosure, isolation, sandboxes
from moorage_local.sandboxes import Sandbox, SandboxFailed
from moorage_sandbox.launcher import packets

TAIL_LINES = 50
LINE_BYTES = 8 * 1024
CLOSE_SECONDS = 10.0
SPAWN_SECONDS = 15.0
LAST_LINES_SECONDS = 2.0


class ZygoteFailed(Exception):
    """The entry did not reach serve(). `log_tail`: the last lines it wrote, for the person whose agent it is."""

    def __init__(self, message: str, log_tail: list[str]) -> None:
        super().__init__(message)
        self.log_tail = log_tail


class _Output(asyncio.Protocol):
    """Lines of the zygote's stdout and stderr: the last ones kept, each passed on."""

    def __init__(self, on_line: Callable[[str], None]) -> None:
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self.closed = asyncio.Event()
        self._rest = b""
        self._on_line = on_line

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LINE_BYTES:
            lines.append(self._rest)
            self._rest = b""
        for line in lines:
            self._keep(line)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._rest:
            self._keep(self._rest)
        self.closed.set()

    def _keep(self, line: bytes) -> None:
        text = line[:LINE_BYTES].decode(errors="replace")
        self.tail.append(text)
        self._on_line(text)


class Zygote:
    """One pre-imported revision. Made by `start`; ended by `close`, by its own death, or with the provider."""

    def __init__(self, spec: enclosure.ZygoteSpec, kind: isolation.Isolation, control: socket.socket) -> None:
        self.spec = spec
        self.import_seconds = 0.0
        self.threads = 1
        self._kind = kind
        self._control = control
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._sandboxes: dict[str, Sandbox] = {}
        self._refusals: dict[str, str] = {}
        self._group: cgroups.Cgroup | None = None
        self._failure = ""
        self._obituary: asyncio.Task[None] | None = None

    @classmethod
    async def start(
        cls,
        spec: enclosure.ZygoteSpec,
        kind: isolation.Isolation,
        *,
        on_line: Callable[[str], None] = lambda _: None,
    ) -> Zygote:
        """Starts it and waits until its entry has reached serve(). Raises ZygoteFailed, IsolationError."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        zygote = cls(spec, kind, ours)
        try:
            with theirs:
                await zygote._launch(theirs, on_line)
        except BaseException:
            ours.close()
            await zygote._remove_group()
            raise
        try:
            async with asyncio.timeout(spec.ready_seconds):
                await zygote._ready
        except TimeoutError as fault:
            tail = list(zygote._output.tail)
            await zygote.close()
            message = f"{spec.name}: {spec.entry} has not reached serve() within {spec.ready_seconds:g} s of its start"
            raise ZygoteFailed(message, tail) from fault
        except BaseException:
            await zygote.close()
            raise
        return zygote

    async def _launch(self, theirs: socket.socket, on_line: Callable[[str], None]) -> None:
        if self.spec.limits is not None and self._kind.groups is not None:
            self._group = self._kind.groups.create(f"zygote-{secrets.token_hex(6)}", self.spec.limits)
        groups = self._group.member_files() if self._group is not None else []
        command = enclosure.command(
            self.spec,
            self._kind,
            control=theirs.fileno(),
            system=enclosure.observe(),
            folders=enclosure.python_folders(self.spec.python),
            groups=groups,
        )
        read, write = os.pipe2(os.O_CLOEXEC)
        self._output = _Output(on_line)
        self._process = subprocess.Popen(  # noqa: ASYNC220 - asyncio's own would wait for every holder of the pipe
            command,
            stdin=subprocess.DEVNULL,
            stdout=write,
            stderr=write,
            pass_fds=[theirs.fileno()],
            env=enclosure.environment(self.spec, self._kind.mode) if self._kind.mode == "plain" else {},
            start_new_session=True,
        )
        os.close(write)
        self._log, _ = await self._loop.connect_read_pipe(lambda: self._output, os.fdopen(read, "rb"))
        self._exit = sandboxes.Exit(os.pidfd_open(self._process.pid), self._died)
        self._loop.add_reader(self._control.fileno(), self._hear)

    @property
    def alive(self) -> bool:
        """Whether sandboxes can be asked for."""
        return not self._exit.over and self._ready.done() and self._ready.exception() is None

    @property
    def pid(self) -> int:
        """The host's number of its outermost process."""
        return self._process.pid

    async def spawn(
        self,
        *,
        sandbox: str,
        volume: Path,
        control_fd: int,
        limits: cgroups.Limits,
        env: Mapping[str, str] | None = None,
        shim_port: int = 8099,
    ) -> Sandbox:
        """Makes a sandbox. `control_fd` is init's end of the control channel; the caller closes its copy afterwards.

        Raises SandboxFailed; nothing is left of the sandbox then.
        """
        group = None if self._kind.groups is None else self._kind.groups.create(sandbox, limits)
        gate = sandboxes.Gate()
        made = Sandbox(sandbox, group, self._kind.mode)
        self._sandboxes[sandbox] = made
        body = self._request(sandbox, volume, limits, env or {}, shim_port)
        try:
            async with asyncio.timeout(SPAWN_SECONDS):
                packets.send(self._control, body, [control_fd, gate.theirs])
                gate.close_theirs()
                await self._admit(made, gate)
        except BaseException as fault:
            await made.abandon()
            self._sandboxes.pop(sandbox, None)
            if isinstance(fault, OSError | TimeoutError | SandboxFailed):
                reason = self._refusals.pop(sandbox, None) or str(fault) or f"nothing heard for {SPAWN_SECONDS:g} s"
                raise SandboxFailed(f"{self.spec.name}: sandbox {sandbox} could not be made: {reason}") from fault
            raise
        finally:
            gate.close()
        return made

    def _request(
        self, sandbox: str, volume: Path, limits: cgroups.Limits, env: Mapping[str, str], shim_port: int
    ) -> dict[str, Any]:
        return {
            "op": "spawn",
            "sandbox": sandbox,
            "volume": volume.name if self._kind.mode == "isolated" else os.path.abspath(volume),
            "limits": inner_limits(limits, self._kind.limits),
            "env": dict(env),
            "shim_port": shim_port,
        }

    async def _admit(self, made: Sandbox, gate: sandboxes.Gate) -> None:
        made.begin(await gate.hear("waiting"), lambda: self._forget(made.name))
        made.let_in(gate)
        await gate.hear("up")
        made.check_in()

    def _forget(self, sandbox: str) -> None:
        self._sandboxes.pop(sandbox, None)

    async def close(self) -> None:
        """Ends it and, with it, every sandbox it made; comes back when its processes are dead. Again: nothing."""
        if self._control.fileno() < 0:
            return
        self._loop.remove_reader(self._control.fileno())
        self._control.close()  # in plain mode the zygote then kills what it has made
        with suppress(TimeoutError):
            await self._exit.wait(2.0 if self._kind.mode == "plain" else 0.0)
        if not self._exit.over:
            with suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGKILL)
            await self._exit.wait(CLOSE_SECONDS)
        for made in list(self._sandboxes.values()):
            await made.kill()
        if self._obituary is not None:
            await self._obituary
        self._log.close()
        await self._remove_group()
        if not self._ready.done():
            self._ready.cancel()
        elif not self._ready.cancelled():
            self._ready.exception()

    async def _remove_group(self) -> None:
        if self._group is not None:
            await self._group.kill()
            await self._group.remove()

    def _died(self) -> None:
        status = self._process.wait()
        for made in list(self._sandboxes.values()):
            made.zygote_gone()
        self._obituary = asyncio.create_task(self._write_obituary(status), name=f"end of zygote {self.spec.name}")

    async def _write_obituary(self, status: int) -> None:
        """A zygote that dies before its fork point has failed; its last lines may still be in the pipe."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_LINES_SECONDS):
                await self._output.closed.wait()
        if not self._ready.done():
            reason = self._failure or f"the zygote ended with status {status} before serve()"
            self._ready.set_exception(ZygoteFailed(f"{self.spec.name}: {reason}", list(self._output.tail)))

    def _hear(self) -> None:
        try:
            packet = packets.receive(self._control)
        except (BlockingIOError, packets.PacketError):
            return
        if packet is None:
            self._loop.remove_reader(self._control.fileno())
            return
        packet.close()
        self._note(packet.body)

    def _note(self, body: dict[str, Any]) -> None:
        match body.get("op"):
            case "ready" if not self._ready.done():
                self.import_seconds = float(body["import_s"])
                self.threads = int(body["threads"])
                self._ready.set_result(None)
            case "failed" if not self._ready.done():
                self._failure = str(body.get("error"))  # raised with the log once the process has ended
            case "ended":
                made = self._sandboxes.get(str(body.get("sandbox")))
                if made is not None:
                    made.strays_killed(int(body.get("alive", 0)))
            case "refused":
                self._refusals[str(body.get("sandbox"))] = str(body.get("error"))


def inner_limits(limits: cgroups.Limits, kept_by: Mapping[str, str]) -> dict[str, int]:
    """The limits the launcher sets by itself: rlimits and the size of /tmp; those a control group keeps are left to it. Pure."""
    inner = {"nofile": limits.nofile, "fsize": limits.fsize, "tmp": limits.tmp}
    if kept_by.get("memory") == "rlimit":
        inner["data"] = limits.memory
    if kept_by.get("pids") == "rlimit":
        inner["nproc"] = limits.pids
    return inner
