"""An upstream that speaks MCP over HTTP with SSE, the transport of 2024-11-05: one stream to hear on, one place to post to. Layer: I/O.

Each call has a stream of its own, with its handshake, and is posted once: what a server keeps in a session does not last from call to
call. The place to post to is the server's to name, at its own host and port only.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any
from urllib.parse import urljoin, urlsplit

import orjson

from moorage_gateway.models.asking import AskFault, Coming, Upstreams
from moorage_gateway.tools import rpc
from moorage_gateway.tools.mcp import Place
from moorage_gateway.tools.messages import Events, Reading, answers, listed, result_of, title_of
from moorage_gateway.tools.reading import answered, request
from moorage_gateway.tools.servers import Sending, ToolFault

Event = tuple[str, bytes]
"""Its name and its data."""

MOST_PLACE = 2048
"""Characters of the place to post to."""


class SseUpstream:
    """See `ToolServer`."""

    def __init__(self, place: Place, upstreams: Upstreams, version: str) -> None:
        self._place = place
        self._upstreams = upstreams
        self._client = {"name": "moorage", "version": version}
        self.left_out: dict[str, str] = {}
        self.title = ""

    async def tools(self, seconds: float) -> list[Any]:
        """See ToolServer."""
        async with self._within(seconds), self._line() as line:
            return await listed(lambda params: line.ask("tools/list", params))

    async def call(
        self, tool: str, arguments: dict[str, Any], meta: dict[str, Any], seconds: float, sending: Sending
    ) -> dict[str, Any]:
        """See ToolServer."""
        async with self._within(seconds), self._line() as line:
            await sending()
            return await line.ask("tools/call", {"name": tool, "arguments": arguments, "_meta": meta})

    @contextlib.asynccontextmanager
    async def _within(self, seconds: float) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError:
            raise ToolFault(f"it did not answer within {seconds:.3g} s", sent=True, late=True) from None

    @contextlib.asynccontextmanager
    async def _line(self) -> AsyncIterator[_Line]:
        """A stream after its handshake."""
        headers = {"accept": "text/event-stream", **dict(self._place.opening.headers)}
        async with answered(self._upstreams, request("GET", self._place.url, headers)) as coming:
            if coming.status != 200:
                raise ToolFault(f"it answered {coming.status}", sent=False, status=coming.status)
            if not coming.streams:
                raise ToolFault("it opens no stream of events, as transport: sse says it does", sent=False, final=True)
            reading = Reading(self._place.opening, self._place.most)
            async with contextlib.aclosing(_events(coming, reading)) as heard:
                line = _Line(self._place, self._upstreams, heard, reading)
                await line.open()
                params = {"protocolVersion": rpc.OLD[0], "capabilities": {}, "clientInfo": self._client}
                said = await line.ask("initialize", params)
                self.title = title_of(said)
                if said.get("protocolVersion") not in rpc.OLD:
                    raise ToolFault("it speaks no version of MCP that is known here", sent=False, final=True)
                await line.post({"jsonrpc": "2.0", "method": "notifications/initialized"})
                reading.begin()
                yield line


class _Line:
    """One stream, and where to post. Asked one request at a time."""

    def __init__(self, place: Place, upstreams: Upstreams, heard: AsyncIterator[Event], reading: Reading) -> None:
        self._place = place
        self._upstreams = upstreams
        self._reading = reading
        self._heard = heard
        self._url = ""
        self._number = 0

    async def open(self) -> None:
        """Hears where to post. Raises ToolFault."""
        async for name, data in self._heard:
            if name == "endpoint":
                self._url = _posted_to(self._place.url, data)
                return
        raise ToolFault("its stream ended before it said where to post", sent=False)

    async def ask(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """The result of one request. Raises ToolFault, ToolRefusal."""
        self._number += 1
        message = {"jsonrpc": "2.0", "id": self._number, "method": method, "params": params}
        # Both at once: a server may post its answer before it has taken the question.
        hearing = asyncio.ensure_future(self._answer(self._number))
        posting = asyncio.ensure_future(self.post(message))
        try:
            await asyncio.wait((hearing, posting), return_when=asyncio.FIRST_COMPLETED)
            if not hearing.done():
                await posting
            return result_of(await hearing, self._number, 200)
        finally:
            hearing.cancel()
            posting.cancel()
            await asyncio.gather(hearing, posting, return_exceptions=True)

    async def post(self, message: dict[str, Any]) -> None:
        """One message. Raises ToolFault."""
        headers = {"content-type": "application/json", **dict(self._place.opening.headers)}
        async with answered(self._upstreams, request("POST", self._url, headers, orjson.dumps(message))) as coming:
            if coming.status >= 400:
                raise ToolFault(f"it answered {coming.status}", sent=True, status=coming.status)

    async def _answer(self, number: int) -> dict[str, Any]:
        try:
            async for name, data in self._heard:
                message = self._reading.parsed(data) if name == "message" else None
                if message is not None and answers(message, number):
                    return message
        except AskFault as fault:
            raise ToolFault(str(fault), sent=True, late=fault.late) from None
        raise ToolFault("its stream ended without an answer", sent=True)


async def _events(coming: Coming, reading: Reading) -> AsyncGenerator[Event, None]:
    events = Events()
    async for piece in coming.pieces():
        reading.take(piece)
        for event in events.of(piece):
            yield event


def _posted_to(url: str, data: bytes) -> str:
    """The place that a server names. Raises ToolFault for one that is elsewhere."""
    said = data.decode("latin-1").strip()
    if len(said) <= MOST_PLACE and said.isascii() and said.isprintable() and " " not in said and "\\" not in said:
        with contextlib.suppress(ValueError):
            found = urljoin(url, said)
            here, there = urlsplit(url), urlsplit(found)
            if (here.scheme, here.netloc) == (there.scheme, there.netloc) and not there.fragment:
                return found
    raise ToolFault("it names a place to post to that is not its own", sent=False, final=True)
