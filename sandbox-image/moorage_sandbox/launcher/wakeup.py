"""Signals as readable bytes, for a loop that polls; undone in a process that goes on to be an agent. Layer: floor of the launcher."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

Handler = Callable[[int, FrameType | None], object] | int | None


def _note(_number: int, _frame: FrameType | None) -> None:
    """The wake-up descriptor has it."""


class ChildWatch:
    """Makes the end of a child wake `fileno()`. One a process; call `restart` after a fork, `undo` before foreign code runs."""

    def __init__(self) -> None:
        self._before: dict[int, Handler] = {}
        self._read, self._write = -1, -1
        self.start()

    def start(self) -> None:
        """Takes the signals over."""
        self._read, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        for number, handler in (
            (signal.SIGCHLD, _note),
            (signal.SIGINT, signal.SIG_IGN),
            (signal.SIGHUP, signal.SIG_IGN),
        ):
            previous = signal.signal(number, handler)
            self._before.setdefault(number, previous)
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)

    def restart(self) -> None:
        """In a forked child: a pipe of its own, so that its children do not wake the parent."""
        self._close()
        self.start()

    def fileno(self) -> int:
        """What to poll for reading."""
        return self._read

    def drain(self) -> None:
        """Takes the pending wake-ups."""
        with suppress(BlockingIOError):
            os.read(self._read, 4096)

    def wait(self, seconds: float) -> None:
        """Waits for a child's end, at most so long."""
        poller = select.poll()
        poller.register(self._read, select.POLLIN)
        poller.poll(seconds * 1000)
        self.drain()

    def undo(self) -> None:
        """Gives the handlers back as they were before the fork point."""
        signal.set_wakeup_fd(-1)
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        self._close()

    def _close(self) -> None:
        signal.set_wakeup_fd(-1)
        os.close(self._read)
        os.close(self._write)
