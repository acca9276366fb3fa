"""The frames of one attempt that a new owner may still ask for. Layer: pure rules, no I/O.

Frames are numbered from 1. What was written to an owner may be dropped when room is needed, oldest first; what was not never
is: then the reader of the agent's stream has to wait (`full`). After an owner is lost the last `window` bytes it was
sent count as not delivered for sure: it may have died before it logged them.
"""

from __future__ import annotations

from collections import deque

from moorage_sandbox.config import Limits


class FrameBuffer:
    """A ring of frame lines with the owner's position in it."""

    __slots__ = ("_delivered", "_first", "_limits", "_lines", "_sent", "_waiting", "last", "owned")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lines: deque[bytes] = deque()
        self._first = 1
        self._sent = 0
        self._delivered = 0
        self._waiting = 0
        self.last = 0
        self.owned = False

    @property
    def held(self) -> int:
        """Bytes in the ring."""
        return self._delivered + self._waiting

    @property
    def sent(self) -> int:
        """The number of the last frame written to the owner."""
        return self._sent

    @property
    def full(self) -> bool:
        """The agent's stream must wait."""
        if self.owned:
            return self._waiting >= self._limits.undelivered
        return self.held >= self._limits.buffer and not self._droppable()

    def append(self, line: bytes) -> int:
        """Takes the next frame; its number."""
        self.last += 1
        self._lines.append(line)
        self._waiting += len(line)
        while self.held > self._limits.buffer and self._droppable():
            self._drop()
        return self.last

    def next(self) -> bytes | None:
        """The next frame for the owner, which is now counted as written to it; None when it has all."""
        if self._sent >= self.last:
            return None
        line = self._lines[self._sent + 1 - self._first]
        self.mark(len(line))
        return line

    def mark(self, size: int) -> None:
        """Counts the next frame, `size` bytes long, as written to the owner."""
        self._sent += 1
        self._delivered += size
        self._waiting -= size

    def rewind(self, src: int) -> bool:
        """Gives the ring to an owner that has everything up to `src`. False: what follows `src` is not here any more."""
        if src < self._first - 1 or src > self.last:
            return False
        self._sent = src
        kept = src + 1 - self._first
        sizes = [len(line) for line in self._lines]
        self._delivered = sum(sizes[:kept])
        self._waiting = sum(sizes[kept:])
        self.owned = True
        return True

    def clear(self) -> None:
        """Frees the memory; every later `rewind` to before the end fails."""
        self._lines.clear()
        self._first = self.last + 1
        self._delivered = self._waiting = 0

    def _droppable(self) -> bool:
        if not self._lines or self._first > self._sent:
            return False
        return self.owned or self._delivered - len(self._lines[0]) >= self._limits.window

    def _drop(self) -> None:
        self._delivered -= len(self._lines.popleft())
        self._first += 1
