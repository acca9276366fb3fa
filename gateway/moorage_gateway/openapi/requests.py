"""A model's arguments as the request of an operation. Layer: pure.

Every value is encoded for its place: nothing that a model says leaves its segment of the path, its field of the query or its header.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from moorage_gateway.openapi.operations import BODY, FORM, Operation

LONGEST_VALUE = 8192
"""Characters of one value outside of the body."""
MOST_VALUES = 1000
"""Of one argument that is a list."""
MOST_TARGET = 64 * 1024
"""Bytes of path and query, encoded."""
MOST_BODY = 4 * 2**20


class ArgumentError(ValueError):
    """What is wrong with the arguments, as a sentence for a model."""


@dataclass(frozen=True)
class Request:
    """`target`: encoded path and query, to be put behind the API's base URL."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes | None


def build(operation: Operation, arguments: Mapping[str, Any]) -> Request:
    """The request. Raises ArgumentError."""
    known = {*operation.arguments, *([BODY] if operation.body else [])}
    unknown = sorted(set(arguments) - known)
    if unknown:
        raise ArgumentError(
            f"{operation.name} takes no {unknown[0]!r}; it takes {', '.join(sorted(known)) or 'nothing'}."
        )
    path, query, headers = operation.path, [], {}
    for name, place in operation.arguments.items():
        value = arguments.get(name)
        if value is None:
            if place.required:
                raise ArgumentError(f"{operation.name} needs {name!r}.")
            continue
        texts = _texts(name, value)
        if place.where == "path":
            path = path.replace(f"{{{place.wire}}}", _segment(name, ",".join(texts)))
        elif place.where == "header":
            headers[place.wire.lower()] = _header(name, ",".join(texts))
        elif place.repeated:
            query += [(place.wire, text) for text in texts]
        else:
            query.append((place.wire, ",".join(texts)))
    body = _body(operation, arguments.get(BODY))
    if body is not None and operation.body:
        headers["content-type"] = operation.body
    target = path + (f"?{urlencode(query)}" if query else "")
    if len(target) > MOST_TARGET:
        raise ArgumentError(f"The arguments that stand in the URL are {len(target)} bytes; {MOST_TARGET} are the most.")
    return Request(operation.method, target, headers, body)


def _texts(name: str, value: Any) -> list[str]:
    if isinstance(value, list) and len(value) > MOST_VALUES:
        raise ArgumentError(f"{name!r} has {len(value)} values; {MOST_VALUES} are the most.")
    return [_text(name, each) for each in (value if isinstance(value, list) else [value])]


def _text(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str | int | float):
        raise ArgumentError(f"{name!r} must be text, a number, true or false, or a list of these.")
    text = str(value)
    _octets(name, text)
    if len(text) > LONGEST_VALUE:
        raise ArgumentError(f"{name!r} is longer than {LONGEST_VALUE} characters.")
    return text


def _octets(name: str, text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise ArgumentError(f"{name!r} is no Unicode text: half of a surrogate pair is in it.") from None


def _segment(name: str, text: str) -> str:
    if not text or text in (".", ".."):
        raise ArgumentError(f"{name!r} stands in the path and cannot be {text!r}.")
    return quote(text, safe="")


def _header(name: str, text: str) -> str:
    if not text.isascii() or not text.isprintable():
        raise ArgumentError(f"{name!r} is sent as a header: printable ASCII only.")
    if len(text) > LONGEST_VALUE:
        raise ArgumentError(f"{name!r} is longer than {LONGEST_VALUE} characters.")
    return text


def _body(operation: Operation, value: Any) -> bytes | None:
    if value is None:
        if operation.body_required:
            raise ArgumentError(f"{operation.name} needs {BODY!r}.")
        return None
    if operation.body == FORM:
        if not isinstance(value, Mapping):
            raise ArgumentError(f"{BODY!r} must be an object.")
        fields = [
            (name, _text(name, part))
            for name, each in value.items()
            for part in (each if isinstance(each, list) else [each])
        ]
        data = urlencode(fields).encode()
    else:
        data = _octets(BODY, json.dumps(value, ensure_ascii=False, separators=(",", ":")))
    if len(data) > MOST_BODY:
        raise ArgumentError(f"{BODY!r} is {len(data)} bytes; {MOST_BODY} are the most.")
    return data
