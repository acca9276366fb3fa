"""Processes by what they are, not by number alone: a pid with its start time, so that a reused pid is never taken for ours.

Layer: local. Used for what a killed parent left behind: the embedded Valkey and sandboxes of an earlier run. Ends only processes that
this platform recorded itself.
"""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ProcessId:
    """One process for good: `started` is its start in clock ticks since boot."""

    pid: int
    started: int


def identify(pid: int) -> ProcessId | None:
    """The identity of a live process, or None when there is none with that pid (a zombie counts as none)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return _without_proc(pid)
    after_name = text.rpartition(")")[2].split()
    if after_name[0] in ("Z", "X"):
        return None
    return ProcessId(pid, int(after_name[19]))


def is_alive(process: ProcessId) -> bool:
    """Whether exactly this process still runs."""
    return identify(process.pid) == process


async def end(process: ProcessId, *, grace: float, deadline: float) -> bool:
    """Ends one process: SIGTERM, after `grace` seconds SIGKILL. True when it is seen dead within `deadline` seconds."""
    if not is_alive(process):
        return True
    _send(process, signal.SIGTERM)
    if await _dead_within(process, grace):
        return True
    _send(process, signal.SIGKILL)
    return await _dead_within(process, max(deadline - grace, 0.1))


def kill(process: ProcessId) -> None:
    """SIGKILL to exactly this process; nothing when it is gone."""
    if is_alive(process):
        _send(process, signal.SIGKILL)


def _send(process: ProcessId, number: signal.Signals) -> None:
    try:
        os.kill(process.pid, number)
    except (ProcessLookupError, PermissionError):
        return


async def _dead_within(process: ProcessId, seconds: float) -> bool:
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while is_alive(process):
        if loop.time() >= until:
            return False
        await asyncio.sleep(0.02)
    return True


def _without_proc(pid: int) -> ProcessId | None:
    if os.path.isdir("/proc/self"):
        return None
    try:
        os.kill(pid, 0)
    except OSError:
        return None
    return ProcessId(pid, 0)
