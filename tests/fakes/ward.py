"""Real zygotes and sandboxes for tests, with the shim's own end of the control channel, and an agent that does whatever a test tells it.

Not a fake of any of our parts: only the agent is made up. What it cannot do: streaming, more than one agent process a sandbox at a time.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import socket
import sys
import textwrap
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import moorage_sandbox
from moorage_local import cgroups, enclosure, sandboxes, volumes
from moorage_local.isolation import Isolation
from moorage_local.zygote import Zygote
from moorage_sandbox.control import Control, Exited

LAUNCHER = Path(moorage_sandbox.__file__).parent / "launcher"
SECONDS = 20.0
AGENT = """
import json, os, sys, traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Puppet(BaseHTTPRequestHandler):
    def do_POST(self):
        code = self.rfile.read(int(self.headers["content-length"]))
        world = {"result": None}
        try:
            exec(compile(code, "told", "exec"), world)
            answer = {"result": world["result"]}
        except BaseException:
            answer = {"error": traceback.format_exc()}
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

if __name__ == "__main__":
    import_pid = os.getpid()
    if "moorage_forkpoint" in sys.modules:
        import moorage_forkpoint
        moorage_forkpoint.wait()
    print("the agent says hello")
    ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Puppet).serve_forever()
"""


def below_tmp() -> frozenset[str]:
    """Folders of a sandbox's own /tmp that are only the way to an interpreter which lies below /tmp on this machine."""
    way = {str(folder) for prefix in (sys.prefix, sys.base_prefix) for folder in Path(prefix).resolve().parents}
    return frozenset(folder for folder in way if folder.startswith("/tmp/"))


async def until(holds: Callable[[], bool], what: str, *, seconds: float = SECONDS) -> None:
    """Waits until `holds()`, once; at the deadline the test fails with `what` did not come true."""
    try:
        async with asyncio.timeout(seconds):
            while not holds():
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"it did not come true within {seconds:g} s: {what}") from None


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


@dataclass
class Guest:
    """One sandbox and the shim's end of its control channel."""

    sandbox: sandboxes.Sandbox
    control: Control
    volume: Path
    hello: dict[str, Any]
    host_pid_by_channel: int
    exits: list[Exited]
    lost: asyncio.Event
    output: bytearray = field(default_factory=bytearray)
    port: int = 8088
    pid: int = 0

    async def start_agent(self, **env: str) -> int:
        """Asks init for an agent process; its pid inside."""
        reply = await self.control.call("spawn", SECONDS, env=env)
        assert reply.body["op"] == "spawned", reply.body
        self.port, self.pid = int(reply.body["port"]), int(reply.body["pid"])
        _Drain(reply.fds[0], self.output)
        return self.pid

    async def connect(self) -> socket.socket:
        """A connection to the agent, once it listens."""
        async with asyncio.timeout(SECONDS):
            while True:
                reply = await self.control.call("connect", SECONDS, port=self.port)
                if reply.body["op"] == "connected":
                    return socket.socket(fileno=reply.fds[0])
                await asyncio.sleep(0.01)

    async def tell(self, code: str, *, seconds: float = SECONDS) -> Any:
        """Makes the agent run `code` and gives what it left in `result`; its error fails the test."""
        body = textwrap.dedent(code).encode()
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_connection(sock=await self.connect())
            try:
                writer.write(b"POST / HTTP/1.0\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
                head, _, answer = (await reader.read()).partition(b"\r\n\r\n")
            finally:
                writer.close()
        assert head.startswith(b"HTTP/1.0 200"), head
        decoded = json.loads(answer)
        assert "error" not in decoded, decoded["error"]
        return decoded["result"]

    async def kill_all(self) -> int:
        """`killall` by init; how many it reports alive."""
        reply = await self.control.call("killall", SECONDS)
        assert reply.body["op"] == "killed", reply.body
        return int(reply.body["alive"])


class _Drain:
    """Collects a pipe into a buffer while the loop runs."""

    def __init__(self, fd: int, into: bytearray) -> None:
        self._fd, self._into = fd, into
        os.set_blocking(fd, False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(fd, self._read)

    def _read(self) -> None:
        data = os.read(self._fd, 65536)
        self._into += data
        if not data:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)


class Ward:
    """Makes zygotes and guests under one folder and ends them all."""

    def __init__(self, folder: Path, isolation: Isolation, python: Path) -> None:
        self.folder = folder
        self.isolation = isolation
        self.python = python
        self.uid = 210_000 if isolation.as_root and isolation.mode == "isolated" else None
        self.lines: list[str] = []
        self._endings: list[Callable[[], Awaitable[Any]]] = []

    def spec(self, entry: str = "host.py", source: str = AGENT, **fields: Any) -> enclosure.ZygoteSpec:
        """What a zygote of `source` needs."""
        name = fields.pop("name", "agent")
        code, root = self.folder / name / "code", self.folder / name / "volumes"
        for folder in (code, root):
            folder.mkdir(parents=True, exist_ok=True)
        if source:
            (code / entry).write_text(source)
        defaults: dict[str, Any] = {"ready_seconds": SECONDS, "uid": self.uid, "python": self.python}
        return enclosure.ZygoteSpec(
            name=name, code=code, entry=entry, volumes=root, launcher=LAUNCHER, **(defaults | fields)
        )

    async def zygote(self, spec: enclosure.ZygoteSpec | None = None) -> Zygote:
        """A ready zygote, of the obedient agent unless another is given."""
        zygote = await Zygote.start(spec or self.spec(), self.isolation, on_line=self.lines.append)
        self._endings.append(zygote.close)
        return zygote

    async def guest(
        self, zygote: Zygote, volume: str = "", *, limits: cgroups.Limits | None = None, agent: bool = True, **env: str
    ) -> Guest:
        """A sandbox on the volume of that name (a new one by default), with an agent process in it."""
        place = zygote.spec.volumes / (volume or secrets.token_hex(4))
        volumes.prepare(place, uid=self.uid, plain=self.isolation.mode == "plain")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        exits: list[Exited] = []
        lost = asyncio.Event()
        control = Control(ours, exited=exits.append, lost=lost.set)
        self._endings.append(_closing(control))
        with theirs:
            made = await zygote.spawn(
                sandbox=f"sb-{secrets.token_hex(4)}",
                volume=place,
                control_fd=theirs.fileno(),
                limits=limits or cgroups.Limits(),
            )
        hello = await control.hello(SECONDS)
        guest = Guest(made, control, place, hello.body, hello.host_pid, exits, lost)
        hello.close()
        if agent:
            await guest.start_agent(**env)
        return guest

    async def close(self) -> None:
        """Ends everything made, latest first."""
        for end in reversed(self._endings):
            await end()


def _closing(control: Control) -> Callable[[], Awaitable[None]]:
    async def close() -> None:
        control.close()

    return close
