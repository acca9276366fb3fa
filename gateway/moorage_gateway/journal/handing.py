"""Calls that an attempt makes by itself: who is their executor, and what their reports bear. Layer: pure."""

from __future__ import annotations

import re

from moorage_api.ledger.journal import Asking, Binding, Started

LEASE_MS = 3_000
"""Of a call that its attempt makes: a later attempt begins when that one is dead, so this is for a report that is under way."""
SMALL = 4096
"""Bytes of a reported answer that need no look at what the journal holds: so many of each call a turn may make fit."""

_MARK = re.compile(r"(\d{1,20})\.(\d{1,9})\.([0-9a-f]{1,64}\.\d{1,9})\Z")


def attempt(binding: Binding, asking: Asking) -> str:
    """The executor of what an attempt makes by itself: whoever proves to be that sandbox, and nobody else, reports for it."""
    return f"{binding.sandbox}:{asking.begun}"


def mark(asking: Asking, started: Started) -> str:
    """What a handed call is reported under; empty where nothing is recorded."""
    return f"{asking.begun}.{started.tried}.{started.entry}" if started.entry else ""


def marked(mark: str) -> tuple[int, Started]:
    """The attempt and the entry behind a mark, those of nothing where it is none."""
    found = _MARK.match(mark)
    return (int(found[1]), Started("RUN", found[3], int(found[2]))) if found else (-1, Started(""))
