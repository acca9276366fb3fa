"""Compares what a later attempt says with what the log already has (turns.md §4): identities, finished items, other events.

Layer: pure. Texts are compared where they are streamed (`following.py`); everything else about an item is decided here.

| compared                                   | how                                                                |
|--------------------------------------------|--------------------------------------------------------------------|
| type, call_id                              | equal at `added`; a call id the log had to rename equals its origin |
| name, role, server_label                   | equal at `added` and at `done`, where both sides have one          |
| texts, arguments, input, code              | accumulated text, part by part                                     |
| other fields of a finished item            | equal, null and absent being one                                   |
| incomplete or not, of a finished item      | equal: a whole item never passes for one that was cut off          |
| annotations                                | by number within their part                                        |
| id, usage, times, logprobs, encrypted text | not at all                                                         |
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson

from moorage_gateway.turns import items
from moorage_gateway.turns.book import Item
from moorage_gateway.turns.items import Event

_IGNORED = frozenset(
    "id status call_id annotations logprobs usage created_at completed_at created_by encrypted_content obfuscation".split()
)
_STREAMED = frozenset({"content", "summary"})  # compared as parts, where the type has them
_ADDRESS = frozenset({"sequence_number", "item_id", "output_index", *items.FOREIGN})


def agrees(response_id: str, ours: Item, claim: dict[str, Any], call_id: Any) -> bool:
    """Whether a logged item may be the one the attempt names. `call_id`: the agent's, mapped where it refers to a call."""
    if ours.kind != claim["type"]:
        return False
    logged = ours.done or ours.added
    for name in ("name", "role", "server_label"):
        if logged.get(name) and claim.get(name) and logged[name] != claim[name]:
            return False
    return "call_id" not in logged or items.is_call_id_of(response_id, ours.index, logged["call_id"], call_id)


def same(ours: Item, claim: dict[str, Any], status: str) -> bool:
    """Whether a finished item of the attempt, its texts found equal, is the finished one in the log."""
    logged = ours.done
    if logged is None:
        return True
    text = items.FIELD_TEXTS.get(ours.kind)
    skipped = _IGNORED | {text.field} if text else _IGNORED
    if ours.kind in items.WITH_PARTS or ours.contents or ours.summaries:
        skipped |= _STREAMED
    if (logged.get("status") == "incomplete") != (status == "incomplete"):
        return False
    return all(logged.get(name) == claim.get(name) for name in (logged.keys() | claim.keys()) - skipped)


def same_part(logged: dict[str, Any] | None, part: dict[str, Any]) -> bool:
    """Whether a part that streams no text is the logged one."""
    shown = logged or {}
    return all(shown.get(name) == part.get(name) for name in (shown.keys() | part.keys()) - _IGNORED)


def payload_of(event: Event) -> Event:
    """An event without its address (number, item, index): what is compared, and what the writer puts an address on.

    A top-level `error` becomes `agent_error`: the stock client raises on it and would lose the rest of the stream.
    """
    return {"agent_error" if name == "error" else name: value for name, value in event.items() if name not in _ADDRESS}


class Cursor:
    """Where an attempt stands in the logged events that are outside the tables, of one item or of none.

    Events with a string `delta` are one text per (type, other fields), compared like any text; the rest are compared whole, in
    order, by type: equal ones are held back, from the first difference on all of that type go out.
    """

    def __init__(self, logged: Iterable[Event]) -> None:
        self._whole: dict[str, list[Event]] = {}
        self._next: dict[str, int] = {}
        self._texts: dict[bytes, list[str]] = {}
        self._joined: dict[bytes, str] = {}
        self._seen: dict[bytes, int] = {}
        for event in logged:
            payload = payload_of(event)
            if isinstance(payload.get("delta"), str):
                self._texts.setdefault(_stream(payload), []).append(payload["delta"])
            else:
                self._whole.setdefault(payload["type"], []).append(payload)

    def unlogged(self, payload: Event) -> tuple[bool, Event | None]:
        """(whether the log agrees, what of `payload` is not logged yet). A text that differs does not agree."""
        if isinstance(payload.get("delta"), str):
            return self._unlogged_text(payload)
        logged, at = self._whole.get(payload["type"], []), self._next.get(payload["type"], 0)
        if at < len(logged) and _compared(logged[at]) == _compared(payload):
            self._next[payload["type"]] = at + 1
            return True, None
        self._next[payload["type"]] = len(logged)
        return True, payload

    def _unlogged_text(self, payload: Event) -> tuple[bool, Event | None]:
        key = _stream(payload)
        if key in self._texts:
            self._joined[key] = "".join(self._texts.pop(key))
        logged, seen, delta = self._joined.get(key, ""), self._seen.get(key, 0), payload["delta"]
        if seen == len(logged):
            return True, payload
        known = len(logged) - seen
        if not logged.startswith(delta[:known], seen):
            self._seen[key] = len(logged)
            return False, payload
        self._seen[key] = min(len(logged), seen + len(delta))
        return True, {**payload, "delta": delta[known:]} if len(delta) > known else None


def _compared(payload: Event) -> Event:
    return {name: value for name, value in payload.items() if name not in _IGNORED}


def _stream(payload: Event) -> bytes:
    rest = {name: value for name, value in payload.items() if name != "delta" and name not in _IGNORED}
    return orjson.dumps(rest, option=orjson.OPT_SORT_KEYS)
