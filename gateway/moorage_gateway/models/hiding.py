"""A server's words without the credential that it was shown, wherever the server repeats it as it stands. Layer: pure.

What passes stays in the pieces in which it came; only what may be the beginning of the credential waits for the piece behind it.
"""

from __future__ import annotations

import base64
from urllib.parse import quote, quote_plus

import orjson

SHOWN = "[credential]"
LEAST = 6
"""Characters; a shorter one stands in too many words to be looked for."""


def forms(secret: str) -> tuple[bytes, ...]:
    """How it may stand in an answer: as it is, in JSON (with and without escaped slashes), in a URL, and in Base64 by itself."""
    if len(secret) < LEAST:
        return ()
    plain, quoted = secret.encode(), orjson.dumps(secret)[1:-1]
    urls = (quote(secret, safe="").encode(), quote_plus(secret).encode())
    found = (plain, quoted, quoted.replace(b"/", b"\\/"), *urls, base64.b64encode(plain))
    return tuple(sorted(dict.fromkeys(found), key=len, reverse=True))


def whole(data: bytes, secret: str) -> bytes:
    """All of an answer."""
    return _without(data, forms(secret))


def text(value: str, secret: str) -> str:
    """A header's value."""
    for each in forms(secret):
        value = value.replace(each.decode(), SHOWN)
    return value


class Hiding:
    """Fed with the pieces of an answer, gives what passes of them."""

    def __init__(self, secret: str) -> None:
        self._forms = forms(secret)
        self._longest = max(map(len, self._forms), default=1)
        self._bytes = frozenset(b"".join(self._forms))
        self._firsts = frozenset(form[0] for form in self._forms)
        self._rest = b""

    def feed(self, piece: bytes) -> bytes:
        """What may pass now; may be nothing."""
        if not self._forms:
            return piece
        found = _without(self._rest + piece if self._rest else piece, self._forms)
        kept = self._begun(found)
        self._rest = found[len(found) - kept :]
        return found[: len(found) - kept] if kept else found

    def end(self) -> bytes:
        """What is left when the answer has ended."""
        rest, self._rest = self._rest, b""
        return rest

    def _begun(self, data: bytes) -> int:
        """Bytes at the end that are the beginning of a form."""
        if not data or data[-1] not in self._bytes:
            return 0  # as after every whole event
        tail = data[1 - self._longest :]
        for at in range(len(tail)):
            if tail[at] in self._firsts and any(form.startswith(tail[at:]) for form in self._forms):
                return len(tail) - at
        return 0


def _without(data: bytes, forms: tuple[bytes, ...]) -> bytes:
    for each in forms:
        if each in data:
            data = data.replace(each, SHOWN.encode())
    return data
