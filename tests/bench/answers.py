"""Takes HTTP/1.1 answers apart for the load generator: as little work as possible, so that it is no rival of the subject. Pure.

Knows content-length and chunked, which is all that the subjects send. Hands out each chunk on its own: a chunk is one write of a
server that streams, so two events in one chunk were merged on the way.
"""

from __future__ import annotations

from collections.abc import Callable


class Malformed(Exception):
    """The answer is not of the subset this reader knows."""


class AnswerReader:
    """Feed it bytes; it calls `on_piece(bytes)` for each chunk (or arrival of a plain body) and `on_end(status)` after it."""

    def __init__(self, on_piece: Callable[[bytes], None], on_end: Callable[[int], None]) -> None:
        self._on_piece = on_piece
        self._on_end = on_end
        self._held = b""
        self._status = 0
        self._left = -1  # of the body or chunk; -1: no head yet
        self._chunked = False

    def feed(self, data: bytes) -> None:
        """Raises Malformed."""
        held = self._held + data if self._held else data
        while held:
            if self._left < 0:
                rest = self._head(held)
            elif self._chunked:
                rest = self._chunk(held)
            else:
                rest = self._plain(held)
            if rest is None:
                break
            held = rest
        self._held = held

    def _head(self, held: bytes) -> bytes | None:
        end = held.find(b"\r\n\r\n")
        if end < 0:
            return None
        if held[:7] != b"HTTP/1.":
            raise Malformed(held[:40])
        head = held[: end + 2].lower()
        self._status = int(held[9:12])
        self._chunked = b"\r\ntransfer-encoding: chunked\r\n" in head
        self._left = 0
        if not self._chunked:
            at = head.find(b"\r\ncontent-length:")
            if at < 0:
                raise Malformed("an answer without a length")
            self._left = int(head[at + 17 : head.index(b"\r\n", at + 2)])
            if not self._left:
                self._ended()
        return held[end + 4 :]

    def _plain(self, held: bytes) -> bytes:
        piece, rest = held[: self._left], held[self._left :]
        self._left -= len(piece)
        self._on_piece(piece)
        if not self._left:
            self._ended()
        return rest

    def _chunk(self, held: bytes) -> bytes | None:
        line = held.find(b"\r\n")
        if line < 0:
            return None
        size = int(held[:line], 16)
        end = line + 2 + size
        if len(held) < end + 2:
            return None
        if size:
            self._on_piece(held[line + 2 : end])
        else:
            self._ended()
        return held[end + 2 :]

    def _ended(self) -> None:
        self._left = -1
        self._on_end(self._status)
