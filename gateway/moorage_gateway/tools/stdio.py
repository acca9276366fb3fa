"""The type `stdio`: a program that the provider runs, reached at the process beside it. Layer: gateway, I/O rim.

Where that is says the catalog, and no manifest: so such places may be private although the platform's settings do not name them, and no
manifest's `url` leads to one. The handshake, and what else belongs to the one process that everybody shares, is made there
(`moorage_api.wire.stdio`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from moorage_api import tokens
from moorage_api.upstream_places import authority, named
from moorage_api.wire.stdio import CALL, ID_HEADER, MAX_MESSAGE, Fault
from moorage_gateway.models.asking import Upstreams
from moorage_gateway.tools.messages import Reading, listed, result_of
from moorage_gateway.tools.opening import Opening
from moorage_gateway.tools.reading import answered, request, whole
from moorage_gateway.tools.servers import Sending, ToolFault

_MOST_FAULT = 64 * 1024


@dataclass(frozen=True)
class StdioPlace:
    """Which program. `url`: where it is reached, None as long as the provider has not said; `most`: bytes of an answer."""

    tenant: str
    toolbox: str
    upstream: str
    url: str | None
    most: int


class Programs:
    """The way to programs. `known`: the places that the provider has published; `key`: what it signs with."""

    def __init__(self, known: Callable[[], frozenset[str]], key: Callable[[], str | None]) -> None:
        self._key = key
        self.connections = Upstreams(lambda: frozenset(named(*authority(url)) for url in known()))

    def shown(self, place: StdioPlace) -> str | None:
        """What is shown at this place; None before the provider has published its key."""
        key = self._key()
        return None if key is None else tokens.stdio_secret(place.tenant, place.toolbox, place.upstream, key)

    async def aclose(self) -> None:
        """Closes every connection that nobody uses."""
        await self.connections.aclose()


class StdioUpstream:
    """See `ToolServer`."""

    def __init__(self, place: StdioPlace, programs: Programs) -> None:
        self._place = place
        self._programs = programs
        self._reading = Reading(Opening(), place.most)
        self.left_out: dict[str, str] = {}
        self.title = ""

    async def tools(self, seconds: float) -> list[Any]:
        """See ToolServer."""
        until = asyncio.get_running_loop().time() + seconds
        return await listed(lambda params: self._asked("tools/list", params, until, seconds))

    async def call(
        self, tool: str, arguments: dict[str, Any], meta: dict[str, Any], seconds: float, sending: Sending
    ) -> dict[str, Any]:
        """See ToolServer."""
        until = asyncio.get_running_loop().time() + seconds
        await sending()
        return await self._asked("tools/call", {"name": tool, "arguments": arguments, "_meta": meta}, until, seconds)

    async def _asked(self, method: str, params: dict[str, Any], until: float, seconds: float) -> dict[str, Any]:
        """The result of one request. Raises ToolFault, ToolRefusal."""
        url, token = self._place.url, self._programs.shown(self._place)
        if url is None or token is None:
            raise ToolFault("the platform has not begun its program yet", sent=False)
        left = max(until - asyncio.get_running_loop().time(), 0.001)
        said = {"method": method, "params": params, "seconds": left, "most": min(self._place.most, MAX_MESSAGE)}
        headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        try:
            async with (
                asyncio.timeout(left),
                answered(
                    self._programs.connections, request("POST", url + CALL, headers, orjson.dumps(said))
                ) as coming,
            ):
                if coming.status != 200:
                    raise _fault(await whole(coming, _MOST_FAULT), coming.status)
                parts: list[bytes] = []
                async for piece in coming.pieces():
                    self._reading.take(piece)
                    parts.append(piece)
                number = coming.header(ID_HEADER)
        except TimeoutError:
            raise ToolFault(f"it did not answer within {seconds:.3g} s", sent=True, late=True) from None
        if not number.isdecimal():
            raise ToolFault("its answer has no id", sent=True)
        return result_of(self._reading.parsed(b"".join(parts)), int(number), 200)


def _fault(body: bytes, status: int) -> ToolFault:
    try:
        fault = Fault.from_json(body)
    except ValueError:
        return ToolFault(f"what runs it answered {status}", sent=True)
    return ToolFault(fault.text, sent=fault.sent, late=fault.late, large=fault.large)
