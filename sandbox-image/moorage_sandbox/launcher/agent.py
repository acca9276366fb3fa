"""What a process forked by init does before the agent's code goes on. Layer: middle of the launcher."""

from __future__ import annotations

import gc
import os
import resource
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from . import kernel

OOM_SCORE = "500"  # the agent dies of its memory, not the init that reports it


@dataclass(frozen=True)
class Start:
    """An agent process about to begin: its environment, where its output goes, and the pid of its init."""

    env: dict[str, str]
    output: int
    limits: dict[str, int]
    plain: bool
    parent: int


def become(start: Start, calls: kernel.Kernel) -> None:
    """Makes this process the agent: a session, output, limits and environment of its own; dies with its init."""
    os.setsid()
    calls.prctl(kernel.PR_SET_PDEATHSIG, 9)
    if os.getppid() != start.parent:  # it ended before the line above: nobody would send that signal any more
        os._exit(1)
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (start.output, 1), (start.output, 2)):
        os.dup2(source, target)
    os.close(null)
    os.close(start.output)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(OOM_SCORE)
    limit(start.limits)
    calls.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    calls.prctl(kernel.PR_SET_DUMPABLE, 1)  # else /proc/self would belong to nobody and ordinary tools fail
    os.environ.update(start.env)
    gc.enable()


def limit(limits: dict[str, int]) -> None:
    """Sets hard and soft rlimits; a limit above what this process may have is lowered to that."""
    wanted = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: limits.get("nofile", 0),
        resource.RLIMIT_NPROC: limits.get("nproc", 0),
        resource.RLIMIT_FSIZE: limits.get("fsize", 0),
        resource.RLIMIT_DATA: limits.get("data", 0),
    }
    for kind, value in wanted.items():
        if value == 0 and kind != resource.RLIMIT_CORE:
            continue
        hard = resource.getrlimit(kind)[1]
        bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (bound, bound))


def run_program(entry: str) -> None:
    """Exec mode: replaces this process by `python entry`, unbuffered, in the current folder."""
    os.execve(sys.executable, [sys.executable, "-u", entry], dict(os.environ))


def free_port() -> int:
    """A port nobody listens on now (plain mode shares the host's loopback)."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
