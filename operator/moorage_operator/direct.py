"""Requests to one API server on connections of our own. Layer: I/O rim, below `kube`; imports no Kubernetes client.

The official client reads where the server is, whom to trust and who we are, token rotation included; what travels goes over the HTTP of
the sandbox hop (decisions/0017). A request costs a fraction of aiohttp's, and three of them were a quarter of what a session costs.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from moorage_api.wire.hop import HopPool

IDLE_SECONDS = 20.0
"""A connection that was idle for so long is closed; API servers and what is in front of them keep theirs for minutes."""
ANSWER_BYTES = 256 * 2**20
"""Of one answer at most: a page of 500 objects of half a megabyte each."""
AGAIN = frozenset({"GET", "PUT", "DELETE"})
"""May be sent twice: where a kept connection turns out to be closed, these go over a fresh one."""

Token = Callable[[], Awaitable[str | None]]


class Direct:
    """`server`: its URL, perhaps with a path in front of all paths; `tls`: None for plain http; `server_name`: of its certificate, where
    that is not the URL's host; `token`: what to show as `authorization`, or None."""

    def __init__(self, server: str, *, tls: ssl.SSLContext | None, server_name: str | None, token: Token) -> None:
        parts = urlsplit(server)
        self._endpoint = f"{parts.scheme}://{parts.netloc}"
        self._prefix = parts.path.rstrip("/")
        self._token = token
        self._pool = HopPool(idle_seconds=IDLE_SECONDS, tls=tls, server_name=server_name)

    async def ask(
        self, method: str, target: str, body: bytes | None, content: str, *, connect: float, within: float
    ) -> tuple[int, bytes]:
        """Status and body. `connect`: seconds to a connection; `within`: to the head, and between two pieces. Raises OSError."""
        headers = [(b"accept", b"application/json, */*"), (b"content-type", content.encode())]
        headers.append((b"user-agent", b"moorage-operator"))
        token = await self._token()
        if token:
            headers.append((b"authorization", token.encode()))
        answer = await self._pool.request(
            self._endpoint,
            method,
            self._prefix + target,
            headers,
            body,
            connect_timeout=connect,
            head_timeout=within,
            retry_stale=method in AGAIN,
        )
        async with answer:
            return answer.status, await answer.read(ANSWER_BYTES, idle=within)

    async def close(self) -> None:
        """Closes what is idle."""
        await self._pool.close()
