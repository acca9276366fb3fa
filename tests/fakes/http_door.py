"""One caller at a gateway over plain HTTP: any method, any body, one kept connection. No product code is called.

Limits: one thread at a time; an answer is read whole, so not for streams without an end.
"""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

DEADLINE = 60.0


@dataclass(frozen=True)
class Answer:
    """A whole answer; header names in lower case."""

    status: int
    headers: dict[str, str]
    raw: bytes

    @property
    def body(self) -> Any:
        """The parsed JSON body, None when it is none."""
        try:
            return json.loads(self.raw)
        except ValueError:
            return None

    @property
    def error(self) -> dict[str, Any]:
        """The error object of a refusal; AssertionError for a body of another shape."""
        found = self.body
        assert isinstance(found, dict) and isinstance(found.get("error"), dict), (self.status, self.raw[:500])
        return dict(found["error"])


@dataclass
class HttpDoor:
    """A caller with one key (None: without a credential). `close` it."""

    url: str
    key: str | None = None
    timeout: float = DEADLINE
    _open: http.client.HTTPConnection | None = field(default=None, repr=False)

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: dict[str, str] | None = None,
        raw: bytes | None = None,
    ) -> Answer:
        """One request; `body` is sent as JSON, `raw` as it is."""
        data = raw if raw is not None else None if body is None else json.dumps(body).encode()
        lines = {"content-type": "application/json", **(headers or {})}
        if self.key is not None:
            lines.setdefault("authorization", f"Bearer {self.key}")
        for last in (False, True):
            fresh = self._open is None
            connection = self._open = self._open or self._connection()
            try:
                connection.request(method, path, data, lines)
                answer = connection.getresponse()
                return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
            except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
                self.close()  # a kept connection may have been closed by an answer before
                if fresh or last:
                    raise
            except BaseException:
                self.close()  # a late answer must not be taken for the next one
                raise
        raise AssertionError("not reached")

    def close(self) -> None:
        """Ends the connection."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def _connection(self) -> http.client.HTTPConnection:
        place = urlsplit(self.url)
        return http.client.HTTPConnection(place.hostname or "", place.port, timeout=self.timeout)
