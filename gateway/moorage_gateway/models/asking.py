"""One request to a server of models: sent, its head, its body as it comes. Layer: gateway, I/O rim; aiohttp.

AskFault         no answer: `sent` says whether the server may have got the request
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
from yarl import URL

from moorage_gateway.models.places import Allowed, Forbidden, Resolver, check

KEPT_S = 30.0


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

    def __init__(self, response: aiohttp.ClientResponse, idle: float) -> None:
        self._response = response
        self._idle = idle
        self.status = response.status
        self.headers = [(name, value) for name, value in response.headers.items()]

    def header(self, name: str) -> str:
        """Its first value, or nothing."""
        return self._response.headers.get(name, "")

    @property
    def streams(self) -> bool:
        """Server-sent events."""
        return self.header("content-type").lower().startswith("text/event-stream")

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body, a piece a chunk, nothing merged. Raises AskFault when it breaks off or falls silent."""
        content = self._response.content
        try:
            while True:
                async with asyncio.timeout(self._idle):
                    piece, _ = await content.readchunk()
                if piece:
                    yield piece
                elif content.at_eof():
                    return
        except TimeoutError:
            raise AskFault(f"the server fell silent for {self._idle:g} s", sent=True, late=True) from None
        except (aiohttp.ClientError, OSError, ValueError) as fault:
            raise AskFault(f"the answer broke off: {_told(fault)}", sent=True) from None


class Upstreams:
    """Connections to servers of models. Made in the loop that uses it, with the first request."""

    def __init__(self, allowed: Allowed) -> None:
        self._allowed = allowed
        self._session: aiohttp.ClientSession | None = None

    @asynccontextmanager
    async def ask(self, request: Request) -> AsyncIterator[Coming]:
        """The answer, for as long as the context lasts. Raises AskFault."""
        try:
            check(request.url, self._allowed())
        except Forbidden as why:
            raise AskFault(str(why), sent=False, final=True) from None
        response = await self._sent(request)
        try:
            yield Coming(response, request.idle)
        finally:
            response.close() if not response.content.at_eof() else response.release()

    async def _sent(self, request: Request) -> aiohttp.ClientResponse:
        try:
            async with asyncio.timeout(request.first):
                return await self._made().request(
                    request.method,
                    URL(request.url, encoded=True),  # it was checked as it stands
                    headers=request.headers,
                    data=request.body or None,
                    allow_redirects=False,  # who answers is who was named
                    timeout=aiohttp.ClientTimeout(total=None, sock_connect=request.connect),
                )
        except aiohttp.ClientConnectorError as fault:
            cause = fault.os_error
            raise AskFault(_told(cause), sent=False, final=isinstance(cause, Forbidden)) from None
        except (aiohttp.ConnectionTimeoutError, Forbidden) as fault:
            raise AskFault(_told(fault), sent=False, final=isinstance(fault, Forbidden), late=True) from None
        except TimeoutError:
            raise AskFault(f"no answer began within {request.first:g} s", sent=True, late=True) from None
        except (aiohttp.ClientError, OSError, ValueError) as fault:
            raise AskFault(_told(fault), sent=True) from None

    def _made(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(
                limit=0, resolver=Resolver(self._allowed), use_dns_cache=False, keepalive_timeout=KEPT_S
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                auto_decompress=False,
                trust_env=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),
            )
        return self._session

    async def aclose(self) -> None:
        """Closes every connection."""
        if self._session is not None:
            await self._session.close()


def _told(fault: BaseException) -> str:
    """What may be said of a failure: headers, and with them the key, stand in some of aiohttp's texts."""
    if isinstance(fault, Forbidden):
        return str(fault)
    if isinstance(fault, OSError) and fault.strerror:
        return fault.strerror
    return type(fault).__name__
