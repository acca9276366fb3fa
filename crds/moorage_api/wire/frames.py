"""The frame stream of an attempt: one line a frame, written by the shim, read by the gateway. Layer: the floor; pure.

ok {"begun":F}          the start is acknowledged
12 {"type":…}           source event 12 of the attempt, one JSON text on one line
.                       keep-alive
end {"kind":…,…}        the last line
"""

from __future__ import annotations

import json

from moorage_api.wire import shim

MAX_EVENT = 8 * 1024 * 1024
"""Bytes of one event's JSON; a shim ends the attempt (`cut`) rather than send a larger one."""
MAX_LINE = MAX_EVENT + 64
"""Bytes of one frame: an event and its number."""
KEEPALIVE = b".\n"


class FrameError(ValueError):
    """The stream is not frames; the connection is useless from here."""


def acknowledged(begun: int) -> bytes:
    """The first line of every stream."""
    return b'ok {"begun":%d}\n' % begun


def source(src: int, data: bytes) -> bytes:
    """The line of one event. `data` is JSON without a line feed: the caller has made sure."""
    return b"%d %b\n" % (src, data)


def end(how: shim.End) -> bytes:
    """The last line; fields that say nothing are left out."""
    fields = {name: value for name, value in vars(how).items() if value not in (None, "", [])}
    text = json.dumps(fields, separators=(",", ":"))
    return b"end %b\n" % text.encode()


class FrameParser:
    """Takes a frame stream apart as it arrives. Holds at most one unfinished line of MAX_LINE bytes."""

    __slots__ = ("_held", "_parts")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._held = 0

    def feed(self, data: bytes) -> list[shim.Frame]:
        """The frames completed by `data`; keep-alives give none. Raises FrameError."""
        if not self._parts and data.find(b"\n") == len(data) - 1:  # one whole line, as nearly every piece is
            frame = _frame(data[:-1])
            return [] if frame is None else [frame]
        lines = data.split(b"\n")
        rest = lines.pop()
        if lines and self._parts:
            lines[0] = b"".join((*self._parts, lines[0]))
            self._parts.clear()
            self._held = 0
        if rest:
            self._parts.append(rest)
            self._held += len(rest)
            if self._held > MAX_LINE:
                raise FrameError(f"a frame is longer than {MAX_LINE} bytes")
        return [frame for line in lines if (frame := _frame(line)) is not None]


def _frame(line: bytes) -> shim.Frame | None:
    if line == b".":
        return None
    word, space, rest = line.partition(b" ")
    if not space or len(line) > MAX_LINE:
        raise FrameError("a line is not a frame")
    if word.isdigit() and len(word) < 16:
        return shim.Source(int(word), rest)
    if word not in (b"ok", b"end"):
        raise FrameError("an unknown kind of frame")
    try:
        fields = json.loads(rest)
        return shim.Acknowledged(int(fields["begun"])) if word == b"ok" else shim.End(**fields)
    except (ValueError, TypeError, KeyError) as error:
        raise FrameError(f"a malformed {word.decode()} frame") from error
