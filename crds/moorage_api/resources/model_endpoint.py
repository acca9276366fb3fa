"""ModelEndpoint as a custom resource: columns, status, and the rules that its schema alone cannot say. Layer: the floor; values only."""

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
        Rule(
            (),
            f"self.metadata.name.size() <= {MAX_NAME} && self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
            "metadata.name is lower-case letters, digits and -, at most 63, like openai",
        ),
        Rule(
            ("spec",),
            "self.baseUrl.matches('^https?://[^@?#]*$')",
            "baseUrl is an http(s) URL without a user, a password, a query or a fragment; the key goes under credential",
        ),
    ),
    status=_STATUS,
    more={("spec", "models"): {"x-kubernetes-list-type": "set"}},
)
