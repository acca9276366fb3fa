"""What a caller may say about a response: checked, bounded. Layer: rules, no I/O. Called by `routes/responses.py`."""

from __future__ import annotations

from typing import Any

from moorage_gateway import fields

RATINGS = ("positive", "negative", "neutral")
COMMENT = 8_192

_FIELDS: dict[str, fields.Check] = {
    "rating": fields.one_of(*RATINGS),
    "score": fields.number(-1_000_000, 1_000_000),
    "name": fields.text(128),
    "comment": fields.text(COMMENT),
    "metadata": fields.metadata,
}


def parse(body: dict[str, Any]) -> dict[str, Any]:
    """The feedback in a body: `rating` or `score` (or both), with optional `name`, `comment`, `metadata`. Raises ApiError."""
    found = {}
    for name, value in body.items():
        if name not in _FIELDS:
            raise fields.refuse(name[:64], f"is not a field of feedback; known are {', '.join(_FIELDS)}.")
        if value is not None:
            _FIELDS[name](name, value)
            found[name] = value
    if "rating" not in found and "score" not in found:
        raise fields.refuse("rating", f"must be one of {', '.join(RATINGS)} (or give a score).")
    return found
