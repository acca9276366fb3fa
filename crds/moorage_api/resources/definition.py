"""A CustomResourceDefinition from a kind's JSON schema. Layer: the floor; pure.

Kubernetes takes a *structural* schema only (https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/):
one type a node, no union with null (an absent field says the same), no `additionalProperties` beside `properties` (unknown fields are
pruned, and refused by clients that validate strictly). What a schema cannot say stands as CEL rules with messages a person can act on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from moorage_api import conditions
from moorage_api.kinds.agent import API_VERSION

GROUP, _, VERSION = API_VERSION.partition("/")
CATEGORY = "moorage"

# The quantities of kinds/quantities.py as patterns. Numbers are written without quotes too, hence int-or-string; a fraction needs quotes.
_QUANTITIES: Mapping[str, dict[str, Any]] = {
    "cpu": {"x-kubernetes-int-or-string": True, "pattern": r"^[0-9]{1,9}(\.[0-9]{1,3})?m?$"},
    "bytes": {"x-kubernetes-int-or-string": True, "pattern": r"^[0-9]{1,18}(\.[0-9]{1,9})?(Ki|Mi|Gi|Ti|Pi|k|K|M|G|T|P)?$"},
    "duration": {"type": "string", "maxLength": 64, "pattern": r"^([0-9]{1,9}(\.[0-9]{1,3})?(ms|s|m|h|d|w))+$"},
}  # fmt: skip
_KEPT = (
    "type", "description", "default", "enum", "format", "pattern", "minimum", "maximum", "minLength", "maxLength", "minItems",
    "maxItems", "required",
)  # fmt: skip
MAX_NAME = 63  # bytes of a label's value, which a name also becomes
MAX_PAIRS = 64
MAX_TEXT = 1024
"""Bound of a text or a mapping's key that names none of its own: rules over unbounded text cost more than an API server allows."""


_CONDITION: dict[str, Any] = {
    "type": "object",
    "required": ["type", "status", "reason", "message", "lastTransitionTime"],
    "properties": {
        "type": {"type": "string", "enum": list(conditions.ALL)},
        "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
        "reason": {"type": "string", "description": "One word for machines.", "maxLength": 128},
        "message": {"type": "string", "description": "What a person can do.", "maxLength": conditions.MESSAGE_LIMIT},
        "observedGeneration": {"type": "integer", "format": "int64"},
        "lastTransitionTime": {"type": "string", "format": "date-time"},
    },
}
CONDITIONS: dict[str, Any] = {
    "type": "array",
    "items": _CONDITION,
    "x-kubernetes-list-type": "map",
    "x-kubernetes-list-map-keys": ["type"],
}
"""`status.conditions` of every kind."""
GENERATION: dict[str, Any] = {
    "type": "integer",
    "format": "int64",
    "description": "The generation of the spec that this status is about.",
}
STATUS: dict[str, Any] = {
    "type": "object",
    "description": "Written by the operator.",
    "properties": {
        "observedGeneration": GENERATION,
        "conditions": CONDITIONS,
    },
}
"""Of a kind that is published and nothing more."""


@dataclass(frozen=True)
class Rule:
    """A CEL rule at a place of the schema. `at`: property names from the root, `[]` for the items of a list."""

    at: tuple[str, ...]
    rule: str
    message: str


def named(like: str) -> Rule:
    """The rule of every kind's names, with one as an example."""
    return Rule(
        (),
        f"self.metadata.name.size() <= {MAX_NAME} && self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
        f"metadata.name is lower-case letters, digits and -, at most 63, like {like}",
    )


@dataclass(frozen=True)
class Column:
    """A column of `kubectl get`."""

    name: str
    kind: str
    path: str
    priority: int = 0


