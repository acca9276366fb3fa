"""Responses items as chat messages: role, parts, calls and their results, as every framework reads them. Layer: SDK, pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

_TEXT = {"input_text": "text", "output_text": "text", "text": "text", "refusal": "refusal"}
_SAID_BESIDE = frozenset(
    {"reasoning", "item_reference"}
)  # told for people, or of the provider that made them: no message


@dataclass(frozen=True)
class Part:
    """A piece of a message: `kind` is text, image or file; `text`, or `url` (http, https, data), or `file` (an id at the provider)."""

    kind: str
    text: str = ""
    url: str = ""
    file: str = ""
    name: str = ""


@dataclass(frozen=True)
class Said:
    """A message by `role`."""

    role: str
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Called:
    """A call of a tool by the model; `arguments` is JSON text."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Returned:
    """The result of call `id`."""

    id: str
    output: str


Message = Said | Called | Returned


def messages(items: Iterable[Mapping[str, Any]], *, strict: bool) -> list[Message]:
    """The messages among `items`. With `strict`, for new input, raises ValueError for an item or part that no framework could be told."""
    found: list[Message] = []
    for item in items:
        kind = item.get("type", "message")
        if kind == "message":
            role = {"developer": "system"}.get(str(item.get("role")), str(item.get("role")))
            found.append(Said(role, _parts(item.get("content"), strict)))
        elif kind == "function_call":
            found.append(Called(str(item.get("call_id")), str(item.get("name")), str(item.get("arguments") or "{}")))
        elif kind == "function_call_output":
            found.append(Returned(str(item.get("call_id")), _output(item.get("output"))))
        elif strict and kind not in _SAID_BESIDE:
            raise ValueError(
                f"an input item of type {kind!r} means nothing to this agent: give messages and results of functions"
            )
    return found


def settled(told: Iterable[Message]) -> list[Message]:
    """Without calls that never got a result, and results of no call: a turn that failed leaves such, and models refuse both."""
    every = list(told)
    asked = {each.id for each in every if isinstance(each, Called)}
    answered = {each.id for each in every if isinstance(each, Returned)}
    return [each for each in every if isinstance(each, Said) or each.id in asked & answered]


def _parts(content: object, strict: bool) -> tuple[Part, ...]:
    if isinstance(content, str):
        return (Part("text", text=content),)
    parts = []
    for part in content if isinstance(content, list) else ():
        made = _part(part)
        if made is not None:
            parts.append(made)
        elif strict:
            raise ValueError(
                f"a content part of type {part.get('type')!r} means nothing to this agent: give text, images or files"
            )
    return tuple(parts)


def _part(part: Mapping[str, Any]) -> Part | None:
    kind = part.get("type")
    if kind in _TEXT:
        return Part("text", text=str(part.get(_TEXT[kind]) or ""))
    if kind == "input_image":
        return Part("image", url=_url(part.get("image_url")), file=str(part.get("file_id") or ""))
    if kind == "input_file":
        data = part.get("file_data") or part.get("file_url") or ""
        return Part("file", url=str(data), file=str(part.get("file_id") or ""), name=str(part.get("filename") or ""))
    return None


def _url(value: object) -> str:
    if isinstance(value, Mapping):  # the form of chat completions
        value = value.get("url")
    return str(value or "")


def _output(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        texts = [str(part.get("text")) for part in value if isinstance(part, Mapping) and part.get("type") in _TEXT]
        if len(texts) == len(value):
            return "\n".join(texts)
    return json.dumps(value, ensure_ascii=False)
