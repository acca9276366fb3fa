"""Routine as a custom resource: columns, status, and the rules that its schema alone cannot say. Layer: the floor; values only."""

from __future__ import annotations

from typing import Any

from moorage_api.resources.definition import CONDITIONS, GENERATION, Column, Resource, Rule, named

_FREE: dict[str, Any] = {
    "x-kubernetes-preserve-unknown-fields": True,
    "additionalProperties": None,
    "maxProperties": None,
}
"""JSON data of a person's own."""
_INSTANT: dict[str, Any] = {"type": "string", "format": "date-time"}
_INVOKES = "(has(self.protocol) && self.protocol == 'invocations')"
_ITEMS = "(has(self.items) && self.items.size() > 0)"

ROUTINE = Resource(
    kind="Routine",
    plural="routines",
    short=("rt",),
    columns=(
        Column("Agent", "string", ".spec.agent"),
        Column("Schedule", "string", ".status.schedule"),
        Column("Next", "string", ".status.nextRun"),  # of a date to come kubectl shows <invalid>, for it shows ages
        Column("Last", "string", ".status.lastOutcome"),
        Column("Failures", "integer", ".status.failures"),
        Column("Ready", "string", '.status.conditions[?(@.type=="Ready")].status'),
        Column("Age", "date", ".metadata.creationTimestamp"),
        Column("Reason", "string", '.status.conditions[?(@.type=="Ready")].message', priority=1),
    ),
    rules=(
        named("triage"),
        Rule(
            ("spec",),
            "[has(self.schedule), has(self.every), has(self.at)].filter(x, x).size() == 1",
            "exactly one of schedule, every and at is needed",
        ),
        Rule(
            ("spec",),
            f"{_INVOKES} || has(self.input) != {_ITEMS}",
            "exactly one of input and items is needed",
        ),
        Rule(
            ("spec",),
            f"!{_INVOKES} || !(has(self.input) || {_ITEMS})",
            "input and items are for protocol responses: with invocations write body",
        ),
        Rule(
            ("spec",),
            f"has(self.body) == {_INVOKES}",
            "body and protocol invocations belong together",
        ),
    ),
    status={
        "type": "object",
        "description": "Written by the operator.",
        "properties": {
            "observedGeneration": GENERATION,
            "conditions": CONDITIONS,
            "schedule": {"type": "string", "description": "When it is due, in short.", "maxLength": 512},
            "nextRun": _INSTANT,
            "lastRun": _INSTANT,
            "lastOutcome": {"type": "string", "maxLength": 64},
            "lastResponse": {"type": "string", "maxLength": 128},
            "failures": {"type": "integer", "description": "Failed runs in a row."},
        },
    },
    more={
        ("spec", "items", "[]"): _FREE,
        ("spec", "body"): _FREE,
        ("spec", "alerts"): {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    },
)
