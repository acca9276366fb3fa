"""Server-sent events from bytes as they arrive. Layer: SDK client, pure.

Lines end at LF or CRLF only: JSON may hold other characters that text libraries take for line ends.
"""

from __future__ import annotations

import json
from typing import Any

from moorage._errors import ConnectionLost

LIMIT = 16 * 1024 * 1024


class Parser:
    """Bytes in, JSON data of whole events out. Comments, names and `[DONE]` are left out."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> list[Any]:
        """Data of the events that `chunk` completes. Raises ConnectionLost for what is no such stream."""
        lines = (self._rest + chunk).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > LIMIT:
            raise ConnectionLost(f"The platform sent a line over {LIMIT} bytes.")
        found: list[Any] = []
        for line in lines:
            line = line.removesuffix(b"\r")
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
            elif not line and self._data:
                data, self._data = b"\n".join(self._data), []
                if data != b"[DONE]":
                    found.append(_json(data))
        return found


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError as wrong:
        raise ConnectionLost("The platform sent an event that is not JSON.") from wrong
