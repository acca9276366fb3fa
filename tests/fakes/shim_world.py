"""One shim in the test's own loop, with a fake init, a fake gateway and a clock moved by hand.

Limits: the shim is a task, not a process (its forkserver has tests of its own); the gateway answers announcements only.
"""

import asyncio
import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from fakes.init import FakeInit
from moorage_api.wire import frames
from moorage_api.wire.hop import HopPool, HopResponse
from moorage_api.wire.shim import Acknowledged, End, Frame, Source
from moorage_sandbox.config import Limits, ShimConfig
from moorage_sandbox.main import Status, run

SECRET = "s3cret"
SESSION = "dev:0123456789abcdef"
DONE = {"type": "response.completed", "response": {"status": "completed"}}
FAST = Limits(tick=0.02, announce=0.2, exit_notice=0.5)


class HandClock:
    """The machine's clock plus what the test adds."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def now(self) -> float:
        return time.monotonic() + self.ahead

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000


async def until(check: Callable[[], Any], seconds: float = 8) -> Any:
    """Waits for a state, never for a time."""
    async with asyncio.timeout(seconds):
        while not (found := check()):
            await asyncio.sleep(0.005)
    return found


class FakeGateway:
    """Answers announcements with `epoch`, or not at all while `silent`."""

    def __init__(self, path: str) -> None:
        self.endpoint = f"unix:{path}"
        self.path = path
        self.epoch = 0
        self.silent = False
        self.heard: list[dict[str, Any]] = []
        self.tokens: list[bytes] = []
        self.pod_tokens: list[bytes | None] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self.server = await asyncio.start_unix_server(self._serve, self.path)

    async def close(self) -> None:
        self.server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = (line.split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
                fields = {name.lower(): value for name, value in lines}
                body = json.loads(await reader.readexactly(int(fields[b"content-length"])))
                if self.silent:
                    break
                self.heard.append(body)
                self.tokens.append(fields[b"authorization"])
                self.pod_tokens.append(fields.get(b"x-moorage-pod-token"))
                answer = json.dumps({"ok": True, "epoch": self.epoch, "gateways": []}).encode()
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(answer), answer))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except asyncio.CancelledError:
            pass
        finally:
            writer.close()


class Stream:
    """The frames of one `start` or `attach`."""

    def __init__(self, response: HopResponse) -> None:
        self.response = response
        self.parser = frames.FrameParser()
        self.ready: list[Frame] = []

    async def next(self, seconds: float = 8) -> Frame:
        while not self.ready:
            piece = await self.response.next_chunk(idle=seconds)
            if not piece:
                raise EOFError("the stream ended without an end frame")
            self.ready += self.parser.feed(piece)
        return self.ready.pop(0)

    async def acknowledged(self) -> int:
        frame = await self.next()
        assert isinstance(frame, Acknowledged), frame
        return frame.begun

    async def source(self) -> tuple[int, dict[str, Any]]:
        frame = await self.next()
        assert isinstance(frame, Source), frame
        return frame.src, json.loads(frame.data)

    async def rest(self) -> tuple[list[int], End]:
        """The numbers of all further events, and the end."""
        numbers = []
        while True:
            frame = await self.next()
            if isinstance(frame, End):
                assert await self.response.next_chunk(idle=2) == b""
                return numbers, frame
            assert isinstance(frame, Source)
            numbers.append(frame.src)

    async def leave(self) -> None:
        await self.response.aclose()


class World:
    """Start it, bind it, break it."""

    def __init__(self, folder: Path, **more: Any) -> None:
        self.folder = folder
        self.limits: Limits = more.pop("limits", FAST)
        self.clock = HandClock()
        self.gateway = FakeGateway(str(folder / "g"))
        self.env = {"GATE": str(folder / "gate")}
        self.config = ShimConfig(
            sandbox="sb-1",
            tenant="dev",
            agent="a",
            revision="r1",
            endpoint=f"unix:{folder}/s",
            secret=SECRET,
            token="tok.en",
            volume=str(folder / "volume"),
            gateways=(self.gateway.endpoint,),
            ready_timeout=8.0,
            log_file=str(folder / "log.jsonl"),
            limits=self.limits,
        )
        self.config = replace(self.config, **more)
        self.pool = HopPool()
        self.said: list[dict[str, Any]] = []
        self.task: asyncio.Task[int] | None = None

    async def __aenter__(self) -> "World":
        await self.gateway.start()
        await self.boot()
        return self

    async def boot(self, *, wait: bool = True) -> None:
        """Starts a shim (again: as after a crash)."""
        self.init = FakeInit(self.env)
        read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.status_fds = (read, write)
        self.task = asyncio.create_task(run(self.config, self.init.theirs, Status(write), self.clock))
        self.init.hello()
        await until(lambda: any(each["op"] in ("ready", "failed") for each in self.status()) or self.task.done())
        if self.task.done() and self.task.exception():
            self.task.result()

    def status(self) -> list[dict[str, Any]]:
        try:
            self.said += [json.loads(line) for line in os.read(self.status_fds[0], 65536).splitlines()]
        except BlockingIOError:
            pass
        return self.said

    async def halt(self) -> None:
        """Ends the shim without a word, as a kill would."""
        assert self.task is not None
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.init.close()
        for fd in self.status_fds:
            os.close(fd)
        self.said.clear()

    async def __aexit__(self, *exc: object) -> None:
        await self.pool.close()
        await self.halt()
        await self.gateway.close()

    async def request(self, method: str, target: str, headers: dict[str, str], body: Any = None) -> HopResponse:
        lines = [(name.encode(), value.encode()) for name, value in {"x-moorage-secret": SECRET, **headers}.items()]
        return await self.pool.request(
            self.config.endpoint, method, target, lines, body, connect_timeout=2, head_timeout=10
        )

    async def call(self, path: str, **body: Any) -> tuple[int, dict[str, Any]]:
        response = await self.request("POST", f"/shim/{path}", {}, json.dumps(body).encode())
        return response.status, json.loads(await response.read(1 << 20))

    async def bind(self, epoch: int = 1, session: str = SESSION, **more: Any) -> tuple[int, dict[str, Any]]:
        fields = {"tenant": "dev", "agent": "a", "session_id": "session-1234", "user": "ada", **more}
        return await self.call("bind", session=session, epoch=epoch, **fields)

    def start_body(self, script: list[Any], *, fence: int = 10, **more: Any) -> dict[str, Any]:
        fields = {"turn": "caresp_1", "attempt": 1, "session": SESSION, "epoch": 1, "deadline": 20.0, **more}
        return {"fence": fence, "body": {"script": script, "model": "a"}, **fields}

    async def open(self, path: str, **body: Any) -> Stream:
        response = await self.request("POST", f"/shim/{path}", {}, json.dumps(body).encode())
        if response.status != 200:
            raise AssertionError(f"{path}: {response.status} {await response.read(1 << 20)!r}")
        return Stream(response)

    async def start(self, script: list[Any], **more: Any) -> Stream:
        return await self.open("start", **self.start_body(script, **more))

    async def attach(self, src: int, *, fence: int = 11, begun: int = 10, turn: str = "caresp_1") -> Stream:
        return await self.open("attach", turn=turn, fence=fence, begun=begun, src=src)

    async def relay(self, method: str, path: str, body: Any = None, *, epoch: int = 1, **headers: str) -> HopResponse:
        fields = {"x-moorage-session": SESSION, "x-moorage-epoch": str(epoch), **headers}
        return await self.request(method, f"/relay{path}", fields, body)

    async def status_page(self) -> dict[str, Any]:
        response = await self.request("GET", "/shim/status", {})
        return json.loads(await response.read(1 << 20))

    async def until_status(self, **wanted: Any) -> None:
        """Waits until the shim's own status page says so."""
        async with asyncio.timeout(8):
            while not wanted.items() <= (await self.status_page()).items():
                await asyncio.sleep(0.005)

    def gate(self, name: str) -> str:
        return str(self.folder / f"gate.{name}")

    def pass_gate(self, name: str) -> None:
        Path(self.gate(name)).touch()
