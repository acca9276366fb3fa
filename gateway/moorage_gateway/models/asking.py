"""One request to a server of models or tools: sent, its head, its body as it comes. Layer: gateway, I/O rim.

Over connections of our own (`moorage_api.wire.hop`): aiohttp's request, response, timers and streams were a seventh of what a call costs
(decisions/0027).

AskFault         no answer: `sent` says whether the server may have got the request
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from moorage_api.upstream_places import Forbidden, authority
from moorage_api.wire.hop import HopError, HopPool, HopResponse, HopTimeout
from moorage_gateway.models.places import Allowed, check, found

KEPT_S = 30.0
KEPT = 256
"""Idle connections to one server."""
STEP_S = 1.0
"""For one of a host's addresses to answer, while there are more."""


class AskFault(Exception):
    """`final`: asking again changes nothing."""

    def __init__(self, detail: str, *, sent: bool, final: bool = False, late: bool = False) -> None:
        super().__init__(detail)
        self.sent = sent
        self.final = final
        self.late = late


@dataclass(frozen=True)
class Request:
    """What is sent. Seconds: `connect`, `first` (to the head), `idle` (between two pieces)."""

    method: str
    url: str
    headers: dict[str, str]
    body: bytes
    connect: float
    first: float
    idle: float


class Coming:
    """An answer whose head is here."""

    def __init__(self, response: HopResponse, idle: float) -> None:
        self._response = response
        self._idle = idle
        self.status = response.status
        self.headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in response.headers]

    def header(self, name: str) -> str:
        """Its first value, or nothing; `name` in lower case."""
        return next((value for each, value in self.headers if each == name), "")

    @property
    def streams(self) -> bool:
        """Server-sent events."""
        return self.header("content-type").lower().startswith("text/event-stream")

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body, a piece a chunk, nothing merged. Raises AskFault when it breaks off or falls silent."""
        try:
            while piece := await self._response.next_chunk(idle=self._idle):
                yield piece
        except HopTimeout:
            raise AskFault(f"the server fell silent for {self._idle:g} s", sent=True, late=True) from None
        except HopError as fault:
            raise AskFault(f"the answer broke off: {_told(fault)}", sent=True) from None


class Upstreams:
    """Connections to servers of models and tools. Made in the loop that uses it, with the first request."""

    def __init__(self, allowed: Allowed) -> None:
        self._allowed = allowed
        self._pool: HopPool | None = None

    @asynccontextmanager
    async def ask(self, request: Request) -> AsyncIterator[Coming]:
        """The answer, for as long as the context lasts. Raises AskFault."""
        try:
            check(request.url, self._allowed())
        except Forbidden as why:
            raise AskFault(str(why), sent=False, final=True) from None
        async with await self._sent(request) as response:
            yield Coming(response, request.idle)

    async def _sent(self, request: Request) -> HopResponse:
        parts = urlsplit(request.url)
        target = parts.path or "/"
        try:
            return await self._made().request(
                f"{parts.scheme}://{parts.netloc}",
                request.method,
                f"{target}?{parts.query}" if parts.query else target,
                [(name.encode("latin-1"), value.encode("latin-1")) for name, value in request.headers.items()],
                request.body,
                connect_timeout=min(request.connect, request.first),
                head_timeout=request.first,
                retry_stale=False,  # whether it was carried out is not known, and whoever asks decides
            )
        except HopError as fault:
            raise _fault(fault, request) from None
        except UnicodeEncodeError:
            raise AskFault("a header cannot be written", sent=False, final=True) from None

    def _made(self) -> HopPool:
        if self._pool is None:
            tls = ssl.create_default_context()
            tls.set_alpn_protocols(["http/1.1"])
            self._pool = HopPool(max_idle=KEPT, idle_seconds=KEPT_S, connector=self._connected, tls=tls)
        return self._pool

    async def _connected(self, endpoint: str) -> socket.socket:
        """To the first address of it that may be connected to and answers. Raises OSError."""
        host, port = authority(endpoint)
        places = await found(host, port, self._allowed())
        for number, (family, place) in enumerate(places, 1):
            last = number == len(places)
            try:
                async with asyncio.timeout(None if last else STEP_S):
                    return await _dialled(family, place)
            except OSError:  # TimeoutError is one
                if last:
                    raise
        raise OSError("no address")  # pragma: no cover: `found` gives one, or raises

    async def aclose(self) -> None:
        """Closes every connection that nobody uses."""
        if self._pool is not None:
            await self._pool.close()


async def _dialled(family: int, place: tuple[str, int]) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        await asyncio.get_running_loop().sock_connect(made, place)
    except BaseException:
        made.close()
        raise
    return made


def _fault(fault: HopError, request: Request) -> AskFault:
    cause = fault.__cause__
    if isinstance(cause, Forbidden):
        return AskFault(str(cause), sent=False, final=True)
    if isinstance(fault, HopTimeout) and fault.sent:
        return AskFault(f"no answer began within {request.first:g} s", sent=True, late=True)
    if isinstance(fault, HopTimeout):
        return AskFault(f"no connection within {request.connect:g} s", sent=False, late=True)
    return AskFault(_told(fault), sent=fault.sent)


def _told(fault: HopError) -> str:
    """What may be said of a failure: what the system or the framing says, and nothing of the request, in which the key stands."""
    cause = fault.__cause__
    if isinstance(cause, ssl.SSLError | socket.gaierror) and cause.strerror:
        return cause.strerror
    if isinstance(cause, OSError) and cause.errno:
        return os.strerror(cause.errno)  # an event loop's own words name the address
    return str(fault)
