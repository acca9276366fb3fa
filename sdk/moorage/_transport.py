"""HTTP as the client needs it: JSON calls, streams of events, pieces of a file; one translation of errors.

Layer: SDK client; the only module that knows httpx2. The seam is httpx2's own transport: tests and embedders give another one.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx2

from moorage import _errors, _sse

SILENCE = 60.0  # seconds a stream may stay silent; the platform sends a comment every 15


class Http:
    """Requests to one platform with one key. Raises ApiStatusError and ConnectionLost, nothing of httpx2."""

    def __init__(
        self, url: str, key: str | None, *, timeout: float, transport: httpx2.AsyncBaseTransport | None = None
    ) -> None:
        self._url = url.rstrip("/")
        headers = {"user-agent": "moorage-python"}
        if key:
            headers["authorization"] = f"Bearer {key}"
        # Loopback needs neither proxies nor certificates, and loading those takes longer than most calls.
        near = _is_loopback(self._url)
        self._client = httpx2.AsyncClient(
            headers=headers,
            timeout=httpx2.Timeout(timeout, connect=10),
            transport=transport,
            follow_redirects=False,
            trust_env=not near,
            verify=not near,
        )

    async def aclose(self) -> None:
        """Closes all connections."""
        await self._client.aclose()

    async def json(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """One call; the parsed answer, None when it has no body."""
        answer = await self._send(method, path, body=body, params=params, headers=headers)
        if not answer.content:
            return None
        try:
            return answer.json()
        except ValueError as wrong:
            raise _errors.ConnectionLost(
                f"{self._url} answered with something that is not JSON.",
                hint="Check that --url names a Moorage gateway.",
            ) from wrong

    async def look(self, path: str, *, limit: int) -> tuple[int, Any]:
        """One GET whose refusal is an answer too: status and parsed body. None for one that is no JSON, or over `limit` bytes."""
        held = bytearray()
        with _translated(self._url):
            async with self._client.stream("GET", self._url + path) as answer:
                async for piece in answer.aiter_bytes():
                    held += piece
                    if len(held) > limit:
                        return answer.status_code, None
        try:
            return answer.status_code, json.loads(held)
        except ValueError:
            return answer.status_code, None

    async def upload(self, path: str, offset: int, piece: bytes) -> int:
        """Sends one piece of a file; the offset to go on from."""
        headers = {"upload-offset": str(offset), "content-type": "application/offset+octet-stream"}
        with _translated(self._url):
            answer = await self._client.patch(self._url + path, content=piece, headers=headers)
        self._check(answer)
        return int(answer.headers.get("upload-offset", offset + len(piece)))

    @asynccontextmanager
    async def events(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        silence: float | None = SILENCE,
    ) -> AsyncIterator[AsyncIterator[Any]]:
        """A stream of events, as parsed data; ends when the platform ends it, raises ConnectionLost when it breaks.

        `silence`: seconds without a byte that count as broken; None waits for ever.
        """
        with _translated(self._url):
            request = self._client.build_request(
                method,
                self._url + path,
                json=body,
                params=_given(params),
                headers=dict(headers or {}),
                timeout=httpx2.Timeout(silence, connect=10),
            )
            answer = await self._client.send(request, stream=True)
        try:
            if answer.status_code >= 400:
                with _translated(self._url):
                    await answer.aread()
            self._check(answer)
            yield self._events(answer)
        finally:
            await answer.aclose()

    async def _events(self, answer: httpx2.Response) -> AsyncIterator[Any]:
        parser = _sse.Parser()
        with _translated(self._url):
            async for chunk in answer.aiter_raw():
                for event in parser.feed(chunk):
                    yield event

    async def _send(
        self,
        method: str,
        path: str,
        *,
        body: object,
        params: Mapping[str, Any] | None,
        headers: Mapping[str, str] | None,
    ) -> httpx2.Response:
        with _translated(self._url):
            answer = await self._client.request(
                method, self._url + path, json=body, params=_given(params), headers=dict(headers or {})
            )
        self._check(answer)
        return answer

    @staticmethod
    def _check(answer: httpx2.Response) -> None:
        if answer.status_code >= 300:
            raise _errors.of_answer(answer.status_code, answer.content, answer.headers.get("retry-after"))


class _translated:
    """Turns errors of httpx2 into the client's own."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout):
            raise _errors.ConnectionLost(
                f"Nothing answers at {self._url}.",
                hint="Start it with `moorage dev`, or name the platform with --url.",
                unreachable=True,
            ) from error
        if isinstance(error, httpx2.InvalidURL | httpx2.UnsupportedProtocol):
            raise _errors.Misuse(f"{self._url!r} is not a URL.", hint="It looks like http://127.0.0.1:8080.") from error
        if isinstance(error, httpx2.HTTPError):
            raise _errors.ConnectionLost(f"The connection to {self._url} broke: {type(error).__name__}.") from error


def _is_loopback(url: str) -> bool:
    """A plain `http` URL of this machine."""
    parts = urlsplit(url)
    return parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost", "::1")


def _given(params: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (params or {}).items() if value is not None}
