"""What is generated from the kinds says the same as the kinds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from moorage_api import schema
from moorage_api.kinds import HostedAgent

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[3]


def test_the_schema_has_no_references_and_refuses_unknown_fields() -> None:
    text = json.dumps(schema.json_schema("HostedAgent"))
    assert "$ref" not in text and "$defs" not in text
    assert schema.json_schema("HostedAgent")["properties"]["spec"]["additionalProperties"] is False


def test_every_field_of_the_manifest_has_a_description_on_the_page() -> None:
    page = schema.reference_page("HostedAgent")
    for row in (line for line in page.splitlines() if line.startswith("| `")):
        assert row.split("|")[-2].strip(), row
    for name in ("idleTimeout", "retryWorkspace", "ephemeralStorage", "runtimeClassName"):
        assert f"| `{name}` |" in page


def test_the_committed_files_are_the_generated_ones() -> None:
    for path, text in schema.generated().items():
        assert (ROOT / path).read_text(encoding="utf-8") == text, f"{path} is stale: run scripts/generate"


def test_fields_are_camel_case_in_the_schema() -> None:
    properties = schema.json_schema("HostedAgent")["properties"]["spec"]["properties"]
    assert "nodeSelector" in properties and "node_selector" not in properties
    assert set(properties) == {info.alias for info in _spec_fields()}


def _spec_fields() -> list[object]:
    annotation = HostedAgent.model_fields["spec"].annotation
    return list(annotation.model_fields.values())  # type: ignore[union-attr]
