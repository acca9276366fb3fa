"""The agent's program as a plain process, asked the turn's question once. Layer: local, I/O rim.

It listens on a port of its own, as it does under Moorage; its clients find the replay's door by the same variables.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from moorage_api.wire.calls import agent_environment
from moorage_api.wire.shim import Bind, Start
from moorage_sandbox import prompt

READY_S = 60.0
END_S = 5.0
POLL_S = 0.1
LINE = 16 * 2**20
"""Bytes of one event."""
_SECRETS = ("KEY", "TOKEN", "SECRET", "PASSWORD", "CREDENTIAL")


class NotRunnable(Exception):
    """The program could not be asked; `str()` says why."""


@dataclass(frozen=True)
class Program:
    """What is run: a file in a folder, by an interpreter."""

    python: str
    folder: Path
    entrypoint: str


@dataclass
class Ran:
    """How the run ended: the words it said, and the status of its response (empty: it did not end)."""

    text: str = ""
    status: str = ""
    error: str = ""
    pieces: list[str] = field(default_factory=list)


@asynccontextmanager
async def program(what: Program, door: int, scratch: Path, environment: Mapping[str, str]) -> AsyncIterator[int]:
    """The program's port, once it is ready. Raises NotRunnable. It is ended, with all it began, when the context is."""
    port = _free_port()
    kept = {name: value for name, value in environment.items() if not any(word in name.upper() for word in _SECRETS)}
    kept = {name: value for name, value in kept.items() if not name.startswith("MOORAGE_")}
    own = {"PORT": str(port), "MOORAGE_WORKSPACE": str(scratch), "PYTHONUNBUFFERED": "1"}
    process = await asyncio.create_subprocess_exec(
        what.python, what.entrypoint, cwd=what.folder, env={**kept, **agent_environment(door), **own},
        stdin=asyncio.subprocess.DEVNULL, stdout=2, stderr=2, start_new_session=True,
    )  # fmt: skip
    try:
        await _ready(process, port)
        yield port
    finally:
        await _end(process)


async def ask(port: int, journal: dict[str, Any]) -> Ran:
    """The turn's question. Raises NotRunnable."""
    session = "replay:0000000000000000"
    start = Start(
        turn=str(journal["id"]), fence=1, attempt=1, session=session, epoch=1, deadline=1.0, body=journal["asked"],
        history=journal["history"],
    )  # fmt: skip
    bound = Bind(
        session=session, epoch=1, tenant="replay", agent=str(journal["agent"]), session_id="replay", user="replay"
    )
    lines, body = prompt.of_turn(start, bound, port, "moorage")
    headers = {name.decode(): value.decode("latin-1") for name, value in lines}
    ran = Ran()
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=5)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, read_bufsize=LINE) as http,
            http.post(f"http://127.0.0.1:{port}/responses", data=body, headers=headers) as answer,
        ):
            if answer.status != 200:
                raise NotRunnable(f"it answered {answer.status}: {(await answer.text())[:500]}")
            async for line in answer.content:
                if line.startswith(b"data:"):
                    _take(ran, line[5:].strip())
    except (aiohttp.ClientError, OSError, ValueError) as fault:
        raise NotRunnable(f"it did not answer to the end: {type(fault).__name__}") from fault
    ran.text = "".join(ran.pieces)
    return ran


def _take(ran: Ran, data: bytes) -> None:
    if not data.startswith(b"{"):
        return
    event = json.loads(data)
    kind = str(event.get("type", ""))
    if kind == "response.output_text.delta":
        ran.pieces.append(str(event.get("delta", "")))
    elif kind in ("response.completed", "response.failed", "response.incomplete"):
        ran.status = kind.removeprefix("response.")
        ran.error = str(((event.get("response") or {}).get("error") or {}).get("message", ""))


async def _ready(process: asyncio.subprocess.Process, port: int) -> None:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as http:
        with suppress(TimeoutError):
            async with asyncio.timeout(READY_S):
                while process.returncode is None:
                    with suppress(aiohttp.ClientError, OSError, TimeoutError):
                        async with http.get(f"http://127.0.0.1:{port}/readiness") as answer:
                            if answer.status == 200:
                                return
                    await asyncio.sleep(POLL_S)
    if process.returncode is not None:
        raise NotRunnable(f"it ended with {process.returncode} before it listened on PORT; its own words are above")
    raise NotRunnable(
        f"it was not ready within {READY_S:.0f} s: it must serve on PORT, as HostedAgent(...).serve() does"
    )


async def _end(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)  # its own group, made with it
    with suppress(TimeoutError):
        async with asyncio.timeout(END_S):
            await process.wait()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])
