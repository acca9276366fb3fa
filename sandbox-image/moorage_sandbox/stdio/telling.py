"""What a program prints for people: its lines, and how many were left out. Layer: no I/O; `now` in monotonic seconds."""

from __future__ import annotations

from collections.abc import Callable

BURST = 200
"""Lines at once."""
RATE = 10.0
"""Lines a second after that."""
LONGEST = 2000
"""Bytes of one."""


class Telling:
    """Passes lines on to `say`, at most so many."""

    def __init__(self, say: Callable[[str], None], now: Callable[[], float]) -> None:
        self._say = say
        self._now = now
        self._left = float(BURST)
        self._at = now()
        self._dropped = 0

    def line(self, data: bytes) -> None:
        """One line; control characters are not passed on."""
        at = self._now()
        self._left, self._at = min(float(BURST), self._left + (at - self._at) * RATE), at
        if self._left < 1:
            self._dropped += 1
            return
        self._left -= 1
        if self._dropped:
            self._say(f"({self._dropped} lines left out)")
            self._dropped = 0
        text = data[:LONGEST].decode("utf-8", "replace")
        self._say("".join(each if each.isprintable() or each == "\t" else "�" for each in text))
