"""`/invocations` and all below it: the agent's own protocol, any method, body and content type, streamed both ways as it comes.

Layer: agent server. The handler is an ASGI application, or a function of one `Request`.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
import threading
import traceback
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any

from moorage.adapters import threads
from moorage.serve import asgi
from moorage.serve.requests import BlockingRequest, Request, Response
from moorage.serve.settings import Settings
from moorage_api.errors import ApiError, Kind


def is_asgi(handler: Callable[..., Any]) -> bool:
    """Whether `handler` takes (scope, receive, send) rather than one request."""
    try:
        parameters = inspect.signature(handler).parameters.values()
    except (TypeError, ValueError):
        return False
    required = [
        p for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    return len(required) == 3


class Invocations:
    """The routes under `/invocations`, for one handler."""

    def __init__(self, handler: Callable[..., Any], settings: Settings) -> None:
        self._handler = handler
        self._settings = settings
        self._asgi = is_asgi(handler)
        called = handler if inspect.isroutine(handler) else getattr(handler, "__call__", handler)  # noqa: B004
        self._on_loop = inspect.iscoroutinefunction(called) or inspect.isasyncgenfunction(called)

    async def __call__(self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send, rest: str) -> None:
        """Serves one request; `rest` is the path after `/invocations/`. Raises ApiError before the answer began."""
        self._settings.workspace.mkdir(parents=True, exist_ok=True)
        if self._asgi:
            await self._handler(scope, receive, send)
            return
        answering = _Answering(send)
        request = Request(scope, receive, self._settings, "/" + rest)
        try:
            await asgi.until(request.pump(), self._serve(request, answering))
        except (ApiError, asgi.ClientGone):
            if answering.begun:
                raise asgi.ClientGone from None  # too late for a status: the connection is cut, which the caller sees
            raise
        except (Exception, SystemExit) as fault:  # user code: answered and shown, it never ends the server
            traceback.print_exception(fault, file=sys.stderr)
            sys.stderr.flush()
            if answering.begun:
                raise asgi.ClientGone from fault
            raise ApiError(Kind.INTERNAL, f"{type(fault).__name__}: {fault}") from fault

    async def _serve(self, request: Request, answering: _Answering) -> None:
        cancelled = threading.Event()
        if self._on_loop:
            source = _late(self._handler(request))
        else:
            blocking = BlockingRequest(request, asyncio.get_running_loop())
            source = threads.iterate(partial(_pieces, self._handler, blocking), cancelled)
        async with aclosing(source):
            async for piece in source:
                if inspect.isawaitable(piece) or hasattr(piece, "__aiter__"):
                    async with aclosing(_late(piece)) as inner:
                        async for late in inner:
                            await answering.tell(late)
                else:
                    await answering.tell(piece)
        await answering.end()


@dataclass(frozen=True)
class _Head:
    """A status and headers whose body follows in pieces."""

    status: int
    headers: Mapping[str, str]


@dataclass(frozen=True)
class _Piece:
    data: bytes | str


def _pieces(handler: Callable[..., Any], request: BlockingRequest) -> Iterator[Any]:
    result = handler(request)
    if isinstance(result, Response):
        yield _Head(result.status, result.headers)
        result = result.body
    if isinstance(result, Iterator):
        for piece in result:
            yield _Piece(piece)
    else:
        yield result


async def _late(result: Any) -> AsyncGenerator[Any, None]:
    if inspect.isawaitable(result):
        result = await result
    if isinstance(result, Response):
        yield _Head(result.status, result.headers)
        result = result.body
    if hasattr(result, "__aiter__"):
        iterator = aiter(result)
        try:
            async for piece in iterator:
                yield _Piece(piece)
        finally:
            close = getattr(iterator, "aclose", None)
            if close is not None:
                await close()
    elif isinstance(result, Iterator):
        for piece in result:
            yield _Piece(piece)
    else:
        yield result


class _Answering:
    """The answer while it is sent: one write for each piece, nothing held back or joined."""

    def __init__(self, send: asgi.Send) -> None:
        self._send = send
        self._head = _Head(200, {})
        self._given = False
        self.begun = False

    async def tell(self, piece: Any) -> None:
        """A head, a piece of a streamed body, or a whole body."""
        match piece:
            case _Head():
                self._head, self._given = piece, True
            case _Piece(data):
                await self._write(_bytes(data), b"application/octet-stream")
            case None:
                if not self._given:
                    self._head = _Head(204, {})
            case bytes() | bytearray() | memoryview():
                await self._write(bytes(piece), b"application/octet-stream")
            case str():
                await self._write(_bytes(piece), b"text/plain; charset=utf-8")
            case dict() | list():
                await self._write(asgi.encode(piece), b"application/json")
            case _:
                raise TypeError(
                    f"the invocations handler gave a {type(piece).__name__}; give bytes, text, a dict or a generator"
                )

    async def _begin(self, default_type: bytes | None) -> None:
        self.begun = True
        headers = [(k.lower().encode("latin-1"), v.encode("latin-1")) for k, v in self._head.headers.items()]
        if default_type is not None and not any(name == b"content-type" for name, _ in headers):
            headers.append((b"content-type", default_type))
        await self._send({"type": "http.response.start", "status": self._head.status, "headers": headers})

    async def _write(self, data: bytes, default_type: bytes) -> None:
        if not self.begun:
            await self._begin(default_type)
        if data:
            await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self) -> None:
        """The end of the body."""
        if not self.begun:
            await self._begin(None)
        await self._send({"type": "http.response.body", "body": b""})


def _bytes(data: bytes | str) -> bytes:
    if isinstance(data, str):
        return data.encode("utf-8", "replace")
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data)
    raise TypeError(f"a piece of a streamed body is a {type(data).__name__}; give bytes or text")
