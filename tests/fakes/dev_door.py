"""`scripts/dev` as a script outside drives it: its one line of JSON, its end by a signal, and every process it leaves or does not."""

from __future__ import annotations

import hashlib
import json
import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai

ROOT = Path(__file__).resolve().parent.parent.parent
READY_S = 120.0
CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Process:
    """A process by number and start time, so that a later one of the same number is not taken for it."""

    pid: int
    started: str

    @property
    def alive(self) -> bool:
        """Whether it still runs (a zombie does not)."""
        found = _stat(self.pid)
        return found is not None and found[19] == self.started and found[0] != "Z"


@dataclass
class Dev:
    """A platform that `scripts/dev` started. `seconds`: from the start to its line."""

    process: subprocess.Popen[bytes]
    line: dict[str, Any]
    seconds: float
    log: Path

    @property
    def url(self) -> str:
        """The base URL."""
        return str(self.line["url"])

    def client(self, agent: str) -> openai.OpenAI:
        """The stock client with the printed key."""
        url = next(one["responses_url"] for one in self.line["agents"] if one["name"] == agent)
        key = self.line["api_key"]
        return openai.OpenAI(base_url=url.removesuffix("/responses"), api_key=key, max_retries=0)

    def state(self) -> Path:
        """The state folder that it printed for people, on stderr."""
        found = re.search(r"^\s+state\s+(/\S+)$", self.log.read_text(), re.MULTILINE)
        assert found is not None, self.log.read_text()
        return Path(found.group(1))

    def family(self) -> set[Process]:
        """It and everything below it now."""
        return {Process(pid, found[19]) for pid in descendants(self.process.pid) if (found := _stat(pid))}

    def end(self, number: signal.Signals, *, within: float = 30.0) -> int:
        """Sends the signal to it alone; its exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout=within)


@contextmanager
def dev(folder: Path, scratch: Path, *options: str) -> Iterator[Dev]:
    """`scripts/dev --json --no-demo --port 0 FOLDER`, killed at the end if it still runs."""
    log = scratch / f"dev-{time.monotonic_ns()}.log"
    command = [str(ROOT / "scripts" / "dev"), "--json", "--no-demo", "--port", "0", *options, str(folder)]
    began = time.monotonic()
    with log.open("wb") as stderr:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, env=environment(scratch))
    assert process.stdout is not None
    try:
        line = first_line(process, log)
        yield Dev(process, json.loads(line), time.monotonic() - began, log)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(timeout=10)
        process.stdout.close()


def environment(scratch: Path) -> dict[str, str]:
    """This suite's own environment stands where the door would make one, marked as made from the present lock."""
    venv = scratch / "venv"
    if not venv.exists():
        venv.mkdir()
        (venv / "bin").symlink_to(Path(sys.executable).parent)
        lock = (ROOT / "requirements.lock").read_bytes() + (ROOT / "pyproject.toml").read_bytes()
        (venv / ".moorage-lock").write_text(hashlib.sha256(lock).hexdigest())
    return os.environ | {"MOORAGE_VENV": str(venv), "XDG_CONFIG_HOME": str(scratch / "config")}


def first_line(process: subprocess.Popen[bytes], log: Path) -> bytes:
    """The first line on stdout."""
    assert process.stdout is not None
    data, deadline = b"", time.monotonic() + READY_S
    with selectors.DefaultSelector() as ready:
        ready.register(process.stdout, selectors.EVENT_READ)
        while b"\n" not in data:
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-4000:]
            if ready.select(0.5):
                data += os.read(process.stdout.fileno(), 65_536)
    assert data.count(b"\n") == 1 and data.endswith(b"\n"), data
    return data


def descendants(root: int) -> set[int]:
    """`root` and every process below it."""
    parents = {pid: int(found[1]) for pid in _pids() if (found := _stat(pid))}
    found, level = {root}, {root}
    while level:
        level = {pid for pid, parent in parents.items() if parent in level} - found
        found |= level
    return found


def groups_of(processes: set[Process]) -> set[Path]:
    """The control groups made for these processes: folders with the platform's prefix."""
    found: set[Path] = set()
    for process in processes:
        try:
            lines = Path(f"/proc/{process.pid}/cgroup").read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            _, controllers, path = line.split(":", 2)
            if "moorage-" in path:
                found.add(CGROUPS / controllers.removeprefix("name=") / path.lstrip("/"))
    return {path for path in found if path.is_dir()}


def _pids() -> list[int]:
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the state on; None when there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return None
