"""Under a launcher the program is imported once, and each fork of it serves on its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest

from fakes.ports import free_ports

pytestmark = pytest.mark.component

LAUNCHER = """
import os, runpy, signal, sys, types

ports = sys.argv[1:]
children = []
point = types.ModuleType("moorage_forkpoint")

def wait():
    for port in ports:
        child = os.fork()
        if child == 0:
            os.environ.update(PORT=port, MOORAGE_SESSION_ID=f"session-{port}", MOORAGE_WORKSPACE=os.getcwd())
            return
        children.append(child)
    print(*children, flush=True)
    for child in children:
        os.waitpid(child, 0)
    os._exit(0)

point.wait = wait
sys.modules["moorage_forkpoint"] = point
sys.argv = ["host.py"]
runpy.run_path("host.py", run_name="__main__")
"""

HOST = """
import pathlib
with open("imported", "a") as file:
    file.write("x")
from moorage import HostedAgent

def agent(items, ctx):
    print("working for", ctx.session)
    return f"{ctx.session} {ctx.workspace}"

HostedAgent(agent=agent).serve()
"""


def rollup(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise AssertionError(name)


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux's /proc")
def test_forks_of_one_import_serve_apart_with_little_memory_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "host.py").write_text(HOST)
    (tmp_path / "launcher.py").write_text(LAUNCHER)
    ports = free_ports(3)
    process = subprocess.Popen(
        [sys.executable, "launcher.py", *map(str, ports)], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    children = [int(pid) for pid in process.stdout.readline().split()]
    try:
        for port in ports:
            ready(f"http://127.0.0.1:{port}")
        own = [rollup(pid, "Private_Dirty") + rollup(pid, "Private_Clean") for pid in children]
        for port in ports:
            body: Any = httpx2.post(
                f"http://127.0.0.1:{port}/responses",
                json={"input": "x", "stream": False},
                headers={"x-moorage-turn": "t"},
                timeout=20,
            ).json()
            assert body["output"][0]["content"][0]["text"] == f"session-{port} {tmp_path}"
            assert process.stdout.readline() == f"working for session-{port}\n", "what an agent prints is seen at once"
    finally:
        for pid in children:
            os.kill(pid, signal.SIGTERM)
        assert process.wait(20) == 0
        process.stdout.close()
    assert (tmp_path / "imported").read_text() == "x"
    assert max(own) < 10_000, f"KiB that an idle fork holds for itself: {own}"


def ready(url: str) -> None:
    transport = httpx2.HTTPTransport(retries=8)
    with httpx2.Client(transport=transport, timeout=5) as client:
        assert client.get(f"{url}/readiness").json() == {"status": "healthy"}
