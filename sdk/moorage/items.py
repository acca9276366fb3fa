"""Input items of the Responses API: one shape for whatever a caller sent, and the text in them.

Layer: SDK, public (`text_of`) and pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Item = dict[str, Any]

_TEXT_PARTS = frozenset({"input_text", "output_text", "text"})


def user_message(text: str) -> Item:
    """The one item that a plain string input stands for."""
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}


def from_input(value: object) -> list[Item]:
    """Items of a request's `input`: a string is one user message, a list is taken as it is, nothing is no item.

    Raises ValueError naming the place when it is anything else.
    """
    if value is None:
        return []
    if isinstance(value, str):
        return [user_message(value)]
    if not isinstance(value, list):
        raise ValueError("input must be a string or a list of items")
    found: list[Item] = []
    for index, entry in enumerate(value):
        if not isinstance(entry, dict):
            raise ValueError(f"input[{index}] must be an object")
        if "type" not in entry and "role" not in entry:
            raise ValueError(f"input[{index}] needs a type")
        found.append({"type": "message", **entry})
    return found


def text_of(items: Iterable[Mapping[str, Any]]) -> str:
    """All text in the messages among `items`, joined by newlines; images, files and tool calls are left out."""
    texts: list[str] = []
    for item in items:
        if item.get("type", "message") != "message":
            continue
        content = item.get("content")
        if isinstance(content, str):
            texts.append(content)
            continue
        texts.extend(
            part["text"]
            for part in content or ()
            if isinstance(part, Mapping) and part.get("type") in _TEXT_PARTS and isinstance(part.get("text"), str)
        )
    return "\n".join(texts)
