"""The few ASGI shapes and answers that both protocols use. Layer: agent server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine, Iterable, MutableMapping
from typing import Any, TypeVar

from moorage_api.errors import ApiError, Kind

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

T = TypeVar("T")

JSON = (b"content-type", b"application/json")


class ClientGone(Exception):
    """The client closed the connection; there is nobody to answer."""


def encode(value: object) -> bytes:
    """Compact JSON. A lone surrogate, which UTF-8 cannot hold, becomes a question mark."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8", "replace")


def headers_of(scope: Scope) -> dict[str, str]:
    """Request headers, lower-case names; the last of a name wins."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


async def read_body(receive: Receive, limit: int) -> bytes:
    """The whole request body. Raises ApiError (413) as soon as it is over `limit`, ClientGone when it breaks off."""
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise ApiError(Kind.TOO_LARGE, f"The body is over {limit} bytes.")
        chunks.append(chunk)
        if not message.get("more_body"):
            return b"".join(chunks)


async def answer(send: Send, status: int, body: bytes, headers: Iterable[tuple[bytes, bytes]]) -> None:
    """A whole response with its length."""
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})


async def answer_json(
    send: Send, value: object, *, status: int = 200, headers: Iterable[tuple[bytes, bytes]] = ()
) -> None:
    """A whole JSON response."""
    await answer(send, status, encode(value), [JSON, *headers])


async def answer_error(send: Send, error: ApiError, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
    """The refusal of `error`, in the shape every client of the Responses API knows."""
    named = [(name.encode(), value.encode()) for name, value in error.headers().items()]
    await answer_json(send, error.body(), status=error.status, headers=[*named, *headers])


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Runs `work` until it ends or the client leaves; then `work` is cancelled, awaited, and ClientGone raised.

    The request body must have been read: what is received next can only be the disconnect.
    """
    return await until(_gone(receive), work)


async def until(gone: Coroutine[Any, Any, None], work: Coroutine[Any, Any, T]) -> T:
    """Runs `work` until it ends or `gone` does; in the second case `work` is cancelled, awaited, and ClientGone raised."""
    task = asyncio.ensure_future(work)
    watcher = asyncio.ensure_future(gone)
    try:
        await asyncio.wait({task, watcher}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientGone
    finally:
        for each in (task, watcher):
            each.cancel()
        await asyncio.gather(task, watcher, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
