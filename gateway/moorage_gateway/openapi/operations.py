"""One operation of an OpenAPI document as a tool. Layer: pure.

Arguments are the operation's parameters by name; a JSON or form body is the argument `body`. Two parameters of one name in two places get
their place behind it. Refuses what a request could not be built of right.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from moorage_gateway.openapi.schemas import SchemaError, Schemas

In = Literal["path", "query", "header"]
LONGEST_TEXT = 4096
MOST_PARAMETERS = 64
LONGEST_NAME = 256
MOST_TYPES = 64
"""Of one body."""
BODY = "body"
JSON, FORM = "application/json", "application/x-www-form-urlencoded"
_TEMPLATE = re.compile(r"\{([^{}]+)\}")
_HEADER = re.compile(r"[A-Za-z0-9-]{1,64}\Z")
# The gateway's to set, or a connection's.
_NOT_FOR_ARGUMENTS = frozenset(
    "authorization proxy-authorization cookie host connection content-length content-type transfer-encoding te trailer upgrade accept "
    "accept-encoding expect forwarded user-agent x-forwarded-for x-forwarded-host x-forwarded-proto".split()
)


@dataclass(frozen=True)
class Place:
    """Where an argument goes: its name on the wire, and whether a list is repeated (`a=1&a=2`) or joined (`a=1,2`)."""

    where: In
    wire: str
    required: bool
    repeated: bool


@dataclass(frozen=True)
class Operation:
    """A tool. `arguments`: by the name a model gives; `body`: the body's content type, None without one."""

    name: str
    description: str
    schema: dict[str, Any]
    method: str
    path: str
    arguments: dict[str, Place]
    body: str | None
    body_required: bool

    @property
    def definition(self) -> dict[str, Any]:
        """As MCP lists it."""
        return {"name": self.name, "description": self.description, "inputSchema": self.schema}


def operation(
    schemas: Schemas, name: str, method: str, path: str, shared: Iterable[Any], described: Mapping[str, Any]
) -> Operation:
    """The operation; `shared` are the parameters of its path. Raises SchemaError with the reason why it is none."""
    given: dict[tuple[str, str], dict[str, Any]] = {}
    listed = [*shared, *_list(described.get("parameters"))]
    if len(listed) > MOST_PARAMETERS:
        raise SchemaError(f"has more than {MOST_PARAMETERS} parameters")
    for each in listed:
        parameter = schemas.found(each)
        wire, where = str(parameter.get("name")), str(parameter.get("in"))
        if len(wire) > LONGEST_NAME:
            raise SchemaError(f"has a parameter whose name is longer than {LONGEST_NAME} characters")
        given[(wire, where)] = parameter
    arguments: dict[str, Place] = {}
    properties: dict[str, Any] = {}
    names = [wire for wire, _ in given]
    for (wire, where), parameter in given.items():
        if (where, wire.lower() if where == "header" else wire) in schemas.reserved:
            continue
        place = _place(wire, where, parameter)
        if place is None:
            continue
        shown = wire if names.count(wire) == 1 and wire != BODY else f"{wire}_{where}"
        arguments[shown] = place
        properties[shown] = _of_parameter(schemas, parameter)
    missing = set(_TEMPLATE.findall(path)) ^ {place.wire for place in arguments.values() if place.where == "path"}
    if missing:
        raise SchemaError(f"and its path disagree about the parameters {', '.join(sorted(missing))[:120]}")
    body, needed = _body(schemas, described.get("requestBody"), properties)
    required = [shown for shown, place in arguments.items() if place.required] + ([BODY] if needed else [])
    schema = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    text = "\n\n".join(str(described[each]).strip() for each in ("summary", "description") if described.get(each))
    return Operation(name, text[:LONGEST_TEXT], schema, method.upper(), path, arguments, body, needed)


def _place(wire: str, where: str, parameter: Mapping[str, Any]) -> Place | None:
    """None for an optional parameter that is left out."""
    needed = parameter.get("required") is True
    style = parameter.get("style") or ("form" if where == "query" else "simple")
    if where == "header" and (wire.lower() in _NOT_FOR_ARGUMENTS or _HEADER.match(wire) is None):
        return None  # named so, it is none by OpenAPI's own word, or the gateway sets it
    fit = (where in ("path", "header") and style == "simple") or (where == "query" and style == "form")
    if not fit or "content" in parameter:
        if needed:
            raise SchemaError(f"needs {wire[:64]!r} in {where[:16]} as {style!s:.16}, which cannot be told")
        return None
    if where == "path":
        return Place("path", wire, True, False)
    explode = parameter.get("explode", where == "query") is not False
    return Place("query" if where == "query" else "header", wire, needed, where == "query" and explode)


def _of_parameter(schemas: Schemas, parameter: Mapping[str, Any]) -> dict[str, Any]:
    schema = schemas.plain(parameter.get("schema", {}))
    if parameter.get("description") and "description" not in schema:
        schema["description"] = str(parameter["description"])[:LONGEST_TEXT]
    return schema


def _body(schemas: Schemas, described: Any, properties: dict[str, Any]) -> tuple[str | None, bool]:
    if described is None:
        return None, False
    found = schemas.found(described)
    content, needed = found.get("content"), found.get("required") is True
    if isinstance(content, Mapping) and len(content) > MOST_TYPES:
        raise SchemaError(f"has a body of more than {MOST_TYPES} types")
    for kind in (JSON, FORM):
        media = next((of for name, of in _items(content) if name.partition(";")[0].strip().lower() == kind), None)
        if media is not None:
            properties[BODY] = schemas.plain(media.get("schema", {}) if isinstance(media, Mapping) else {})
            return kind, needed
    if needed:
        raise SchemaError(
            f"needs a body of {', '.join(name for name, _ in _items(content))[:120] or 'no type'}, not of JSON"
        )
    return None, False


def _items(value: Any) -> list[tuple[str, Any]]:
    return [(str(name), each) for name, each in value.items()] if isinstance(value, Mapping) else []


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
