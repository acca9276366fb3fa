"""The gateway's sandbox port as builds and starting pods use it: bundles in and out, by digest. Layer: I/O rim; blocking.

Every call shows the caller's proof, read anew. A gateway that does not answer is asked again until the deadline: a pod may start before
its network lets it out.

    Unreachable   no gateway answered in time
    Refused       one said no, and why
"""

from __future__ import annotations

import hashlib
import http.client
import json
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from moorage_sandbox.errors import NoProof
from moorage_sandbox.proof import Proof

CALL_SECONDS = 60.0
"""Of silence in one call."""
PAUSE_SECONDS = 0.5
MAX_TEXT = 8 * 2**20
_CHUNK = 1 << 20
_AGAIN = (429, 500, 502, 503, 504)


class Unreachable(Exception):
    """No gateway answered before the deadline; the text says what was seen last."""


class Refused(Exception):
    """The gateway's own words."""


class Platform:
    """`until`: seconds on the monotonic clock, after which nothing is tried again."""

    def __init__(self, gateway: str, proof: Proof, *, until: float) -> None:
        parts = urlsplit(gateway)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._proof = proof
        self._until = until

    def index(self) -> dict[str, Any]:
        """The package index that builds use: `env`, and `ca` (PEM) or None."""
        found: dict[str, Any] = json.loads(self._tried("GET", "/sandbox/v1/index", _text))
        return found

    def source(self, target: Path) -> None:
        """Writes the uploaded bundle this build is of."""
        self._tried("GET", "/sandbox/v1/source", lambda answer: _saved(answer, target))

    def built(self, digest: str, target: Path) -> None:
        """Writes a built bundle of this caller's agent."""
        self._tried("GET", f"/sandbox/v1/built/{digest}", lambda answer: _saved(answer, target))

    def keep(self, digest: str, archive: Path) -> None:
        """Stores a built bundle; one that is there already is fine."""
        with archive.open("rb") as body:
            self._tried("PUT", f"/sandbox/v1/built/{digest}", _text, body, archive.stat().st_size)

    def _tried(
        self,
        method: str,
        path: str,
        read: Callable[[http.client.HTTPResponse], bytes],
        body: IO[bytes] | None = None,
        size: int = 0,
    ) -> bytes:
        paused = threading.Event()
        while True:
            try:
                return self._once(method, path, read, body, size)
            except (OSError, http.client.HTTPException, NoProof, _NotNow) as fault:
                if time.monotonic() + PAUSE_SECONDS > self._until:
                    raise Unreachable(f"the gateway does not answer: {type(fault).__name__}: {fault}") from fault
            paused.wait(PAUSE_SECONDS)

    def _once(
        self,
        method: str,
        path: str,
        read: Callable[[http.client.HTTPResponse], bytes],
        body: IO[bytes] | None,
        size: int,
    ) -> bytes:
        heads = {name.decode(): value.decode() for name, value in self._proof.headers(b"authorization")}
        if body is not None:
            body.seek(0)
            heads["content-length"] = str(size)
        with closing(http.client.HTTPConnection(self._host, self._port, timeout=CALL_SECONDS)) as connection:
            connection.request(method, path, body=body, headers=heads)
            answer = connection.getresponse()
            if answer.status in (200, 201):
                return read(answer)
            said = answer.read(4096).decode("utf-8", "replace")
            if answer.status in _AGAIN or answer.status == 401:  # 401: its keys may not be published yet
                raise _NotNow(f"{answer.status}: {said[:500]}")
            raise Refused(f"the gateway refuses {method} {path.rpartition('/')[0]} ({answer.status}): {said[:500]}")


class _NotNow(Exception):
    """An answer after which trying again may help."""


def _text(answer: http.client.HTTPResponse) -> bytes:
    found = answer.read(MAX_TEXT + 1)
    if len(found) > MAX_TEXT:
        raise Refused(f"the gateway answers with more than {MAX_TEXT} bytes")
    return found


def _saved(answer: http.client.HTTPResponse, target: Path) -> bytes:
    """Whole or not at all; its sha256 in hex."""
    length, digest, size = answer.getheader("content-length"), hashlib.sha256(), 0
    with target.open("wb") as file:
        while chunk := answer.read(_CHUNK):
            file.write(chunk)
            digest.update(chunk)
            size += len(chunk)
    if length is None or size != int(length):
        raise http.client.IncompleteRead(b"", int(length or 0) - size)
    return digest.hexdigest().encode()
