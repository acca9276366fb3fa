"""Starts `moorage dev` and further gateways as real processes, and reads what they print. No product code is called.

Limits: one machine; the state folder is a temporary one unless given.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import selectors
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import openai

from fakes import environments
from fakes.objects import FolderObjects, Objects, bytes_of, files_below
from fakes.ports import free_ports

ROOT = Path(__file__).resolve().parent.parent.parent
AGENTS = ROOT / "tests" / "agents"
BIN = Path(sys.executable).parent
READY_S = 120.0
END_S = 30.0


def poll(what: str, look: Callable[[], Any], *, within: float = 30.0, every: float = 0.05) -> Any:
    """The first truthy answer of `look`; AssertionError naming `what` when it does not come."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(every)
    raise AssertionError(f"{what} did not happen within {within} s")


@dataclass
class Gateway:
    """One gateway process beside the platform's own."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def kill(self) -> None:
        """SIGKILL, and reaped."""
        self.process.kill()
        self.process.wait(timeout=10)

    def end(self) -> int:
        """SIGTERM; its exit status."""
        self.process.terminate()
        return self.process.wait(timeout=60)


@dataclass
class Platform:
    """A running platform. `api_key` may do everything in the dev tenant."""

    process: subprocess.Popen[bytes]
    url: str
    api_key: str
    agents: list[dict[str, str]]
    state: Path
    log: Path
    gateways: list[Gateway] = field(default_factory=list)
    local: ClassVar[bool] = True
    """`moorage dev` on this machine."""

    @property
    def gateway_pid(self) -> int:
        """The process whose memory a caller fills."""
        return self.process.pid

    @property
    def stored(self) -> Objects:
        """What lies in the object store."""
        return FolderObjects(self.objects())

    def holding(self, secret: bytes) -> list[str]:
        """Where that is kept, among all that the platform keeps."""
        return [str(path) for path in files_below(self.state) if secret in bytes_of(path)]

    def workspace_files(self, name: str) -> list[Path]:
        """Files of that name in the sessions' workspaces."""
        return [path for path in files_below(self.state) if path.name == name and self.objects() not in path.parents]

    def kill_sandbox(self, agent: str, session: str) -> None:
        """SIGKILL to all of a session's sandbox."""
        for pid in self.pids(agent, session):
            with contextlib.suppress(ProcessLookupError):  # it ended with one that was hit before
                os.kill(pid, signal.SIGKILL)

    def client(
        self, agent: str, *, url: str | None = None, api_key: str | None = None, **options: Any
    ) -> openai.OpenAI:
        """The stock client at an agent's URL."""
        base = f"{url or self.url}/v1/agents/{agent}"
        return openai.OpenAI(base_url=base, api_key=api_key or self.api_key, **({"max_retries": 0} | options))

    def call(
        self, path: str, *, method: str = "GET", body: Any = None, api_key: str | None = None, url: str | None = None
    ) -> tuple[int, Any]:
        """One plain call: status and parsed body."""
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request((url or self.url) + path, data=data, method=method)
        request.add_header("Authorization", f"Bearer {api_key or self.api_key}")
        request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                raw, status = answer.read(), answer.status
        except urllib.error.HTTPError as error:
            raw, status = error.read(), error.code
        try:
            return status, json.loads(raw)
        except ValueError:
            return status, raw

    def record(self, agent: str, response: str, **options: Any) -> dict[str, Any]:
        """The record of a response."""
        status, found = self.call(f"/v1/agents/{agent}/responses/{response}/record", **options)
        assert status == 200, (status, found)
        return dict(found)

    def sessions(self, agent: str, **options: Any) -> list[dict[str, Any]]:
        """Sessions of an agent, sandbox details included."""
        status, found = self.call(f"/v1/sessions?agent={agent}&limit=100", **options)
        assert status == 200, (status, found)
        return list(found["data"])

    def pids(self, agent: str, session: str, **options: Any) -> list[int]:
        """Host pids of a session's sandbox; none before there is one."""
        status, found = self.call(f"/v1/sessions/{session}?agent={agent}", **options)
        assert status in (200, 404), (status, found)
        return list((found.get("sandbox") or {}).get("pids") or [])

    def valkey_pid(self) -> int:
        """Of the embedded server, as the platform noted it."""
        return self.valkey_pids()[0]

    def valkey_pids(self) -> list[int]:
        """None for a moment where one has ended and the next one has not begun."""
        return [int(each["pid"]) for each in json.loads((self.state / "valkey.pids.json").read_text())]

    def start_gateway(self, more: Mapping[str, str] | None = None) -> Gateway:
        """Another replica on the same Valkey and object store. `more`: of its environment."""
        ports = free_ports(4)
        log = self.state / f"gateway-{ports[0]}.log"
        env = os.environ | {
            "MOORAGE_REDIS_URL": self.redis_url(),
            "MOORAGE_STORE": str(self.objects()),
            "MOORAGE_PUBLIC_PORT": str(ports[0]),
            "MOORAGE_SANDBOX_PORT": str(ports[1]),
            "MOORAGE_EGRESS_PORT": str(ports[2]),
            "MOORAGE_CONTROL_PORT": str(ports[3]),
            "MOORAGE_DRAIN_NOTICE_SECONDS": "0",
            **(more or {}),
        }
        with log.open("wb") as output:
            process = subprocess.Popen([str(BIN / "moorage-gateway")], env=env, stdout=output, stderr=subprocess.STDOUT)
        gateway = Gateway(process, f"http://127.0.0.1:{ports[0]}", log)
        self.gateways.append(gateway)

        def ready() -> bool:
            assert process.poll() is None, log.read_text()[-3000:]
            with contextlib.suppress(OSError):
                return urllib.request.urlopen(f"http://127.0.0.1:{ports[3]}/readyz", timeout=2).status == 200
            return False

        poll("a further gateway is ready", ready, within=READY_S)
        return gateway

    def redis_url(self) -> str:
        """Where the embedded Valkey listens, read off its own process title."""
        title = Path(f"/proc/{self.valkey_pid()}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        found = re.search(r"unixsocket[: ](/\S+)", title)
        assert found is not None, title
        return f"unix://{found.group(1)}?db=0"

    def objects(self) -> Path:
        """The folder object store."""
        return self.state / "objects"

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ends it; the exit status."""
        self.process.send_signal(number)
        try:
            return self.process.wait(timeout=END_S)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait(timeout=10)


@contextlib.contextmanager
def started(
    folder: Path,
    *options: str,
    state: Path | None = None,
    env: dict[str, str] | None = None,
    prefix: Sequence[str] = (),
    within: float = READY_S,
) -> Iterator[Platform]:
    """A platform that serves the agents of `folder`; ended with everything under it. `prefix`: a command it is started by; `within`: how
    long their environments may take."""
    with tempfile.TemporaryDirectory(prefix="mp-", ignore_cleanup_errors=True) as scratch:
        root = state or Path(scratch) / "s"
        log = Path(scratch) / "dev.log"
        command = [str(BIN / "moorage"), "dev", str(folder), "--json", "--no-demo", "--port", "0", "--state", str(root)]
        environments.lay(folder, root)
        with log.open("wb") as errors:
            process = subprocess.Popen(
                [*prefix, *command, *options], stdout=subprocess.PIPE, stderr=errors, env=os.environ | (env or {})
            )
        platform = None
        try:
            line = _line(process, log, within)
            said = json.loads(line)
            environments.keep(folder, root)
            platform = Platform(process, said["url"], said["api_key"], said["agents"], root, log)
            yield platform
        finally:
            for gateway in platform.gateways if platform else []:
                if gateway.process.poll() is None:
                    gateway.kill()
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(timeout=END_S)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait(timeout=10)
            if process.stdout is not None:
                process.stdout.close()


def _line(process: subprocess.Popen[bytes], log: Path, within: float) -> bytes:
    assert process.stdout is not None
    chosen = selectors.DefaultSelector()
    chosen.register(process.stdout, selectors.EVENT_READ)
    with chosen:
        deadline, data = time.monotonic() + within, b""
        while b"\n" not in data:
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-4000:]
            if chosen.select(1.0):
                data += os.read(process.stdout.fileno(), 65536)
    return data.splitlines()[0]
