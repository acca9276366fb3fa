"""Toolbox as a custom resource: columns, status, and the rules that its schema alone cannot say. Layer: the floor; values only."""

from __future__ import annotations

from moorage_api.resources.definition import STATUS, Column, Resource, Rule, named

UPSTREAM = ("spec", "upstreams", "[]")


def _place(part: str, field: str) -> Rule:
    """A URL that holds nothing but a place."""
    return Rule(
        (*UPSTREAM, part),
        f"!has(self.{field}) || self.{field}.matches('^https?://[^@?#]*$')",
        f"{field} is an http(s) URL without a user, a password, a query or a fragment; what opens the server goes under credential",
    )


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
            UPSTREAM,
            "[has(self.mcp), has(self.openapi), has(self.stdio), has(self.agent)].filter(x, x).size() == 1",
            "an upstream has exactly one of mcp, openapi, stdio and agent",
        ),
        Rule(
            UPSTREAM,
            "!has(self.stdio) || (!has(self.credential) && !has(self.oauth))",
            "what opens a program goes into its environment: stdio.env, with secret in place of value",
        ),
        Rule(
            (*UPSTREAM, "stdio", "env", "[]"),
            "has(self.value) != has(self.secret)",
            "a variable has either value or secret, and not both",
        ),
        Rule(UPSTREAM, "!has(self.credential) || !has(self.oauth)", "an upstream has either credential or oauth"),
        Rule(
            UPSTREAM,
            "!has(self.workloadIdentity) || (!has(self.credential) && !has(self.oauth) && !has(self.stdio) && !has(self.agent))",
            "workloadIdentity is for mcp and openapi, and in place of credential and oauth",
        ),
        Rule(
            UPSTREAM,
            "!has(self.credential) || !has(self.credential.query) || has(self.openapi)",
            "credential.query is for openapi: MCP servers are opened by a header",
        ),
        Rule((*UPSTREAM, "openapi"), "has(self.url) != has(self.document)", "openapi has either url or document"),
        _place("mcp", "url"),
        _place("openapi", "server"),
        _place("openapi", "url"),
        _place("oauth", "tokenUrl"),
        _place("workloadIdentity", "tokenUrl"),
    ),
    status=STATUS,
    more={
        ("spec", "upstreams"): {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        (*UPSTREAM, "stdio", "env"): {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    },
)
