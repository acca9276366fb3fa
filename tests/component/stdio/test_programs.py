"""What runs a program of a toolbox, as gateways and its owner meet it: a process with HTTP on one side and real programs on the other."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pydantic import SecretStr

from fakes import stdio_program
from moorage_api.kinds.model_endpoint import Credential
from moorage_api.kinds.stdio_server import ServerVariable, StdioServer
from moorage_api.tokens import secret_sha256, stdio_secret
from moorage_operator import marks, program_objects
from moorage_operator.program_objects import Program
from moorage_operator.settings import Settings
from tree import ROOT

pytestmark = pytest.mark.component

TOKEN = "5" * 64
SECRET = "pro/gram-the-canary 0123456789"
WITHIN = 30.0


@dataclass
class Desk:
    """One of them. `lines`: what it printed for people."""

    url: str
    http: httpx2.AsyncClient
    process: asyncio.subprocess.Process
    notes: Path
    lines: list[str] = field(default_factory=list)

    async def post(self, body: Any, token: str = TOKEN) -> httpx2.Response:
        headers = {"authorization": f"Bearer {token}"}
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.http.post(f"{self.url}/call", content=content, headers=headers)

    async def call(self, text: str, seconds: float = 20.0, most: int = 1 << 20) -> httpx2.Response:
        params = {"name": "do", "arguments": {"text": text}, "_meta": {"dev.moorage/callId": "c1"}}
        return await self.post({"method": "tools/call", "params": params, "seconds": seconds, "most": most})

    async def text(self, text: str) -> str:
        answer = await self.call(text)
        assert answer.status_code == 200, answer.text
        message = answer.json()
        assert str(message["id"]) == answer.headers["x-moorage-id"]
        return str(message["result"]["content"][0]["text"])

    def ran(self, text: str) -> int:
        """How often a call with this text was run."""
        return self.notes.read_text().splitlines().count(text) if self.notes.exists() else 0

    async def until(self, what: str, look: Any) -> None:
        async with asyncio.timeout(WITHIN):
            while not look():
                await asyncio.sleep(0.02)

    async def says(self, part: str) -> None:
        try:
            await self.until(part, lambda: any(part in line for line in self.lines))
        except TimeoutError:
            raise AssertionError(f"{part!r} is not in {self.lines}") from None

    async def ready(self) -> None:
        async with asyncio.timeout(WITHIN):
            while (await self.http.get(f"{self.url}/health")).status_code != 200:
                await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def running(tmp_path: Path, argv: list[str] | None = None, **env: str) -> AsyncIterator[Desk]:
    notes = tmp_path / "notes"
    told = {
        "argv": argv or [sys.executable, stdio_program.__file__],
        "env": {"PATH": "/usr/bin:/bin", "NOTES": str(notes), "API_TOKEN": SECRET, **env},
        "cwd": str(tmp_path),
        "secrets": ["API_TOKEN"],
        "host": "127.0.0.1",
        "port": 0,
        "token_sha256": secret_sha256(TOKEN),
        "parent": os.getpid(),
        "silent": 0.5,
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-m", "moorage_sandbox.stdio"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": "/usr/bin:/bin"},
    )
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(json.dumps(told).encode())
    process.stdin.close()
    async with httpx2.AsyncClient(timeout=WITHIN) as http:
        async with asyncio.timeout(WITHIN):
            port = int(await process.stdout.readline())
        desk = Desk(f"http://127.0.0.1:{port}", http, process, notes)
        reading = asyncio.create_task(_read(process, desk.lines))
        try:
            yield desk
        finally:
            if process.returncode is None:
                process.terminate()
            async with asyncio.timeout(WITHIN):
                await process.wait()
                await reading


async def _read(process: asyncio.subprocess.Process, lines: list[str]) -> None:
    assert process.stderr is not None
    while line := await process.stderr.readline():
        lines.append(line.decode().rstrip("\n"))


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with running(tmp_path) as made:
        yield made


@pytest.mark.parametrize("era", ["old", "new"])
async def test_a_program_of_either_era_lists_and_runs_its_tools(tmp_path: Path, era: str) -> None:
    async with running(tmp_path, ERA=era) as desk:
        listed = await desk.post({"method": "tools/list", "params": {}, "seconds": 20, "most": 1 << 20})
        assert [each["name"] for each in listed.json()["result"]["tools"]] == ["do"]
        answer = (await desk.call("hello")).json()["result"]
        assert answer["content"][0]["text"] == "hello" and desk.ran("hello") == 1
        meta = answer["structuredContent"]["meta"]
        assert meta["dev.moorage/callId"] == "c1"
        assert ("io.modelcontextprotocol/protocolVersion" in meta) is (era == "new")
        both = await asyncio.gather(*(desk.text(f"n{each}") for each in range(20)))
        assert both == [f"n{each}" for each in range(20)]


async def test_a_call_that_its_process_did_not_live_to_answer_was_sent_and_is_not_sent_again(desk: Desk) -> None:
    other = asyncio.create_task(desk.call("exit 7"))
    answer = await other
    assert answer.status_code == 503
    assert answer.json() == {
        "text": "its process ended with exit code 7 before it had answered", "sent": True, "late": False, "large": False,
    }  # fmt: skip
    await desk.says("its process ended with exit code 7; it is begun again in 0.5 s")
    assert await desk.text("after") == "after", "begun again"
    assert desk.ran("exit 7") == 1


async def test_a_killed_process_is_named_by_its_signal_and_leaves_none_behind(desk: Desk, tmp_path: Path) -> None:
    child = int(await desk.text("child"))
    slow = asyncio.create_task(desk.call(f"slow {tmp_path / 'never'}"))
    await desk.until("it runs", lambda: desk.ran(f"slow {tmp_path / 'never'}"))
    os.kill(_children(desk.process.pid)[0], signal.SIGKILL)
    assert (await slow).json()["text"] == "its process ended with signal 9 before it had answered"
    await desk.ready()
    await desk.until("what it had detached is dead", lambda: not Path(f"/proc/{child}").exists())


async def test_a_program_that_ends_at_once_is_named_and_begun_again_ever_more_seldom(tmp_path: Path) -> None:
    async with running(tmp_path, AT_ONCE="exit") as desk:
        await desk.says("begun again in 4 s")
        assert "cannot begin: there is no database" in desk.lines
        answer = (await desk.call("never")).json()
        assert "its process ended with exit code 3; it is begun again in" in answer["text"] and not answer["sent"]
        assert (await desk.http.get(f"{desk.url}/health")).status_code == 503
        assert desk.ran("never") == 0


async def test_a_program_that_is_not_there_or_never_answers_is_named(tmp_path: Path) -> None:
    async with running(tmp_path, ["no-such-program"]) as desk:
        await desk.says("its program 'no-such-program' cannot be started: No such file or directory")
    async with running(tmp_path, AT_ONCE="silent") as desk:
        answer = (await desk.call("x", seconds=0.5)).json()
        assert not answer["sent"] and "has not answered the handshake yet" in answer["text"]


async def test_what_is_no_json_rpc_is_named_and_harms_no_call(tmp_path: Path) -> None:
    async with running(tmp_path, AT_ONCE="garbage") as desk:
        assert await desk.text("garbage") == "after garbage"
        await desk.says("printed what is no JSON-RPC: b'Welcome to the server!'")
        await desk.says("printed what is no JSON-RPC: b'debug: here I am'")
        assert not any("\x1b" in line for line in desk.lines)
        assert "-32601" in await desk.text("asks"), "what it asks is refused, and not left waiting"


async def test_what_it_prints_for_people_is_bounded(desk: Desk) -> None:
    assert await desk.text("noise 5000") == "noisy"
    await desk.until("the burst is here", lambda: len(desk.lines) >= 190)
    assert await desk.text("x") == "x"
    assert len(desk.lines) < 400
    assert "line 0" in desk.lines and "line 4999" not in desk.lines


async def test_a_call_that_hangs_ends_at_its_time_and_a_process_that_hangs_is_ended(tmp_path: Path, desk: Desk) -> None:
    answer = (await desk.call("hang", seconds=0.3)).json()
    assert answer["text"] == "it did not answer within 0.3 s" and answer["sent"] and answer["late"]
    await desk.until("the program has read it", lambda: desk.ran("hang") == 1)
    behind = asyncio.create_task(desk.call("behind", seconds=20))
    await desk.says("says nothing any more, and is ended")
    assert (await behind).json()["sent"], "who waits behind it is told, and not left waiting"
    assert await desk.text("again") == "again"


async def test_a_long_answer_is_not_taken_and_the_next_one_is(desk: Desk) -> None:
    answer = (await desk.call("big 10000000", most=1 << 20)).json()
    assert answer["large"] and answer["sent"] and answer["text"] == "its answer is longer than 1048576 bytes"
    answer = (await desk.call("big 30000000", most=16 << 20)).json()
    assert answer["large"], "longer than any message may be, and still told whose it is"
    await desk.says("bytes, which is dropped")
    assert len(await desk.text("big 1000000")) == 1000000 and await desk.text("x") == "x"
    assert desk.ran("big 10000000") == 1


async def test_its_secrets_reach_the_program_and_nobody_else(desk: Desk) -> None:
    told = await desk.text("environment")
    assert "[credential]" in told and "canary" not in told
    env = json.loads(told)
    assert set(env) <= {"PATH", "NOTES", "API_TOKEN", "LC_CTYPE"}, "nothing of the platform's"
    program = _children(desk.process.pid)[0]
    assert SECRET.encode() in Path(f"/proc/{program}/environ").read_bytes()
    for pid in (program, desk.process.pid):
        assert SECRET.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
    assert SECRET.encode() not in Path(f"/proc/{desk.process.pid}/environ").read_bytes()


@pytest.mark.parametrize(
    ("body", "token", "status"),
    [
        ({"method": "tools/list", "params": {}, "seconds": 1, "most": 1}, "6" * 64, 401),
        ({"method": "tools/list", "params": {}, "seconds": 1, "most": 1}, "x", 401),
        ({"method": "initialize", "params": {}, "seconds": 1, "most": 1}, TOKEN, 400),
        ({"method": "tools/call", "params": [], "seconds": 1, "most": 1}, TOKEN, 400),
        ({"method": "tools/call", "params": {}, "seconds": 0, "most": 1}, TOKEN, 400),
        ({"method": "tools/call", "params": {}, "seconds": 1, "most": 1 << 40}, TOKEN, 400),
        (b"[" * 100_000, TOKEN, 400),
        (b"{", TOKEN, 400),
    ],
)
async def test_who_asks_wrongly_is_told_so_and_the_program_hears_nothing(
    desk: Desk, body: Any, token: str, status: int
) -> None:
    answer = await desk.post(body, token)
    assert answer.status_code == status and answer.json()["sent"] is False
    assert not desk.notes.exists()


@pytest.mark.parametrize(
    ("line", "token", "says"),
    [
        ("POST /call", "6" * 64, b"HTTP/1.1 401 "),
        ("POST /elsewhere", TOKEN, b"HTTP/1.1 404 "),
        ("GET /health", "", b"HTTP/1.1 "),
    ],
)
async def test_who_may_not_ask_is_told_before_its_body_is_read(desk: Desk, line: str, token: str, says: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(desk.url.rpartition(":")[2]))
    writer.write(f"{line} HTTP/1.1\r\nauthorization: Bearer {token}\r\ncontent-length: 16000000\r\n\r\n".encode())
    async with asyncio.timeout(5):
        answer = await reader.read()  # to the end: not one byte of the body was sent
    writer.close()
    assert answer.startswith(says) and answer.count(b"HTTP/1.1") == 1


async def test_nothing_is_left_when_who_began_it_is_killed(tmp_path: Path) -> None:
    # An owner of its own, so that it can be killed.
    begun = (
        "import subprocess, sys, json, os\n"
        "told = json.loads(sys.argv[1]); told['parent'] = os.getpid()\n"
        "made = subprocess.Popen([sys.executable, '-I', '-m', 'moorage_sandbox.stdio'], stdin=-1, stdout=-1, text=True)\n"
        "made.stdin.write(json.dumps(told)); made.stdin.close()\n"
        "print(made.pid, made.stdout.readline().strip(), flush=True)\n"
        "sys.stdin.read()\n"
    )
    told = {
        "argv": [sys.executable, stdio_program.__file__], "env": {"NOTES": str(tmp_path / "notes")}, "secrets": [],
        "host": "127.0.0.1", "port": 0, "token_sha256": secret_sha256(TOKEN),
    }  # fmt: skip
    owner = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", begun, json.dumps(told)), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert owner.stdout is not None
    async with asyncio.timeout(WITHIN), httpx2.AsyncClient(timeout=WITHIN) as http:
        pid, port = map(int, (await owner.stdout.readline()).split())
        desk = Desk(f"http://127.0.0.1:{port}", http, owner, tmp_path / "notes")
        child = int(await desk.text("child"))
        family = [pid, child, *_children(pid)]
        assert len(family) >= 3
        owner.kill()
        await owner.wait()
        await desk.until("all of them are dead", lambda: not any(_alive(each) for each in family))


async def test_what_a_pod_is_told_runs_a_program_with_nothing_but_python(tmp_path: Path) -> None:
    """The commands of the pod's own object, in folders in place of its volumes."""
    server = StdioServer(
        command=sys.executable,
        args=["program.py"],
        image="x",
        env=[
            ServerVariable(name="NOTES", value=str(tmp_path / "notes")),
            ServerVariable(name="API_TOKEN", secret=Credential(secret="s")),
        ],
    )
    settings = Settings(
        redis_url=SecretStr("redis://x"), token_key=SecretStr("ab" * 32), namespace="m", namespaces=("m",), sandbox_image="s",
        sandbox_url="http://x:1", gateway_pods={"a": "b"},
    )  # fmt: skip
    pod = program_objects.pod(Program("m", "dev", "t", "one", server, {}), settings)
    (brought,), (container,) = pod["spec"]["initContainers"], pod["spec"]["containers"]
    app, config = tmp_path / "app", tmp_path / "program.json"
    app.mkdir()
    shutil.copy(stdio_program.__file__, app / "program.py")
    source = tmp_path / "src"
    source.mkdir()
    for package, folder in (("moorage_api", "crds"), ("moorage_sandbox", "sandbox-image")):
        (source / package).symlink_to(ROOT / folder / package)
    said = json.loads(pod["metadata"]["annotations"][marks.CONFIG])
    said |= {"cwd": said["cwd"].replace("/app", str(app)), "host": "127.0.0.1", "port": 0}
    config.write_text(json.dumps(said))

    def here(words: list[str]) -> list[str]:
        names = {
            "/opt/moorage/src": source,
            program_objects.CONFIG: config,
            program_objects.BRIDGE: tmp_path / "bridge",
        }
        for at, to in names.items():
            words = [word if word.startswith("moorage_") else word.replace(at, str(to)) for word in words]
        return [sys.executable, "-S", *words[1:]]  # without what this environment has

    assert (await (await asyncio.create_subprocess_exec(*here(brought["command"]))).wait()) == 0
    process = await asyncio.create_subprocess_exec(
        *here(container["command"]), stdout=asyncio.subprocess.PIPE, env={"API_TOKEN": SECRET}
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(WITHIN), httpx2.AsyncClient(timeout=WITHIN) as http:
            desk = Desk(f"http://127.0.0.1:{int(await process.stdout.readline())}", http, process, tmp_path / "notes")
            await desk.ready()
            shown = stdio_secret("dev", "t", "one", "ab" * 32)
            body = {"method": "tools/call", "params": {"name": "do", "arguments": {"text": "environment"}}}
            answer = await desk.post({**body, "seconds": 20, "most": 1 << 20}, shown)
            env = json.loads(answer.json()["result"]["content"][0]["text"])
            assert env["API_TOKEN"] == "[credential]" and env["HOME"] == "/home/agent"
    finally:
        process.terminate()
        await process.wait()


def _children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
