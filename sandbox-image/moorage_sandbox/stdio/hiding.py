"""A program's words without its secrets, wherever it repeats them as they stand. Layer: pure.

The same forms as the gateway hides of a server's credential (`moorage_gateway/models/hiding.py`), which cannot be asked here.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

SHOWN = b"[credential]"
LEAST = 6
"""Characters; a shorter one stands in too many words to be looked for."""


class Hiding:
    """Takes these secrets out of lines."""

    def __init__(self, secrets: Iterable[str]) -> None:
        found = {form for secret in secrets if len(secret) >= LEAST for form in _forms(secret)}
        self._forms = tuple(sorted(found, key=len, reverse=True))

    def line(self, data: bytes) -> bytes:
        """A whole line of it."""
        for each in self._forms:
            if each in data:
                data = data.replace(each, SHOWN)
        return data


def _forms(secret: str) -> Iterable[bytes]:
    for ascii_only in (True, False):
        quoted = json.dumps(secret, ensure_ascii=ascii_only)[1:-1].encode()
        yield from (quoted, quoted.replace(b"/", b"\\/"))
    yield from (secret.encode(), quote(secret, safe="").encode(), quote_plus(secret).encode())
    yield base64.b64encode(secret.encode())
