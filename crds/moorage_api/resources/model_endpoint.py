"""ModelEndpoint as a custom resource: columns, status, and the rules that its schema alone cannot say. Layer: the floor; values only."""

from __future__ import annotations

from moorage_api.resources.definition import STATUS, Column, Resource, Rule, named

MODEL_ENDPOINT = Resource(
    kind="ModelEndpoint",
    plural="modelendpoints",
    short=("me", "mendpoint"),
    columns=(
        Column("Ready", "string", '.status.conditions[?(@.type=="Ready")].status'),
        Column("Protocol", "string", ".spec.protocol"),
        Column("Server", "string", ".spec.baseUrl"),
        Column("Age", "date", ".metadata.creationTimestamp"),
        Column("Reason", "string", '.status.conditions[?(@.type=="Ready")].message', priority=1),
    ),
    rules=(
        named("openai"),
        Rule(
            ("spec",),
            "self.baseUrl.matches('^https?://[^@?#]*$')",
            "baseUrl is an http(s) URL without a user, a password, a query or a fragment; the key goes under credential",
        ),
    ),
    status=STATUS,
    more={("spec", "models"): {"x-kubernetes-list-type": "set"}},
)