@dataclass(frozen=True)
class Resource:
    """What a kind is to Kubernetes, beside its JSON schema. `more`: schema keys laid over a place, None takes one away."""

    kind: str
    plural: str
    short: Sequence[str]
    columns: Sequence[Column]
    rules: Sequence[Rule]
    status: Mapping[str, Any]
    more: Mapping[tuple[str, ...], Mapping[str, Any]] = field(default_factory=dict)

    @property
    def file(self) -> str:
        """Where the definition is written, from the repository's root."""
        return f"crds/{self.plural}.{GROUP}.yaml"


def custom_resource_definition(resource: Resource, schema: Mapping[str, Any]) -> dict[str, Any]:
    """The whole object, from `schema`, the kind's JSON schema without references. KeyError for a rule at no place."""
    kind = resource.kind
    root: dict[str, Any] = {
        "type": "object",
        "description": str(schema["description"]),
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": _structural(schema["properties"]["spec"]),
            "status": dict(resource.status),
        },
    }
    for place, keys in resource.more.items():
        node = _at(root, place)
        node.update(keys)
        for key in [key for key, value in keys.items() if value is None]:
            del node[key]
    for rule in resource.rules:
        _at(root, rule.at).setdefault("x-kubernetes-validations", []).append(
            {"rule": rule.rule, "message": rule.message}
        )
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{resource.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": resource.plural,
                "singular": kind.lower(),
                "shortNames": list(resource.short),
                "categories": [CATEGORY],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [_column(column) for column in resource.columns],
                    "schema": {"openAPIV3Schema": root},
                }
            ],
        },
    }


def _structural(node: Mapping[str, Any]) -> dict[str, Any]:
    node = _present(node)
    quantity = _QUANTITIES.get(str(node.get("x-quantity", "")))
    if quantity is not None:
        return {**{k: node[k] for k in ("description", "default") if node.get(k) is not None}, **quantity}
    found = {key: node[key] for key in _KEPT if key in node and not (key == "default" and node[key] is None)}
    if "const" in node:
        found["enum"] = [node["const"]]
    if "properties" in node:
        found["properties"] = {name: _property(inner) for name, inner in node["properties"].items()}
    elif found.get("type") == "object" and node.get("additionalProperties") is True:
        found["x-kubernetes-preserve-unknown-fields"] = True  # anything at all, as a document of somebody else's format
    elif found.get("type") == "object":
        found |= _mapping(node)
    elif found.get("type") == "array":
        found["items"] = _structural(node["items"])
    elif found.get("type") == "string" and "enum" not in found:
        found.setdefault("maxLength", MAX_TEXT)
    return found


def _mapping(node: Mapping[str, Any]) -> dict[str, Any]:
    """To lists as the kind has them, else to texts."""
    value = node.get("additionalProperties")
    if isinstance(value, Mapping) and value.get("type") == "array":
        return {"additionalProperties": _structural(value), "maxProperties": node["maxProperties"]}
    return {"additionalProperties": {"type": "string", "maxLength": MAX_TEXT}, "maxProperties": MAX_PAIRS}


def _property(node: Mapping[str, Any]) -> dict[str, Any]:
    found = _structural(node)
    if "anyOf" not in node and "properties" in found and "required" not in found:
        found["default"] = {}  # a part that is always there: so that what lies in it gets its own defaults
    return found


def _present(node: Mapping[str, Any]) -> dict[str, Any]:
    """The node when it is there: a union with null says only that it may be left out."""
    kinds = node.get("anyOf")
    if kinds is None:
        return dict(node)
    (inner,) = (kind for kind in kinds if kind.get("type") != "null")
    return {**inner, **{key: value for key, value in node.items() if key != "anyOf"}}


def _at(root: dict[str, Any], place: Sequence[str]) -> dict[str, Any]:
    node = root
    for step in place:
        node = node["items"] if step == "[]" else node["properties"][step]
    return node


def _column(column: Column) -> dict[str, Any]:
    found: dict[str, Any] = {"name": column.name, "type": column.kind, "jsonPath": column.path}
    return found | ({"priority": column.priority} if column.priority else {})
