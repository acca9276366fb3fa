"""Requests that are the same but for the time of day in them (turns.md §6). Layer: pure.

Many agents tell their model what time it is. A later attempt's request then differs from the recorded one in nothing else; it may take that
one's answer. A *reading* is a time as programs write it, and not further from now than a turn's beginning is:

    2026-11-26T22:05, …:09, …:09.123, with Z, +01:00 or neither (then UTC); a space for the T
    1795730709, 1795730709.123, 1795730709123     seconds and milliseconds since 1970

Other spellings, dates without a time, and older times are part of what is asked.
"""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime

PAST_S = 3600.0
AHEAD_S = 60.0
MOST = 256 * 1024
"""Bytes of a body that is looked at: a longer one is taken as it is."""

# It begins with the digit, and looks back from there: so the search goes from digit to digit, not from byte to byte.
_READING = re.compile(
    rb"[0-9](?<![\d.]\d)(?:\d{3}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?(?:Z|[+-]\d\d:\d\d)?"
    rb"|(?<!0)\d{12}|(?<!0)\d{9}(?:\.\d{1,9})?)(?!\d)"
)


def alike(head: bytes, body: bytes, now: float) -> str:
    """Hex that requests have in common which differ in readings alone; empty where there is none. `now`: seconds since 1970."""
    if len(body) > MOST:
        return ""
    found = 0

    def masked(hit: re.Match[bytes]) -> bytes:
        nonlocal found
        if not -AHEAD_S <= now - _seconds(hit[0]) <= PAST_S:
            return hit[0]
        found += 1
        return b"\0"

    rest = _READING.sub(masked, body)
    return hashlib.sha256(head + b"\n" + rest).hexdigest()[:40] if found else ""


def _seconds(reading: bytes) -> float:
    """Since 1970; 0 for what is no time."""
    text = reading.decode("ascii")
    if "-" not in text:
        return float(text) / (1000 if len(text) == 13 and "." not in text else 1)
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return 0.0
    return (when if when.tzinfo is not None else when.replace(tzinfo=UTC)).timestamp()
