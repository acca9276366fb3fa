"""Each kind's CustomResourceDefinition is one that an API server takes, and says what the kind says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from moorage_api import schema
from moorage_api.kinds import HostedAgent
from moorage_api.resources import HOSTED_AGENT, RESOURCES, Resource, Rule, custom_resource_definition

pytestmark = pytest.mark.unit


def made(resource: Resource = HOSTED_AGENT) -> dict[str, Any]:
    """The schema of its one version."""
    definition = custom_resource_definition(resource, schema.json_schema(resource.kind))
    (version,) = definition["spec"]["versions"]
    return dict(version["schema"]["openAPIV3Schema"])


def nodes(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every place of a schema."""
    yield path, node
    for name, inner in node.get("properties", {}).items():
        yield from nodes(inner, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), dict):
            yield from nodes(node[key], f"{path}[]")


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda resource: resource.kind)
def test_the_schema_is_structural(resource: Resource) -> None:
    for path, node in nodes(made(resource)):
        assert "type" in node or node.get("x-kubernetes-int-or-string") is True, path
        assert not {"anyOf", "oneOf", "allOf", "$ref", "const", "title", "x-quantity"} & set(node), path
        assert not ("properties" in node and "additionalProperties" in node), path
        assert "default" not in node or node["default"] is not None, path


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda resource: resource.kind)
def test_whatever_a_person_may_write_is_bounded(resource: Resource) -> None:
    """A rule's cost is reckoned from the bounds; without them an API server refuses the definition."""
    for path, node in nodes(made(resource)["properties"]["spec"]):
        if node.get("type") == "string":
            assert "maxLength" in node or "enum" in node, path
        if node.get("type") == "array":
            assert "maxItems" in node, path
        if node.get("type") == "object" and "additionalProperties" in node:
            assert "maxProperties" in node, path


def test_every_field_is_there_with_its_description() -> None:
    spec = made()["properties"]["spec"]["properties"]
    model = HostedAgent.model_fields["spec"].annotation
    assert model is not None
    assert set(spec) == {info.alias for info in model.model_fields.values()}
    places = nodes({"type": "object", "properties": spec})
    assert [path for path, node in places if path and not path.endswith("[]") and not node.get("description")] == []


def test_parts_that_are_always_there_get_their_own_defaults() -> None:
    spec = made()["properties"]["spec"]["properties"]
    assert spec["session"]["default"] == {} and spec["session"]["properties"]["idleTimeout"]["default"] == "15m"
    assert "default" not in spec["source"], "a part that may be missing must stay missing"


def test_a_rule_at_no_place_is_a_mistake() -> None:
    wrong = Resource("HostedAgent", "hostedagents", (), (), (Rule(("spec", "poool"), "true", ""),), {"type": "object"})
    with pytest.raises(KeyError):
        custom_resource_definition(wrong, schema.json_schema("HostedAgent"))
