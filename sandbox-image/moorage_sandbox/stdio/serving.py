"""The gateways' side: HTTP/1.1, one request at a time on a connection. Layer: I/O rim."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
from dataclasses import dataclass
from typing import Any, Final

from moorage_api.wire.stdio import CALL, HEALTH, ID_HEADER, MAX_BODY, MAX_MESSAGE, Fault
from moorage_sandbox.stdio.program import NoAnswer, Program

CONNECTIONS: Final = 512
IDLE_S: Final = 75.0
"""Longer than gateways keep a connection that nobody uses."""
BODY_S: Final = 60.0
HEAD: Final = 16 * 1024
PASSED_OVER: Final = 16 * 1024
"""Bytes of a body that nobody asked for: with more of it the connection ends."""
LONGEST_S: Final = 3600.0
_METHODS: Final = frozenset({"tools/list", "tools/call"})
_REASONS: Final = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 503: "Service Unavailable"}


class _Bad(Exception):
    """The request is none."""


@dataclass(frozen=True)
class _Head:
    method: str
    path: str
    token: str
    length: int


@dataclass(frozen=True)
class _Response:
    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


class Serving:
    """Answers gateways. `token_sha256` (hex): of what they show; nothing here knows it itself."""

    def __init__(self, program: Program, token_sha256: str) -> None:
        self._program = program
        self._expected = token_sha256
        self._open: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> int:
        """Listens; gives the port. Raises OSError."""
        self._server = await asyncio.start_server(self._accepted, host, port, limit=HEAD)
        found: int = self._server.sockets[0].getsockname()[1]
        return found

    async def close(self) -> None:
        """Nobody is answered any more."""
        if self._server is not None:
            self._server.close()
        for each in list(self._open):
            each.cancel()
        if self._open:
            await asyncio.wait(self._open)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= CONNECTIONS:
            writer.close()
            return
        task = asyncio.create_task(self._connection(reader, writer), name="connection")
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (head := await _read(reader)) is not None:
                told = self._told(head)  # before a byte of its body is kept
                if told is not None and head.length > PASSED_OVER:
                    await _write(writer, told)
                    return
                body = await _body(reader, head)
                await _write(writer, told or await self._called(body))
        except _Bad as fault:
            with contextlib.suppress(OSError):
                await _write(writer, _Response(400, Fault(str(fault), sent=False).to_json()))
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def _told(self, head: _Head) -> _Response | None:
        """The answer that needs no body; None: it is a call of a gateway's."""
        if head.path == HEALTH and head.method == "GET":
            return _Response(200 if self._program.ready else 503, b"{}")
        if not hmac.compare_digest(hashlib.sha256(head.token.encode()).hexdigest(), self._expected):
            return _Response(401, Fault("only the platform's gateways may ask here", sent=False).to_json())
        if head.path != CALL or head.method != "POST":
            return _Response(404, Fault("there is nothing here", sent=False).to_json())
        return None

    async def _called(self, body: bytes) -> _Response:
        method, params, seconds, most = _call(body)
        try:
            found = await self._program.ask(method, params, seconds, most)
        except NoAnswer as none:
            return _Response(503, none.fault.to_json())
        return _Response(200, found.line, ((ID_HEADER, str(found.number)),))


def _call(body: bytes) -> tuple[str, dict[str, Any], float, int]:
    """Raises _Bad."""
    try:
        said = json.loads(body)
        method, params, seconds, most = said["method"], said["params"], float(said["seconds"]), int(said["most"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _Bad("the body is no call") from None
    if method not in _METHODS or not isinstance(params, dict):
        raise _Bad("only tools are listed and called here")
    if not 0 < seconds <= LONGEST_S or not 0 < most <= MAX_MESSAGE:
        raise _Bad("the call's bounds are none")
    return method, params, seconds, most


async def _read(reader: asyncio.StreamReader) -> _Head | None:
    """The next request's; None at the end. Raises _Bad, OSError, TimeoutError."""
    try:
        async with asyncio.timeout(IDLE_S):
            head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    except asyncio.LimitOverrunError:
        raise _Bad("its head is too long") from None
    lines = head.decode("latin-1").split("\r\n")
    parts = lines[0].split(" ")
    if len(parts) != 3:
        raise _Bad("it is no request")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    length = headers.get("content-length", "0")
    if "transfer-encoding" in headers or not length.isdecimal() or len(length) > 9 or int(length) > MAX_BODY:
        raise _Bad(f"its body has a content-length of at most {MAX_BODY}")
    return _Head(parts[0], parts[1], headers.get("authorization", "").removeprefix("Bearer "), int(length))


async def _body(reader: asyncio.StreamReader, head: _Head) -> bytes:
    """Raises OSError, TimeoutError, IncompleteReadError."""
    async with asyncio.timeout(BODY_S):
        return await reader.readexactly(head.length)


async def _write(writer: asyncio.StreamWriter, answer: _Response) -> None:
    own = (("content-type", "application/json"), ("content-length", str(len(answer.body))))
    lines = [f"HTTP/1.1 {answer.status} {_REASONS[answer.status]}", *(f"{n}: {v}" for n, v in (*own, *answer.headers))]
    writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + answer.body)
    async with asyncio.timeout(BODY_S):
        await writer.drain()
