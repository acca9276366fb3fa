"""What this shim shows to gateways: its signed token, and in a pod the pod's own token too. Layer: I/O rim.

The announcer and the agent's door ask for it each time: the kubelet replaces the file long before the token in it expires.
"""

from __future__ import annotations

import re

from moorage_api.tokens import MAX_POD_TOKEN
from moorage_api.wire.headers import POD_TOKEN
from moorage_api.wire.http1 import Headers
from moorage_sandbox.errors import NoProof

_TOKEN = re.compile(rb"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\Z")


class Proof:
    """`token` never changes; `token_file` is read anew for every use, on a file system in memory, so it does not wait."""

    def __init__(self, token: str, token_file: str | None) -> None:
        self._bearer = b"Bearer " + token.encode()
        self._token_file = token_file

    def headers(self, name: bytes) -> Headers:
        """The token under `name` (authorization, or a proxy's), and the pod's if there is one. Raises NoProof."""
        shown = [(name, self._bearer)]
        return shown if self._token_file is None else [*shown, (POD_TOKEN.encode(), _read(self._token_file))]


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            found = file.read(MAX_POD_TOKEN + 1).strip()
    except OSError as error:
        raise NoProof(f"the pod's token cannot be read at {path}: {error.strerror}") from error
    # A line end or a space in it would end the header, and what follows would be read as ours.
    if len(found) > MAX_POD_TOKEN or not _TOKEN.match(found):
        raise NoProof(f"what lies at {path} is no token")
    return found
