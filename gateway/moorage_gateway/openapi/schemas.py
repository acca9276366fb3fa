"""Schemas of an OpenAPI document as JSON schemas that stand alone: local references put in, bounded. Layer: pure.

Raises SchemaError for a reference that leads nowhere or out of the document, and for what grows too large.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MOST_NODES = 4000
"""Objects of one operation's schemas, references put in."""
MOST_IN_ALL = 100_000
"""The same of all operations of a document."""
LONGEST_REFERENCE = 1024
DEEPEST = 24
_KEPT = frozenset(
    "type format enum const default description title properties required items additionalProperties oneOf anyOf allOf not minimum "
    "maximum exclusiveMinimum exclusiveMaximum multipleOf minLength maxLength pattern minItems maxItems uniqueItems minProperties "
    "maxProperties".split()
)
_MANY = frozenset({"oneOf", "anyOf", "allOf"})


class SchemaError(ValueError):
    """What is wrong with a schema, as a clause."""


Reserved = frozenset[tuple[str, str]]
"""Parameters that are somebody else's to fill in, by place (`header`, `query`) and name, headers in lower case."""
NOTHING: Reserved = frozenset()


@dataclass
class Budget:
    """Objects that the rest of a document's schemas may have."""

    left: int = MOST_IN_ALL


class Schemas:
    """Makes schemas of one operation; counts what they hold together."""

    def __init__(self, document: Mapping[str, Any], budget: Budget, reserved: Reserved = NOTHING) -> None:
        self._document = document
        self._budget = budget
        self._left = MOST_NODES
        self.reserved = reserved

    def found(self, node: Any) -> dict[str, Any]:
        """The object that stands there, or that its reference leads to."""
        seen: set[str] = set()
        while isinstance(node, Mapping) and "$ref" in node:
            reference = node["$ref"]
            if not isinstance(reference, str) or not reference.startswith("#/") or len(reference) > LONGEST_REFERENCE:
                raise SchemaError(f"refers to {str(reference)[:80]!r}, which is not in this document")
            if reference in seen:
                raise SchemaError(f"refers to itself by {reference[:80]!r}")
            seen.add(reference)
            node = self._document
            for step in reference[2:].split("/"):
                step = step.replace("~1", "/").replace("~0", "~")
                if not isinstance(node, Mapping) or step not in node:
                    raise SchemaError(f"refers to {reference[:80]!r}, which leads nowhere")
                node = node[step]
        if not isinstance(node, Mapping):
            raise SchemaError("is not an object where one must be")
        return dict(node)

    def plain(self, node: Any, within: tuple[int, ...] = ()) -> dict[str, Any]:
        """The schema with nothing outside of it; one that holds itself ends as any object."""
        if node is True or node == {}:
            return {}
        self._left -= 1
        self._budget.left -= 1
        if self._budget.left < 0:
            raise SchemaError(f"has no place left: the document's schemas have more than {MOST_IN_ALL} objects in all")
        if self._left < 0 or len(within) > DEEPEST:
            raise SchemaError(f"has schemas of more than {MOST_NODES} objects, or {DEEPEST} deep")
        schema = self.found(node)
        mark = id(self._target(node))
        if mark in within:
            return {"type": "object"}
        inner = (*within, mark)
        kept: dict[str, Any] = {}
        for name, value in schema.items():
            if name == "properties" and isinstance(value, Mapping):
                kept[name] = {str(each): self.plain(of, inner) for each, of in value.items() if not _only_read(of)}
            elif name in _MANY and isinstance(value, list):
                kept[name] = [self.plain(each, inner) for each in value]
            elif name in ("items", "not") or (name == "additionalProperties" and not isinstance(value, bool)):
                kept[name] = self.plain(value, inner)
            elif name in _KEPT and name not in _MANY and name != "properties":  # which hold schemas, or are none
                kept[name] = value
        if "required" in kept and "properties" in kept and isinstance(kept["required"], list):
            names = [each for each in kept["required"] if isinstance(each, str)]
            kept["required"] = [each for each in names if each in kept["properties"]]
        if schema.get("nullable") is True and isinstance(kept.get("type"), str):
            kept["type"] = [kept["type"], "null"]
        return kept

    def _target(self, node: Any) -> Any:
        while isinstance(node, Mapping) and "$ref" in node:
            target: Any = self._document
            for step in node["$ref"][2:].split("/"):
                target = target[step.replace("~1", "/").replace("~0", "~")]
            node = target
        return node


def _only_read(schema: Any) -> bool:
    return isinstance(schema, Mapping) and schema.get("readOnly") is True
