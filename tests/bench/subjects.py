"""What is measured, and what stands around it: gateway, nginx, Valkey, scripted sandboxes, load generator. Each a process of its own.

`stage` starts them, founds the ledger, publishes the agent, offers the sandboxes and makes the key, as a provider and an admin would;
from there on a bench only sends requests. Load, upstream and Valkey share the first core, the subject has the last one.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import secrets
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis.asyncio as aioredis

from bench import processes
from bench.workers import Worker
from fakes.valkey import Valkey
from moorage_api import names
from moorage_api.catalog import AgentEntry, RevisionEntry
from moorage_api.kinds import parse
from moorage_api.ledger.provider import ProviderLedger
from moorage_api.ledger.records import Descriptor
from moorage_gateway.keys import KeyService, new_text
from moorage_gateway.ledger_client import LedgerClient
from moorage_gateway.store import FolderStore

HERE = Path(__file__).resolve().parent
START_SECONDS = 60.0
ANSWER_SECONDS = 180.0
TENANT, USER, AGENT = "bench", "bench", "scripted"
BODY = b'{"text":"%b"}' % (b"y" * 1013)  # 1 KB
COMMANDS, ANSWERED = "moorage_redis_commands", 'moorage_requests_total{operation="invoke",status="200"}'


class CannotRun(Exception):
    """A bench cannot run on this machine; the message is the reason that is printed."""


class Load:
    """The load generator. One job at a time."""

    def __init__(self) -> None:
        self._worker = Worker(HERE / "load_client.py", core=processes.cores()[0])

    def begin(self, **job: Any) -> None:
        """Starts a job; returns when its connections are open."""
        self._worker.send(job)
        found = self._worker.line(ANSWER_SECONDS)
        if found.get("notice") != "open":
            raise RuntimeError(f"the load generator: {found}")

    def result(self) -> dict[str, Any]:
        """The answer of the job begun; anything but whole 200 answers is an error of the bench."""
        found = self._worker.line(ANSWER_SECONDS)
        if "failed" in found or found["errors"] or set(found["statuses"]) - {"200"} or not found["requests"]:
            told = {name: value for name, value in found.items() if not name.endswith("_us")}
            raise RuntimeError(f"the load did not run clean: {told}")
        return found

    def run(self, **job: Any) -> dict[str, Any]:
        """`begin` and `result`."""
        self.begin(**job)
        return self.result()

    def close(self) -> None:
        """Ends it."""
        self._worker.close()


class ScriptedSandboxes:
    """The process behind `scripted_sandbox.py`, with `count` sandboxes."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder = folder
        self._child = processes.start(
            [sys.executable, HERE / "scripted_sandbox.py", folder, str(count)],
            core=processes.cores()[0],
            stdout=subprocess.PIPE,
        )
        assert self._child.stdout is not None
        self.port = int(self._child.stdout.readline() or 0)
        if not self.port:
            raise RuntimeError("the scripted sandbox did not start")

    @property
    def direct(self) -> str:
        """Where the load generator reaches it without anything in between."""
        return f"127.0.0.1:{self.port}"

    def socket(self, number: int) -> str:
        """The path of one sandbox's socket."""
        return str(self.folder / str(number))

    def close(self) -> None:
        """Ends it."""
        processes.end(self._child)


