"""Ending and reaping processes by what the kernel says of them. Layer: floor of the launcher; also for the plain mode's walk of /proc."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from dataclasses import dataclass


@dataclass(frozen=True)
class Ended:
    """A child that was reaped; exactly one of `status` and `signal` is set."""

    pid: int
    status: int | None
    signal: int | None


def reap() -> tuple[list[Ended], bool]:
    """Every child that has ended, and whether any is left. For a PID 1 or a subreaper "none left" proves an empty tree."""
    ended: list[Ended] = []
    while True:
        try:
            pid, wait_status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended, False
        if pid == 0:
            return ended, True
        code = os.waitstatus_to_exitcode(wait_status)
        ended.append(Ended(pid, code if code >= 0 else None, -code if code < 0 else None))


def parents() -> dict[int, int]:
    """Process id → parent's id, of all processes /proc shows."""
    seen: dict[int, int] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError, ValueError, IndexError), open(f"/proc/{name}/stat", "rb") as file:
                seen[int(name)] = int(file.read().rpartition(b")")[2].split()[1])
    return seen


def descendants(root: int) -> list[int]:
    """All processes below `root`, nearest first."""
    children: dict[int, list[int]] = {}
    for pid, parent in parents().items():
        children.setdefault(parent, []).append(pid)
    found: list[int] = []
    level = [root]
    while level:
        level = [child for pid in level for child in children.get(pid, ())]
        found += level
    return found


def kill_descendants(root: int) -> int:
    """SIGKILLs everything below `root`, stopped first so that nothing forks away meanwhile. Returns how many it met."""
    stopped: set[int] = set()
    while fresh := [pid for pid in descendants(root) if pid not in stopped]:
        for pid in fresh:
            signal_quietly(pid, signal.SIGSTOP)
        stopped.update(fresh)
    for pid in stopped:
        signal_quietly(pid, signal.SIGKILL)
    return len(stopped)


def kill_namespace() -> None:
    """From PID 1: SIGKILLs every other process of the namespace, in one call."""
    signal_quietly(-1, signal.SIGKILL)


def signal_quietly(pid: int, number: int) -> None:
    """Sends a signal; a process that is gone, or not ours, is no error."""
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
