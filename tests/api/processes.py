"""The operators of a run: ordered from `replica`, ended by descriptor. Layer: I/O rim."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path

from api.replica import Order

ROOT = Path(__file__).resolve().parents[1]
END_SECONDS = 20.0


class Process:
    """One operator. `end` is its own end or a given signal's; the descriptor cannot come to mean another process."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._own: int | None
        try:
            self._own = os.pidfd_open(pid)
        except ProcessLookupError:  # it has ended already
            self._own = None

    @property
    def ended(self) -> bool:
        """Whether it runs no more."""
        return self._own is None or bool(select.select([self._own], [], [], 0)[0])

    def send(self, number: signal.Signals) -> None:
        """Sends a signal; one that has ended gets none."""
        if self._own is not None and not self.ended:
            signal.pidfd_send_signal(self._own, number)

    async def wait(self, within: float = END_SECONDS) -> None:
        """Waits for its end. Raises TimeoutError."""
        if self._own is None or self.ended:
            return
        loop, over = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._own, over.set)
        try:
            async with asyncio.timeout(within):
                await over.wait()
        finally:
            loop.remove_reader(self._own)

    async def kill(self) -> None:
        """SIGKILL, and its end."""
        self.send(signal.SIGKILL)
        await self.wait()

    def close(self) -> None:
        """Gives the descriptor back."""
        if self._own is not None:
            os.close(self._own)
            self._own = None


class Nursery:
    """Starts operators until it is closed; then none is left. `log`: of the process they are forked from."""

    def __init__(self, log: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with log.open("wb") as errors:
            self._parent = subprocess.Popen(
                [sys.executable, "-m", "api.replica"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
                env=environment, cwd=ROOT,
            )  # fmt: skip
        self._lock = threading.Lock()

    def start(self, order: Order) -> Process:
        """A further operator."""
        assert self._parent.stdin is not None and self._parent.stdout is not None
        with self._lock:
            self._parent.stdin.write(order.to_json().encode() + b"\n")
            self._parent.stdin.flush()
            return Process(int(self._parent.stdout.readline()))

    def close(self) -> None:
        """Ends them all."""
        assert self._parent.stdin is not None and self._parent.stdout is not None
        self._parent.stdin.close()
        self._parent.wait(END_SECONDS)
        self._parent.stdout.close()
