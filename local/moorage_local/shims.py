"""The provider's end of the shim forkserver: one pre-imported process, a shim a sandbox. Layer: I/O rim of the local provider.

    ShimForkserver          start, spawn, close; `lost` resolves when the forkserver ended by itself
      └─ ShimProcess        pid, endpoint, `ready`, `exited`

Call `start` from a thread that lives as long as the provider: the forkserver dies with the thread that made it.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from moorage_sandbox.config import ShimConfig

START_SECONDS = 30.0
FORK_SECONDS = 10.0
CLOSE_SECONDS = 5.0
# Of our environment: in it may stand keys of models, which no shim may have.
PASSED = frozenset({"PATH", "HOME", "LANG", "TZ", "TMPDIR", "VIRTUAL_ENV"})
PASSED_FAMILIES = ("PYTHON", "LC_", "LD_")
MAX_PACKET = 128 * 1024
MAX_LINE = 256 * 1024
READ = 64 * 1024


class ShimFailed(Exception):
    """A shim could not be made, or its agent did not become ready. `log_tail` holds the agent's last lines."""

    def __init__(self, detail: str, log_tail: list[str] | None = None) -> None:
        super().__init__(detail)
        self.log_tail = log_tail or []


@dataclass(frozen=True)
class ShimExit:
    """How a shim ended; the sandbox's processes end with it (init sees its hang-up and kills them)."""

    status: int | None
    signal: int | None


@dataclass
class ShimProcess:
    """A running shim. `ready` fails with ShimFailed when the agent did not come up; `reason` says why it retired."""

    pid: int
    endpoint: str
    ready: asyncio.Future[None]
    exited: asyncio.Future[ShimExit]
    reason: str | None = None
    host_pids: list[int] = field(default_factory=list)
    """The shim's pid and init's, as this machine sees them; filled once ready."""

    def terminate(self) -> None:
        """Asks the shim to stop everything and end."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """Ends the shim at once."""
        self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        """It may have ended a moment ago, its exit not told yet; the pid is not reused before the forkserver reaps it."""
        if not self.exited.done():
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)


class _Lines:
    """Reads a pipe line by line until its end."""

    def __init__(self, fd: int, take: Callable[[str], None]) -> None:
        self._fd = fd
        self._take = take
        self._held = b""
        self._loop = asyncio.get_running_loop()
        os.set_blocking(fd, False)
        self._loop.add_reader(fd, self._readable)

    def _readable(self) -> None:
        try:
            data = os.read(self._fd, READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        *lines, self._held = (self._held + data).split(b"\n")
        self._held = self._held[:MAX_LINE]
        for line in lines:
            self._take(line.decode("utf-8", "replace"))
        if not data:
            self.close()

    def close(self) -> None:
        """Stops reading; what follows is lost."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1