class Gateway:
    """One `moorage-gateway` process on free ports, its access log in a file, its limits on but out of the way."""

    def __init__(
        self, folder: Path, redis_url: str, *, relaxed: bool = False, env: dict[str, str] | None = None
    ) -> None:
        self.port, self.control_port, self.sandbox_port = free_port(), free_port(), free_port()
        env = (env or {}) | {
            "MOORAGE_REDIS_URL": redis_url,
            "MOORAGE_STORE": str(folder / "store"),
            "MOORAGE_PUBLIC_PORT": str(self.port),
            "MOORAGE_CONTROL_PORT": str(self.control_port),
            "MOORAGE_SANDBOX_PORT": str(self.sandbox_port),
            "MOORAGE_EGRESS_PORT": "0",
            "MOORAGE_DURABILITY": "relaxed" if relaxed else "always",
            "MOORAGE_KEY_RATE": "1000000",
            "MOORAGE_KEY_BURST": "1000000",
            "MOORAGE_DRAIN_NOTICE_SECONDS": "0",
            "MOORAGE_DRAIN_SECONDS": "2",
        }
        self.log = folder / f"gateway-{self.port}.log"
        with self.log.open("wb") as errors, (folder / "access.log").open("ab") as lines:
            self._child = processes.start(
                [sys.executable, "-m", "moorage_gateway"],
                core=processes.cores()[1],
                env=env,
                stdout=lines,
                stderr=errors,
            )
        self._await_ready()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._child.pid

    @property
    def target(self) -> str:
        """Where the load generator reaches it."""
        return f"127.0.0.1:{self.port}"

    def metric(self, name: str) -> float:
        """One sample of /metrics by its full name; 0 when it is not there yet."""
        text = _get(self.control_port, "/metrics")
        for line in text.splitlines():
            if line.startswith(f"{name} "):
                return float(line.rpartition(" ")[2])
        return 0.0

    def close(self) -> None:
        """Ends it."""
        processes.end(self._child)

    def _await_ready(self) -> None:
        until = time.monotonic() + START_SECONDS
        pause = select.poll()
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if _get(self.port, "/readyz"):
                    return
            if self._child.poll() is not None or time.monotonic() > until:
                processes.end(self._child)
                raise RuntimeError(f"the gateway did not start: {self.log.read_text()[-2000:]}")
            pause.poll(20)


class Nginx:
    """nginx as a reverse proxy to a scripted sandbox: one worker, keep-alive upstream, access log on, no buffering."""

    def __init__(self, folder: Path, upstream: str) -> None:
        binary = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
        if binary is None:
            raise CannotRun("nginx is not installed (Debian package nginx-light)")
        self.port = free_port()
        config = folder / "nginx.conf"
        config.write_text(_NGINX.format(folder=folder, port=self.port, upstream=upstream, user=_user()))
        self._child = processes.start(
            [binary, "-c", config, "-p", folder, "-e", folder / "nginx-error.log"],
            core=processes.cores()[1],
            stderr=subprocess.DEVNULL,
        )
        await_port(self.port)
        self.pids = processes.tree(self._child.pid)

    @property
    def target(self) -> str:
        """Where the load generator reaches it."""
        return f"127.0.0.1:{self.port}"

    def close(self) -> None:
        """Ends it."""
        processes.end(self._child)


_NGINX = """
daemon off; master_process on; worker_processes 1; {user} pid {folder}/nginx.pid;
events {{ worker_connections 4096; }}
http {{
  access_log {folder}/nginx-access.log; keepalive_requests 1000000;
  client_body_temp_path {folder}/nb; proxy_temp_path {folder}/np; fastcgi_temp_path {folder}/nf;
  uwsgi_temp_path {folder}/nu; scgi_temp_path {folder}/ns;
  upstream sandbox {{ server unix:{upstream}; keepalive 64; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    location / {{
      proxy_pass http://sandbox; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
    }}
  }}
}}
"""


@dataclass
class Stage:
    """Everything started. `sessions` has as many names as there are sandboxes for them."""

    folder: Path
    valkey: Valkey
    sandboxes: ScriptedSandboxes
    load: Load
    key: str
    gateway: Gateway
    relaxed: bool

    def restart_gateway(self) -> Gateway:
        """A fresh process that knows no route."""
        self.gateway.close()
        self.gateway = Gateway(self.folder, self.valkey.url, relaxed=self.relaxed)
        return self.gateway

    def invoke(self, path: str, session: str) -> str:
        """The text of an invocation."""
        return request(f"/v1/agents/{AGENT}/invocations{path}", BODY, self.key, session)

    def turn(self, session: str, deltas: int, gap_us: int) -> str:
        """The text of a streamed durable turn in a named session."""
        body = {"input": f"script {deltas} {gap_us}", "stream": True, "agent_session_id": session}
        return request(f"/v1/agents/{AGENT}/responses", json.dumps(body).encode(), self.key)

    def warm(self, sessions: Sequence[str]) -> None:
        """Each session has its sandbox bound and its route known."""
        for session in sessions:
            self.load.run(target=self.gateway.target, requests=[self.invoke("/json", session)], count=1)


