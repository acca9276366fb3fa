"""One call of `/invocations` as its handler sees it. Layer: agent server, public as `moorage.Request` and `moorage.Response`."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from moorage.serve import asgi
from moorage.serve.settings import Settings
from moorage_api.errors import ApiError, Kind
from moorage_api.wire import headers as h

AHEAD = 16  # chunks of a request body held for a handler that has not read them yet

Body: TypeAlias = "bytes | str | dict[str, Any] | list[Any] | Iterable[bytes | str] | AsyncIterator[bytes | str] | None"


@dataclass(frozen=True)
class Response:
    """An answer with a status and headers of its own. `body` may be anything a handler may return."""

    body: Body = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


class Request:
    """One call of `/invocations`. `path` is what follows `/invocations`, from its slash on; `headers` have lower-case names.

    An async handler awaits `body()`, `text()`, `json()` or iterates `stream()`. A blocking handler gets a `BlockingRequest`.
    """

    def __init__(self, scope: asgi.Scope, receive: asgi.Receive, settings: Settings, path: str) -> None:
        self.method: str = scope["method"]
        self.path = path
        self.query: str = scope["query_string"].decode("latin-1")
        self.headers = asgi.headers_of(scope)
        self.session = settings.session or self.headers.get(h.AGENT_SESSION_ID) or self.headers.get(h.SESSION)
        self.workspace: Path = settings.workspace
        self._receive = receive
        self._limit = settings.max_body
        self._chunks: deque[bytes] = deque()
        self._ended = False
        self._gone = False
        self._changed = asyncio.Condition()

    async def pump(self) -> None:
        """Takes the body in, a few chunks ahead of the handler; returns when the caller has gone. The server runs it."""
        while not self._gone:
            message = await self._receive()
            async with self._changed:
                if message["type"] == "http.disconnect":
                    self._gone = True
                else:
                    self._ended = not message.get("more_body")
                    if message.get("body"):
                        self._chunks.append(message["body"])
                self._changed.notify_all()
                await self._changed.wait_for(lambda: len(self._chunks) < AHEAD)

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """The body as it arrives, chunk by chunk, unbounded; raises ClientGone when the caller breaks off."""
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: bool(self._chunks) or self._ended or self._gone)
                if not self._chunks:
                    if self._ended:
                        return
                    raise asgi.ClientGone
                chunk = self._chunks.popleft()
                self._changed.notify_all()
            yield chunk

    async def body(self) -> bytes:
        """The whole body; raises ApiError (413) over the server's limit."""
        chunks: list[bytes] = []
        size = 0
        async for chunk in self.stream():
            size += len(chunk)
            if size > self._limit:
                raise ApiError(Kind.TOO_LARGE, f"The body is over {self._limit} bytes.")
            chunks.append(chunk)
        return b"".join(chunks)

    async def text(self) -> str:
        """The whole body as UTF-8 text."""
        return (await self.body()).decode("utf-8", "replace")

    async def json(self) -> Any:
        """The whole body as JSON; raises ApiError (400) when it is not."""
        try:
            return json.loads(await self.body())
        except ValueError as wrong:
            raise ApiError(Kind.INVALID_JSON, f"The body is not JSON: {wrong}.") from wrong


class BlockingRequest:
    """The same request for a handler that runs in a thread: the methods block instead of being awaited."""

    def __init__(self, request: Request, loop: asyncio.AbstractEventLoop) -> None:
        self.method = request.method
        self.path = request.path
        self.query = request.query
        self.headers = request.headers
        self.session = request.session
        self.workspace = request.workspace
        self._request = request
        self._loop = loop

    def body(self) -> bytes:
        """The whole body."""
        return asyncio.run_coroutine_threadsafe(self._request.body(), self._loop).result()

    def text(self) -> str:
        """The whole body as UTF-8 text."""
        return self.body().decode("utf-8", "replace")

    def json(self) -> Any:
        """The whole body as JSON; raises ApiError (400) when it is not."""
        return asyncio.run_coroutine_threadsafe(self._request.json(), self._loop).result()
