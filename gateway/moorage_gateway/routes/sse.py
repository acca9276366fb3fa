"""Writes a response's events as server-sent events: one event in, one write out. Layer: gateway, rim.

Called by `routes/responses.py`. No `id:` line, `event:` equals the event's type, comments keep a silent stream open, `[DONE]` ends
it (protocols.md §1.4). The head leaves with the first event, so that a refusal before it is still an HTTP error.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any

import orjson

from moorage_gateway.exchange import Exchange
from moorage_gateway.routes.answers import Headers

COMMENT = b": keep-alive\n\n"
DONE = b"data: [DONE]\n\n"
_TYPE_FIRST = b'{"type":"'


def event_type(data: bytes) -> bytes:
    """The `type` of an event given as compact JSON; cheap where it stands first."""
    if data.startswith(_TYPE_FIRST):
        return data[9 : data.index(b'"', 9)]
    return str(orjson.loads(data)["type"]).encode()


def _lines(data: bytes) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (event_type(data), data)


class SseWriter:
    """One stream. As a context manager it sends a comment after each `silence` seconds without an event."""

    def __init__(self, send: Any, headers: Headers, *, silence: float, exchange: Exchange | None = None) -> None:
        self._send = send
        self._put = exchange.put if exchange is not None else None
        self._headers = headers
        self._silence = silence
        self._loop = asyncio.get_running_loop()
        self._last = self._loop.time()
        self._writing = False
        self._started = False
        self._beat: asyncio.Task[None] | None = None

    async def __aenter__(self) -> SseWriter:
        self._beat = asyncio.create_task(self._keep_alive())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._beat is not None
        self._beat.cancel()
        await asyncio.wait([self._beat])

    async def event(self, data: bytes) -> None:
        """One event, given as the compact JSON of its object."""
        if not self.quick(data):
            await self._write(_lines(data), more=True)

    def quick(self, data: bytes) -> bool:
        """One event at once, if it can be: the stream has begun, on our own listener, and its caller keeps up."""
        if self._put is None or self._writing or not self._put(_lines(data)):
            return False
        self._last = self._loop.time()
        return True

    async def done(self) -> None:
        """The end of a whole stream."""
        await self._write(DONE, more=False)

    async def _write(self, data: bytes, *, more: bool) -> None:
        self._writing = True
        try:
            if not self._started:
                await self._start()
            await self._send({"type": "http.response.body", "body": data, "more_body": more})
        finally:
            self._writing = False
            self._last = self._loop.time()

    async def _start(self) -> None:
        self._started = True
        lines = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-cache, no-transform"),
            (b"x-accel-buffering", b"no"),
            *self._headers,
        ]
        await self._send({"type": "http.response.start", "status": 200, "headers": lines})

    async def _keep_alive(self) -> None:
        while True:
            quiet = self._loop.time() - self._last
            if quiet >= self._silence and not self._writing:
                await self._write(COMMENT, more=True)
                quiet = 0.0
            await asyncio.sleep(max(self._silence - quiet, 0.01))
