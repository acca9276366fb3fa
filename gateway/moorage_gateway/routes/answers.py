"""Whole answers and whole bodies in raw ASGI. Layer: gateway, rim. Called by the routes and the layers."""

from __future__ import annotations

from typing import Any

import orjson

from moorage_api.errors import TABLE, ApiError, Kind
from moorage_gateway import inbound
from moorage_gateway.exchange import EXTENSION, Exchange

Headers = list[tuple[bytes, bytes]]


class CallerLeft(Exception):
    """The caller went before its request was complete: there is nobody to answer."""


def exchange_of(scope: Any) -> Exchange | None:
    """The exchange of our own listener, None under another server."""
    found = scope.get(EXTENSION)
    return found if isinstance(found, Exchange) else None


def still_here(scope: Any) -> bool:
    """Whether the caller was connected when the last byte was handed over."""
    exchange = exchange_of(scope)
    return exchange is None or not exchange.disconnected


async def send_json(send: Any, status: int, value: Any, headers: Headers | None = None) -> None:
    """One JSON answer, in one write."""
    await send_bytes(send, status, orjson.dumps(value), b"application/json", headers)


async def send_bytes(send: Any, status: int, body: bytes, content_type: bytes, headers: Headers | None = None) -> None:
    """One whole answer, in one write."""
    lines = [(b"content-type", content_type), (b"content-length", b"%d" % len(body)), *(headers or ())]
    await send({"type": "http.response.start", "status": status, "headers": lines})
    await send({"type": "http.response.body", "body": body})


async def send_error(send: Any, error: ApiError, headers: Headers | None = None) -> None:
    """The answer of the one error table."""
    lines = [(name.encode(), value.encode()) for name, value in error.headers().items()]
    if TABLE[error.kind].status == 401:
        lines.append((b"www-authenticate", b"Bearer"))
    await send_json(send, error.status, error.body(), [*lines, *(headers or ())])


def check_announced(scope: Any, limit: int) -> None:
    """Refuses a body whose Content-Length is over the limit, before a byte of it is read."""
    announced = inbound.find(scope["headers"], b"content-length")
    if announced is not None and announced.isdigit() and int(announced) > limit:
        raise too_large(limit)


def too_large(limit: int) -> ApiError:
    """The refusal of a body over `limit` bytes."""
    return ApiError(Kind.TOO_LARGE, f"The body is larger than the {limit} bytes this address takes.")


async def read_body(scope: Any, receive: Any, limit: int) -> bytes:
    """The whole body. Raises ApiError as soon as it is over `limit` bytes, CallerLeft when it breaks off."""
    check_announced(scope, limit)
    coding = inbound.find(scope["headers"], b"content-encoding")
    if coding is not None and coding.lower() != b"identity":
        raise ApiError(Kind.INVALID_REQUEST, "Compressed bodies are not read here; send it uncompressed.")
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise CallerLeft
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise too_large(limit)
        if not message.get("more_body", False):
            return b"".join([*parts, part]) if parts else part
        parts.append(part)
