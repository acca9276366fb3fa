"""`moorage dev` from outside: one line of JSON, agents that answer, and nothing left when it ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from moorage_local import processes

pytestmark = pytest.mark.provider

HOST = """
import os
from moorage import HostedAgent

def agent(items, ctx):
    print("asked")
    return "hello from " + os.environ.get("MODE", "")

HostedAgent(agent=agent).serve()
"""
MANIFEST = """
apiVersion: moorage.dev/v1alpha1
kind: HostedAgent
metadata: {name: NAME}
spec:
  source: {path: .}
  env: [{name: MODE, value: one}]
"""
WITHIN = 90.0


def agent(folder: Path, name: str, host: str = HOST) -> Path:
    place = folder / name
    place.mkdir(parents=True)
    (place / "host.py").write_text(host)
    (place / "agent.yaml").write_text(MANIFEST.replace("NAME", name))
    return place


@dataclass
class Dev:
    process: asyncio.subprocess.Process
    line: dict[str, Any]
    errors: Path

    async def ask(self, name: str) -> str:
        headers = {"authorization": f"Bearer {self.line['api_key']}"}
        async with httpx2.AsyncClient(timeout=60, trust_env=False) as client:
            url = f"{self.line['url']}/v1/agents/{name}/responses"
            answer = await client.post(url, json={"input": "hi"}, headers=headers)
            assert answer.status_code == 200, answer.text
            return "".join(part["text"] for item in answer.json()["output"] for part in item["content"])

    async def end(self, number: int = signal.SIGTERM) -> int:
        family = descendants(self.process.pid)
        assert len(family) > 3
        self.process.send_signal(number)
        code = await asyncio.wait_for(self.process.wait(), 40)
        until = time.monotonic() + 10
        while alive := [one for one in family if processes.is_alive(one)]:
            assert time.monotonic() < until, f"left behind: {alive}"
            await asyncio.sleep(0.05)
        return code


def descendants(pid: int) -> list[processes.ProcessId]:
    parents: dict[int, int] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                text = Path(f"/proc/{name}/stat").read_text()
            except OSError:
                continue
            parents[int(name)] = int(text.rpartition(")")[2].split()[1])
    found, waiting = [], [pid]
    while waiting:
        one = waiting.pop()
        children = [child for child, parent in parents.items() if parent == one]
        waiting += children
        found += [identity for child in children if (identity := processes.identify(child)) is not None]
    return found


async def start(folder: Path, errors: Path, *options: str) -> asyncio.subprocess.Process:
    program = "import sys; sys.argv[0] = 'moorage'; from moorage.cli.main import main; main()"
    command = ["dev", str(folder), "--json", "--no-demo", "--port", "0", *options]
    with errors.open("wb") as file:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, *command, stdout=asyncio.subprocess.PIPE, stderr=file
        )


async def serving(folder: Path, errors: Path, *options: str) -> Dev:
    process = await start(folder, errors, *options)
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), WITHIN)
    assert line, errors.read_text()
    return Dev(process, json.loads(line), errors)


@pytest.fixture
async def dev(tmp_path: Path) -> AsyncIterator[Dev]:
    folder = tmp_path / "agents"
    agent(folder, "hello")
    one = await serving(folder, tmp_path / "errors", "--state", str(tmp_path / "state"))
    yield one
    if one.process.returncode is None:
        await one.end()


async def test_it_prints_one_line_serves_and_leaves_nothing(dev: Dev) -> None:
    names = [entry["name"] for entry in dev.line["agents"]]
    assert names == ["hello"] and dev.line["agents"][0]["responses_url"].startswith(dev.line["url"])
    assert await dev.ask("hello") == "hello from one"
    assert await dev.end() == 0
    assert dev.process.stdout is not None and await dev.process.stdout.read() == b""
    assert "| asked" in dev.errors.read_text()


async def test_a_killed_valkey_comes_back_with_everything(dev: Dev) -> None:
    assert await dev.ask("hello") == "hello from one"
    valkey = next(one for one in descendants(dev.process.pid) if "valkey" in Path(f"/proc/{one.pid}/comm").read_text())
    os.kill(valkey.pid, signal.SIGKILL)
    assert await dev.ask("hello") == "hello from one"


async def test_a_saved_file_makes_a_new_revision(dev: Dev, tmp_path: Path) -> None:
    assert await dev.ask("hello") == "hello from one"
    host = tmp_path / "agents" / "hello" / "host.py"
    host.write_text(HOST.replace("hello from", "goodbye from"))
    until = time.monotonic() + 40
    while await dev.ask("hello") != "goodbye from one":
        assert time.monotonic() < until, dev.errors.read_text()
        await asyncio.sleep(0.2)


async def test_a_killed_platform_leaves_nothing_and_the_next_start_is_quick(dev: Dev, tmp_path: Path) -> None:
    await dev.ask("hello")
    await dev.end(signal.SIGKILL)
    again = await serving(tmp_path / "agents", tmp_path / "errors2", "--state", str(tmp_path / "state"))
    assert again.line["api_key"] == dev.line["api_key"]
    assert await again.ask("hello") == "hello from one"
    assert await again.end(signal.SIGINT) == 0


async def test_a_broken_agent_is_listed_with_its_reason_and_the_others_serve(tmp_path: Path) -> None:
    folder = tmp_path / "agents"
    agent(folder, "hello")
    agent(folder, "broken", "raise ImportError('parrot')\n")
    one = await serving(folder, tmp_path / "errors", "--ephemeral")
    assert await one.ask("hello") == "hello from one"
    text = one.errors.read_text()
    assert "NOT READY" in text and "parrot" in text
    state = next(line.split()[-1] for line in text.splitlines() if line.strip().startswith("state "))
    assert await one.end() == 0
    assert not Path(state).exists()


async def test_a_taken_port_is_an_error_with_nothing_left(tmp_path: Path) -> None:
    folder = tmp_path / "agents"
    agent(folder, "hello")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        options = ("--ephemeral", "--port", str(taken.getsockname()[1]))
        process = await start(folder, tmp_path / "errors", *options)
        assert await asyncio.wait_for(process.wait(), WITHIN) == 1
    assert "address already in use" in (tmp_path / "errors").read_text()
