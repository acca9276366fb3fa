"""Toolbox as a custom resource: columns, status, and the rules that its schema alone cannot say. Layer: the floor; values only."""

from __future__ import annotations

from moorage_api.resources.definition import STATUS, Column, Resource, Rule, named

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
        named("tickets"),
        Rule(
            ("spec", "upstreams", "[]"),
            "has(self.mcp) != has(self.agent)",
            "has either mcp (a server and its url) or agent (a hosted agent's name)",
        ),
        Rule(
            ("spec", "upstreams", "[]", "mcp"),
            "self.url.matches('^https?://[^@?#]*$')",
            "url is an http(s) URL without a user, a password, a query or a fragment; what opens the server goes under credential",
        ),
    ),
    status=STATUS,
    more={
        ("spec", "upstreams"): {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    },
)