class ShimForkserver:
    """Makes shims. One per provider process."""

    def __init__(self, *, python: str = sys.executable) -> None:
        self._python = python
        self._sock: socket.socket | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._replies: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._shims: dict[int, ShimProcess] = {}
        self._pipes: dict[int, list[_Lines]] = {}
        self._early: dict[int, ShimExit] = {}
        self._number = 0
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def pid(self) -> int | None:
        """The forkserver's pid."""
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """Starts the process and waits for its imports. Raises ShimFailed."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        self._sock = ours
        loop = asyncio.get_running_loop()
        self._replies[0] = hello = loop.create_future()
        loop.add_reader(ours.fileno(), self._readable)
        with theirs:
            self._process = await asyncio.create_subprocess_exec(
                self._python,
                "-m",
                "moorage_sandbox.forkserver",
                "--control-fd",
                str(theirs.fileno()),
                "--parent",
                str(os.getpid()),
                pass_fds=(theirs.fileno(),),
                env={n: v for n, v in os.environ.items() if n in PASSED or n.startswith(PASSED_FAMILIES)},
                stdin=asyncio.subprocess.DEVNULL,
            )
        try:
            async with asyncio.timeout(START_SECONDS):
                await hello
        except TimeoutError as error:
            raise ShimFailed(f"the shim forkserver did not start within {START_SECONDS:g} s") from error

    async def spawn(
        self, config: ShimConfig, *, control_fd: int, on_log: Callable[[str], None] | None = None
    ) -> ShimProcess:
        """Forks a shim. `control_fd` is its end of the channel to init; the caller closes its own copy afterwards.

        `on_log` gets what the shim process itself writes to standard error (not the agent's output: that is in
        `config.log_file`). Raises ShimFailed.
        """
        if self._sock is None or self.lost.done():
            raise ShimFailed("the shim forkserver is not running")
        self._number += 1
        number = self._number
        status, status_theirs = os.pipe2(os.O_CLOEXEC)
        log, log_theirs = os.pipe2(os.O_CLOEXEC)
        try:
            request = {"op": "fork", "id": number, "config": asdict(config), "fds": ["control", "status", "log"]}
            reply = await self._ask(number, request, [control_fd, status_theirs, log_theirs])
        except ShimFailed:
            os.close(status)
            os.close(log)
            raise
        finally:
            os.close(status_theirs)
            os.close(log_theirs)
        loop = asyncio.get_running_loop()
        shim = ShimProcess(reply["pid"], config.endpoint, loop.create_future(), loop.create_future())
        self._shims[shim.pid] = shim
        self._pipes[shim.pid] = [
            _Lines(status, lambda line: _note(shim, line)),
            _Lines(log, on_log or (lambda line: None)),
        ]
        if shim.pid in self._early:
            self._ended(shim.pid, self._early.pop(shim.pid))
        return shim

    async def close(self) -> None:
        """Ends the forkserver and with it every shim."""
        if self._sock is not None:
            self._hung_up()
        if self._process is not None:
            try:
                async with asyncio.timeout(CLOSE_SECONDS):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
                await self._process.wait()

    async def _ask(self, number: int, request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        assert self._sock is not None
        packet = json.dumps(request, separators=(",", ":")).encode()
        if len(packet) > MAX_PACKET:
            raise ShimFailed(f"the configuration of a shim is over {MAX_PACKET} bytes")
        waiter: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._replies[number] = waiter
        try:
            socket.send_fds(self._sock, [packet], fds)
            async with asyncio.timeout(FORK_SECONDS):
                reply = await waiter
        except OSError as error:  # TimeoutError is one
            raise ShimFailed(f"the shim forkserver does not answer: {error}") from error
        finally:
            self._replies.pop(number, None)
        if reply.get("op") != "forked":
            raise ShimFailed(str(reply.get("error", "no shim was forked")))
        return reply

    def _readable(self) -> None:
        assert self._sock is not None
        try:
            data = self._sock.recv(MAX_PACKET)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._hung_up()
            return
        news = json.loads(data)
        if news["op"] == "exited":
            self._ended(news["pid"], ShimExit(news["status"], news["signal"]))
            return
        waiter = self._replies.pop(news.get("id", 0), None)
        if waiter is not None and not waiter.done():
            waiter.set_result(news)

    def _ended(self, pid: int, how: ShimExit) -> None:
        shim = self._shims.pop(pid, None)
        if shim is None:
            self._early[pid] = how  # its birth is known in the next step of `spawn`
            return
        pipes = self._pipes.pop(pid)
        for pipe in pipes:
            pipe._readable()  # what it said last
            pipe.close()
        shim.exited.set_result(how)
        if not shim.ready.done():
            shim.ready.set_exception(ShimFailed(f"the shim ended: status {how.status}, signal {how.signal}"))
            shim.ready.exception()  # known to whoever awaits it; nobody awaiting is no error

    def _hung_up(self) -> None:
        """The forkserver is gone; the kernel kills every shim it made."""
        if self._sock is None:
            return
        asyncio.get_running_loop().remove_reader(self._sock.fileno())
        self._sock.close()
        self._sock = None
        for pid in list(self._shims):
            self._ended(pid, ShimExit(None, signal.SIGKILL))
        for waiter in self._replies.values():
            if not waiter.done():
                waiter.set_exception(ShimFailed("the shim forkserver ended"))
        if not self.lost.done():
            self.lost.set_result(None)


def _note(shim: ShimProcess, line: str) -> None:
    news = json.loads(line)
    match news.get("op"):
        case "ready" if not shim.ready.done():
            shim.host_pids = list(news.get("pids", []))
            shim.ready.set_result(None)
        case "failed" if not shim.ready.done():
            shim.ready.set_exception(ShimFailed(str(news.get("detail", "")), list(news.get("log_tail", []))))
            shim.ready.exception()
        case "over":
            shim.reason = str(news.get("reason", ""))
        case _:
            pass
