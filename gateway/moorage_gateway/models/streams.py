"""A stream without the event that the gateway alone asked for: the one with the counts. Layer: pure.

Whole events pass as they came, in the pieces in which they came. What comes of an event waits until all of it is there: no client could
read it before.
"""

from __future__ import annotations

import re

import orjson

MOST = 2**20
"""Bytes of one event; a longer one is not the one that is looked for, and passes."""
_BREAK = re.compile(rb"\r?\n\r?\n")
_DATA = re.compile(rb"^data: ?(\{.*\})\r?$", re.MULTILINE)


class WithoutCounts:
    """Fed with pieces, gives what passes of them."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> bytes:
        """What may pass now; may be nothing."""
        text = self._rest + piece if self._rest else piece
        end, kept = 0, list[bytes]()
        for found in _BREAK.finditer(text):
            event = text[end : found.end()]
            end = found.end()
            if not _is_counts(event):
                kept.append(event)
        self._rest = text[end:]
        if len(self._rest) > MOST:
            kept.append(self.end())
        return b"".join(kept)

    def end(self) -> bytes:
        """What is left when the stream has ended."""
        rest, self._rest = self._rest, b""
        return rest


def _is_counts(event: bytes) -> bool:
    """An event of counts and no words: no choice, and a usage."""
    if b'"usage"' not in event:
        return False
    found = _DATA.search(event)
    if found is None:
        return False
    try:
        value = orjson.loads(found[1])
    except orjson.JSONDecodeError:
        return False
    return isinstance(value, dict) and value.get("choices") == [] and isinstance(value.get("usage"), dict)
