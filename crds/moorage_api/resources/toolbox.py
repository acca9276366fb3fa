"""Toolbox as a custom resource: columns, status, and the rules that its schema alone cannot say. Layer: the floor; values only."""

from __future__ import annotations

from typing import Any

from moorage_api.resources.definition import CONDITIONS, GENERATION, MAX_NAME, Column, Resource, Rule

_STATUS: dict[str, Any] = {
    "type": "object",
    "description": "Written by the operator.",
    "properties": {
        "observedGeneration": GENERATION,
        "conditions": CONDITIONS,
    },
}

TOOLBOX = Resource(
    kind="Toolbox",
    plural="toolboxes",
    short=("tb",),
    columns=(
        Column("Ready", "string", '.status.conditions[?(@.type=="Ready")].status'),
        Column("Server", "string", ".spec.upstreams[0].mcp.url"),
        Column("Age", "date", ".metadata.creationTimestamp"),
        Column("Reason", "string", '.status.conditions[?(@.type=="Ready")].message', priority=1),
    ),
    rules=(
        Rule(
            (),
            f"self.metadata.name.size() <= {MAX_NAME} && self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
            "metadata.name is lower-case letters, digits and -, at most 63, like tickets",
        ),
        Rule(
            ("spec", "upstreams", "[]", "mcp"),
            "self.url.matches('^https?://[^@?#]*$')",
            "url is an http(s) URL without a user, a password, a query or a fragment; what opens the server goes under credential",
        ),
    ),
    status=_STATUS,
    more={
        ("spec", "upstreams"): {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    },
)
