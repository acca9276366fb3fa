"""What a program prints, cut into lines. Layer: pure.

A line longer than may be is not kept: only its two ends, in which the id of an answer stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

ENDS = 512
"""Bytes that are kept of either end of a line that is too long."""
_FIRST_ID = re.compile(rb'\A\s*\{\s*(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?"id"\s*:\s*(\d{1,15})\s*[,}]')
_LAST_ID = re.compile(rb'[,{]\s*"id"\s*:\s*(\d{1,15})\s*(?:,\s*"jsonrpc"\s*:\s*"2\.0"\s*)?\}\s*\Z')


@dataclass(frozen=True)
class Long:
    """A line of `size` bytes, of which the ends are here."""

    head: bytes
    tail: bytes
    size: int

    @property
    def answers(self) -> int | None:
        """The id of the answer that it seems to be."""
        found = _FIRST_ID.search(self.head) or _LAST_ID.search(self.tail)
        return int(found[1]) if found else None


class Lines:
    """Fed with pieces, gives lines of at most `most` bytes, without their ends."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = bytearray()
        self._head = b""
        self._size = 0  # of the line that has begun

    def feed(self, piece: bytes) -> Iterator[bytes | Long]:
        """The lines that this piece ends. Has to be read to its end."""
        *ended, rest = piece.split(b"\n")
        for part in ended:
            self._take(part)
            yield self._line()
        self._take(rest)

    def rest(self) -> bytes:
        """What stands after the last line's end, where it is not too long."""
        return bytes(self._held) if self._size <= self._most else b""

    def _take(self, part: bytes) -> None:
        self._held += part
        self._size += len(part)
        if self._size > self._most:
            self._head = self._head or bytes(self._held[:ENDS])
            del self._held[:-ENDS]

    def _line(self) -> bytes | Long:
        if self._size > self._most:
            found: bytes | Long = Long(self._head, bytes(self._held), self._size)
        else:
            found = bytes(self._held).rstrip(b"\r")
        self._held.clear()
        self._head, self._size = b"", 0
        return found
