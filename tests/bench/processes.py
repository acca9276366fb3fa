"""Processes under measurement: started on a chosen core, their CPU and memory read from /proc, ended by their own pid.

Figures are of the whole process (user and system time, all threads). Times in seconds, memory in bytes.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

TICKS = os.sysconf("SC_CLK_TCK")
END_SECONDS = 30.0


def cpu_of(stat: str) -> float:
    """User and system seconds in the text of /proc/PID/stat; the name in it may hold spaces and brackets."""
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def kilobytes_of(text: str, name: str) -> int:
    """A `Name:   123 kB` line of /proc/PID/status or smaps_rollup; KeyError when there is none."""
    for line in text.splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise KeyError(name)


def cpu(pids: Iterable[int]) -> float:
    """CPU seconds spent so far by these processes together."""
    return sum(cpu_of(Path(f"/proc/{pid}/stat").read_text()) for pid in pids)


def rss(pid: int) -> int:
    """Resident bytes."""
    return kilobytes_of(Path(f"/proc/{pid}/status").read_text(), "VmRSS") * 1024


def pss(pid: int) -> int:
    """Proportional bytes: a page shared by n processes counts 1/n to each."""
    return kilobytes_of(Path(f"/proc/{pid}/smaps_rollup").read_text(), "Pss") * 1024


def tree(pid: int) -> list[int]:
    """The process and all below it, as they are now."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in task.read_text().split():
                found += tree(int(child))
    return found


def cores() -> tuple[int, int]:
    """(core of load and upstreams, core of the subject); the same one where there is only one."""
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[0], allowed[-1]


@contextlib.contextmanager
def on_core(core: int) -> Iterator[None]:
    """What is started inside runs on that core, with every thread it makes."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def start(
    command: Sequence[str | Path],
    *,
    core: int,
    env: Mapping[str, str] | None = None,
    stdin: int | None = subprocess.DEVNULL,
    stdout: int | IO[bytes] | None = subprocess.DEVNULL,
    stderr: int | IO[bytes] | None = None,
) -> subprocess.Popen[bytes]:
    """A child on that core. `env` is added to ours."""
    with on_core(core):
        return subprocess.Popen(
            [str(part) for part in command],
            env={**os.environ, **(env or {})},
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
        )


def end(child: subprocess.Popen[bytes]) -> None:
    """SIGTERM, then SIGKILL at the deadline; returns when it is gone."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait(END_SECONDS)
    for pipe in (child.stdin, child.stdout, child.stderr):
        if pipe is not None:
            pipe.close()