def request(path: str, body: bytes, key: str = "", session: str = "") -> str:
    """A POST as bytes on the wire, as text."""
    lines = [f"POST {path} HTTP/1.1", "host: 127.0.0.1", "content-type: application/json", "accept: */*"]
    if key:
        lines.append(f"authorization: Bearer {key}")
    if session:
        lines.append(f"x-agent-session-id: {session}")
    return "\r\n".join([*lines, f"content-length: {len(body)}", "", ""]) + body.decode()


@contextlib.contextmanager
def stage(sandboxes: int, *, fsync: str = "always") -> Iterator[Stage]:
    """The whole set-up, ended in reverse order whatever happens."""
    with contextlib.ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="mb-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        with processes.on_core(processes.cores()[0]):
            valkey = Valkey(appendfsync=fsync)
        stack.callback(valkey.close)
        (folder / "s").mkdir()
        scripted = ScriptedSandboxes(folder / "s", sandboxes)
        stack.callback(scripted.close)
        key = asyncio.run(_furnish(valkey.url, folder / "store", [scripted.socket(n) for n in range(sandboxes)]))
        load = Load()
        stack.callback(load.close)
        relaxed = fsync != "always"
        one = Stage(folder, valkey, scripted, load, key, Gateway(folder, valkey.url, relaxed=relaxed), relaxed)
        stack.callback(lambda: one.gateway.close())
        yield one


async def _furnish(redis_url: str, store_folder: Path, sockets: Sequence[str]) -> str:
    """Ledger, catalog, pool and key; returns the key's text."""
    client = LedgerClient(aioredis.Redis.from_url(redis_url), who="bench-provider")
    try:
        await client.found()
        ledger = ProviderLedger(client)
        await ledger.set_token_key(secrets.token_hex(32))
        await ledger.publish(entry())
        for socket_path in sockets:
            sandbox = names.new_sandbox_id()
            one = Descriptor(
                sandbox=sandbox,
                tenant=TENANT,
                agent=AGENT,
                revision="r1",
                endpoint=f"unix:{socket_path}",
                secret=names.new_secret(),
                volume=f"v-{sandbox}",
                pids=(os.getpid(),),
            )
            if not await ledger.offer(one):
                raise RuntimeError("the ledger refused a sandbox")
        return await make_key(client, store_folder)
    finally:
        await client.aclose()


async def make_key(client: LedgerClient, store_folder: Path) -> str:
    """The text of a key of the benches' user."""
    keys = KeyService(FolderStore(store_folder), client, now=time.time, monotonic=time.monotonic)
    text = new_text()
    await keys.ensure(text, tenant=TENANT, user=USER, scopes=("invoke", "operator"))
    return text


def entry(models: Sequence[str] = ()) -> AgentEntry:
    """The benches' agent as the catalog has it."""
    document = {"apiVersion": "moorage.dev/v1alpha1", "kind": "HostedAgent", "metadata": {"name": AGENT}}
    spec = parse({**document, "spec": {"source": {"path": "."}, "models": list(models)}}).spec
    return AgentEntry(
        tenant=TENANT,
        agent=AGENT,
        revisions=(RevisionEntry("r1"),),
        protocols=frozenset({"responses", "invocations"}),
        contract="moorage",
        spec=spec.model_dump(mode="json", by_alias=True),
    )


def free_port() -> int:
    """A port on loopback that was free a moment ago."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def await_port(port: int) -> None:
    """Returns when something listens there; RuntimeError at the deadline."""
    until = time.monotonic() + START_SECONDS
    pause = select.poll()
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        if time.monotonic() > until:
            raise RuntimeError(f"nothing listens on port {port}")
        pause.poll(20)


def _get(port: int, path: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        text = answer.read().decode()
    finally:
        connection.close()
    return text if answer.status == 200 else ""


def _user() -> str:
    return "user root;" if os.geteuid() == 0 else ""
