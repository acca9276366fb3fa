"""Long-running processes of the node: started with a log file each, ended by the id they were started with. Layer: I/O rim."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

PR_SET_PDEATHSIG = 1
TERM_SECONDS = 20.0
TAIL = 30

_libc = ctypes.CDLL(None, use_errno=True)


class Died(Exception):
    """A component ended by itself; the message holds the end of its log."""


class Children:
    """Started in order, ended in the reverse order. They end with this process, however it ends."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, command: Sequence[str | Path], env: Mapping[str, str] | None = None) -> int:
        """Starts one; its pid."""
        with (self._logs / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **(env or {})},
                start_new_session=True,
                preexec_fn=_dies_with_parent,
            )
        return self._running[name].pid

    def check(self) -> None:
        """Raises Died for the first that runs no more."""
        for name, process in self._running.items():
            if process.poll() is not None:
                raise Died(f"{name} ended with status {process.returncode}; its last lines:\n{self.tail(name)}")

    def tail(self, name: str) -> str:
        """The end of a log."""
        path = self._logs / f"{name}.log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-TAIL:]) if path.exists() else ""

    def pid(self, name: str) -> int:
        """Of one that runs."""
        return self._running[name].pid

    def send(self, name: str, number: signal.Signals) -> None:
        """Sends one a signal."""
        self._running[name].send_signal(number)

    def stop(self, name: str, how: signal.Signals = signal.SIGTERM) -> None:
        """Ends one and waits for its end."""
        process = self._running.pop(name, None)
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(how)
        deadline = time.monotonic() + TERM_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        if process.poll() is None:
            process.kill()
        process.wait()

    def stop_all(self) -> None:
        """Ends every one, the last started first."""
        for name in reversed(list(self._running)):
            self.stop(name)


def _dies_with_parent() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # what this process keeps for itself is not kept from them
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
