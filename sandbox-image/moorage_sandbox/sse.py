"""The agent's server-sent events, taken apart as they arrive. Layer: pure, no I/O.

LF and CRLF line ends, data over several lines, comments, `[DONE]`; one event is bounded by MAX_EVENT. What is no JSON object is
reported and passed over: an agent's stray print must not end a turn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from moorage_api.wire.frames import MAX_EVENT

TERMINAL = frozenset({"response.completed", "response.failed", "response.incomplete", "error"})
_STATUS_EVENTS = {
    "completed": "response.completed",
    "failed": "response.failed",
    "cancelled": "response.failed",
    "incomplete": "response.incomplete",
}


class TooLarge(ValueError):
    """One event is longer than MAX_EVENT."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event: its JSON on one line, and whether it ends the response."""

    data: bytes
    terminal: bool


class SseParser:
    """Feeds on chunks, gives events. `skipped` is told why something was passed over."""

    __slots__ = ("_data", "_event", "_held", "_parts", "_size", "_skipped", "_started")

    def __init__(self, skipped: Callable[[str], None]) -> None:
        self._skipped = skipped
        self._parts: list[bytes] = []
        self._held = 0
        self._data: list[bytes] = []
        self._event = b""
        self._size = 0
        self._started = False

    def feed(self, chunk: bytes) -> list[Event]:
        """The events completed by `chunk`. Raises TooLarge."""
        lines = chunk.split(b"\n")
        rest = lines.pop()
        if lines and self._parts:
            lines[0] = b"".join((*self._parts, lines[0]))
            self._parts.clear()
            self._held = 0
        if rest:
            self._parts.append(rest)
            self._held += len(rest)
        found: list[Event] = []
        for line in lines:
            if not self._started:
                self._started = True
                line = line.removeprefix(b"\xef\xbb\xbf")
            self._line(line[:-1] if line.endswith(b"\r") else line, found)
        if self._held + self._size > MAX_EVENT:
            raise TooLarge(f"an event is longer than {MAX_EVENT} bytes")
        return found

    def _line(self, line: bytes, found: list[Event]) -> None:
        if not line:
            if self._data:
                self._dispatch(found)
            self._event = b""
        elif line.startswith(b"data:"):
            part = line[6:] if line.startswith(b"data: ") else line[5:]
            self._data.append(part)
            self._size += len(part) + 1
            if self._size > MAX_EVENT:
                raise TooLarge(f"an event is longer than {MAX_EVENT} bytes")
        elif line.startswith(b"event:"):
            self._event = line[6:].strip()

    def _dispatch(self, found: list[Event]) -> None:
        data = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
        single = len(self._data) == 1
        self._data.clear()
        self._size = 0
        if data == b"[DONE]":
            return
        try:
            value = orjson.loads(data)
        except orjson.JSONDecodeError as error:
            self._skipped(f"an event that is not JSON was passed over: {error}")
            return
        if not isinstance(value, dict):
            self._skipped("an event that is not a JSON object was passed over")
            return
        kind = value.get("type")
        if not isinstance(kind, str):
            kind = value["type"] = self._event.decode("utf-8", "replace") or "message"
            single = False
        found.append(Event(data if single else orjson.dumps(value), kind in TERMINAL))


def from_response(body: bytes) -> Event | None:
    """The one event that says what a non-streaming answer says; None when it is no ended response."""
    try:
        value: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(value, dict):
        return None
    kind = _STATUS_EVENTS.get(value.get("status", "completed"))
    if kind is None:
        return None
    return Event(orjson.dumps({"type": kind, "response": value}), True)
