"""Real agent processes for the SDK's component tests: `python host.py` on a free port of loopback."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from fakes.ports import free_port
from fakes.trust import trusted

DEADLINE = 20.0


def until(condition: Callable[[], bool], what: str, deadline: float = DEADLINE) -> None:
    """Polls `condition` until it holds; fails with `what` at the deadline."""
    end = time.monotonic() + deadline
    pause = 0.01
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"not within {deadline} s: {what}")
        select_nothing(pause)


def select_nothing(seconds: float) -> None:
    """A short pause between two looks."""
    reader, writer = socket.socketpair()
    with reader, writer:
        reader.settimeout(seconds)
        try:
            reader.recv(1)
        except TimeoutError:
            pass


@dataclass
class AgentProcess:
    """One running `python host.py`."""

    process: subprocess.Popen[bytes]
    url: str
    folder: Path

    @property
    def log(self) -> str:
        """What it has written to stdout and stderr so far."""
        return (self.folder / "log").read_text(errors="replace")

    def end(self, number: int = signal.SIGTERM) -> int:
        """Signals it and waits for its end; the exit status."""
        self.process.send_signal(number)
        return self.process.wait(DEADLINE)


Run = Callable[..., AgentProcess]


@pytest.fixture
def run_agent(tmp_path: Path) -> Iterator[Run]:
    """Starts an agent from its source text; every one is ended with the test."""
    started: list[AgentProcess] = []

    def run(source: str, *, ready: bool = True, **env: str) -> AgentProcess:
        folder = tmp_path / f"agent-{len(started)}"
        folder.mkdir()
        (folder / "host.py").write_text(source)
        port = free_port()
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "host.py"],
                cwd=folder,
                env={**os.environ, "PORT": str(port), **env},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        agent = AgentProcess(process, f"http://127.0.0.1:{port}", folder)
        started.append(agent)
        if ready:
            until(lambda: answers(agent), f"the agent answers; it wrote: {agent.log}")
        return agent

    yield run
    for agent in started:
        if agent.process.poll() is None:
            agent.process.kill()
        agent.process.wait(DEADLINE)


def answers(agent: AgentProcess) -> bool:
    """Whether its health path answers at all."""
    assert agent.process.poll() is None, f"the agent ended: {agent.log}"
    try:
        httpx2.get(f"{agent.url}/readiness", timeout=2, verify=trusted())
    except httpx2.TransportError:
        return False
    return True
