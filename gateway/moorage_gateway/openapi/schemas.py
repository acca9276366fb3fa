"""Schemas of an OpenAPI document as JSON schemas that stand alone: local references put in, bounded. Layer: pure.

Raises SchemaError for a reference that leads nowhere or out of the document, and for what grows too large.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import orjson

MOST_NODES = 4000
"""Objects of one operation's schemas, references put in."""
MOST_IN_ALL = 100_000
"""The same of all operations of a document."""
MOST_BYTES = 128 * 1024
"""Of one operation's schemas as JSON, as near as counting what is taken over comes to it."""
MOST_LOOKS = 300_000
"""At objects of a document, following references: what is small may be referred to often."""
MOST_FIELDS = 256
"""Of one schema, parameter or body."""
MOST_STEPS = 16
LONGEST_REFERENCE = 1024
DEEPEST = 24
_KEPT = frozenset(
    "type format enum const default description title properties required items additionalProperties oneOf anyOf allOf not minimum "
    "maximum exclusiveMinimum exclusiveMaximum multipleOf minLength maxLength pattern minItems maxItems uniqueItems minProperties "
    "maxProperties".split()
)
T = TypeVar("T")
_MANY = frozenset({"oneOf", "anyOf", "allOf"})


class SchemaError(ValueError):
    """What is wrong with a schema, as a clause."""


Reserved = frozenset[tuple[str, str]]
"""Parameters that are somebody else's to fill in, by place (`header`, `query`) and name, headers in lower case."""
NOTHING: Reserved = frozenset()


@dataclass
class Budget:
    """What the rest of a document may cost. `left`: objects of schemas; `sizes`: of what stands in the document, by identity."""

    left: int = MOST_IN_ALL
    looks: int = MOST_LOOKS
    sizes: dict[int, int] = field(default_factory=dict)

    def size(self, value: Any) -> int:
        """Bytes of a part of the document as JSON."""
        if isinstance(value, str):
            return len(value)
        if not isinstance(value, list | Mapping):
            return 8
        known = self.sizes.get(id(value))
        if known is None:
            known = self.sizes[id(value)] = len(orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS))
        return known

    def look(self) -> None:
        """One look at an object. Raises SchemaError."""
        self.looks -= 1
        if self.looks < 0:
            raise SchemaError(f"has no place left: the document needs more than {MOST_LOOKS} looks at its parts")


class Schemas:
    """Makes schemas of one operation; counts what they hold together."""

    def __init__(self, document: Mapping[str, Any], budget: Budget, reserved: Reserved = NOTHING) -> None:
        self._document = document
        self._budget = budget
        self._left = MOST_NODES
        self._bytes = MOST_BYTES
        self.reserved = reserved

    def found(self, node: Any) -> dict[str, Any]:
        """The object that stands there, or that its reference leads to."""
        seen: set[str] = set()
        self._budget.look()
        while isinstance(node, Mapping) and "$ref" in node:
            reference = node["$ref"]
            if not isinstance(reference, str) or not reference.startswith("#/") or len(reference) > LONGEST_REFERENCE:
                raise SchemaError(f"refers to {str(reference)[:80]!r}, which is not in this document")
            if reference in seen:
                raise SchemaError(f"refers to itself by {reference[:80]!r}")
            seen.add(reference)
            self._budget.look()
            node, steps = self._document, reference[2:].split("/")
            if len(steps) > MOST_STEPS:
                raise SchemaError(f"refers to {reference[:80]!r}, which leads nowhere")
            for step in steps:
                step = step.replace("~1", "/").replace("~0", "~")
                if not isinstance(node, Mapping) or step not in node:
                    raise SchemaError(f"refers to {reference[:80]!r}, which leads nowhere")
                node = node[step]
        if not isinstance(node, Mapping):
            raise SchemaError("is not an object where one must be")
        if len(node) > MOST_FIELDS:
            raise SchemaError(f"has an object of more than {MOST_FIELDS} fields")
        return dict(node)

    def plain(self, node: Any, within: tuple[int, ...] = ()) -> dict[str, Any]:
        """The schema with nothing outside of it; one that holds itself ends as any object."""
        self._left -= 1
        self._budget.left -= 1
        if self._budget.left < 0:
            raise SchemaError(f"has no place left: the document's schemas have more than {MOST_IN_ALL} objects in all")
        if self._left < 0 or len(within) > DEEPEST:
            raise SchemaError(f"has schemas of more than {MOST_NODES} objects, or {DEEPEST} deep")
        if node is True or node == {}:
            return {}
        schema = self.found(node)
        mark = id(self._target(node))
        if mark in within:
            return {"type": "object"}
        inner = (*within, mark)
        kept: dict[str, Any] = {}
        for name, value in schema.items():
            if name == "properties" and isinstance(value, Mapping):
                kept[name] = {
                    self._counted(str(each)): self.plain(of, inner) for each, of in value.items() if not _only_read(of)
                }
            elif name in _MANY and isinstance(value, list):
                kept[name] = [self.plain(each, inner) for each in value]
            elif name in ("items", "not") or (name == "additionalProperties" and not isinstance(value, bool)):
                kept[name] = self.plain(value, inner)
            elif name in _KEPT and name not in _MANY and name != "properties":  # which hold schemas, or are none
                kept[name] = self._counted(value)
        if "required" in kept and "properties" in kept and isinstance(kept["required"], list):
            names = [each for each in kept["required"] if isinstance(each, str)]
            kept["required"] = [each for each in names if each in kept["properties"]]
        if schema.get("nullable") is True and isinstance(kept.get("type"), str):
            kept["type"] = [kept["type"], "null"]
        return kept

    def _counted(self, value: T) -> T:
        """What is taken over as it stands. Raises SchemaError where that is too much."""
        self._bytes -= self._budget.size(value)
        if self._bytes < 0:
            raise SchemaError(f"has schemas of more than {MOST_BYTES // 1024} KiB")
        return value

    def _target(self, node: Any) -> Any:
        while isinstance(node, Mapping) and "$ref" in node:
            target: Any = self._document
            for step in node["$ref"][2:].split("/"):
                target = target[step.replace("~1", "/").replace("~0", "~")]
            node = target
        return node


def _only_read(schema: Any) -> bool:
    return isinstance(schema, Mapping) and schema.get("readOnly") is True
