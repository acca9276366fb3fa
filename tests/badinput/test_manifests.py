"""A manifest with a mistake: the message names the field and the nearest right one, and every other agent goes on."""

from __future__ import annotations

from typing import Any

import pytest

from fakes import bundling
from fakes.platform import AGENTS, poll

pytestmark = pytest.mark.journey

SPEC: dict[str, Any] = {"source": {"bundle": "sha256:" + "0" * 64}}

MISTAKES: dict[str, tuple[dict[str, Any], str, str]] = {
    "a misspelt field": ({"spec": {**SPEC, "sesion": {}}}, "spec.sesion", "did you mean session?"),
    "a misspelt field below": (
        {"spec": {**SPEC, "session": {"idleTimout": "5m"}}},
        "spec.session.idleTimout",
        "idleTimeout",
    ),
    "snake case": ({"spec": {**SPEC, "turn": {"max_attempts": 2}}}, "spec.turn.max_attempts", "maxAttempts"),
    "a field at the wrong place": ({"spec": {**SPEC, "idleTimeout": "5m"}}, "spec.idleTimeout", "session.idleTimeout"),
    "a wrong unit": ({"spec": {**SPEC, "resources": {"memory": "lots"}}}, "spec.resources.memory", ""),
    "a wrong type": ({"spec": {**SPEC, "pool": {"min": "two"}}}, "spec.pool.min", ""),
    "a negative number": ({"spec": {**SPEC, "pool": {"min": -1}}}, "spec.pool.min", ""),
    "two that contradict": (
        {"spec": {**SPEC, "pool": {"min": 5, "max": 1}}},
        "spec.pool",
        "min (5) is more than max (1)",
    ),
    "no source": ({"spec": {}}, "spec", "exactly one of image and source"),
    "no spec": ({"spec": None}, "spec", ""),
    "a list for a map": ({"spec": []}, "spec", "mapping"),
    "isolation off": (
        {"spec": {**SPEC, "session": {"isolation": "none"}}},
        "spec.session.isolation",
        "cannot be turned off",
    ),
    "a secret": (
        {"spec": {**SPEC, "env": [{"name": "A", "value": "AKIA" + "Q" * 16}]}},
        "spec.env[0].value",
        "looks like",
    ),
    "a reserved variable": (
        {"spec": {**SPEC, "env": [{"name": "PORT", "value": "1"}]}},
        "spec.env[0].name",
        "platform",
    ),
    "a host with a scheme": ({"spec": {**SPEC, "egress": ["https://a.example"]}}, "spec.egress[0]", "without a scheme"),
    "another kind": ({"kind": "Agent"}, "kind", "HostedAgent"),
    "another version": ({"apiVersion": "v2"}, "apiVersion", "moorage.dev/v1alpha1"),
    "a bad name": ({"metadata": {"name": "Not A Name"}}, "metadata.name", "lower-case"),
    "another name": ({"metadata": {"name": "other"}}, "metadata.name", "make them equal"),
    "a folder of the platform": ({"spec": {"source": {"path": "/etc"}}}, "spec.source.path", "moorage up"),
    "a file URL": ({"spec": {"source": {"git": {"url": "file:///etc"}}}}, "spec.source.git.url", "https"),
    "a mount": ({"spec": {**SPEC, "mounts": [{"path": "/etc", "mount": "/x"}]}}, "spec.mounts", "moorage dev"),
    "a bundle that is not there": ({"spec": SPEC}, "spec.source.bundle", "moorage up"),
}


@pytest.mark.parametrize(("change", "field", "words"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_refused_with_its_field_and_what_to_do(
    world: Any, change: dict[str, Any], field: str, words: str
) -> None:
    manifest = {"apiVersion": bundling.API, "kind": "HostedAgent", "metadata": {"name": "wrong"}, "spec": SPEC} | change
    answer = world.door.ask("PUT", "/v1/agents/wrong", manifest)
    assert answer.status == 422, answer.raw
    assert answer.error["param"] == field
    assert words in answer.error["message"], answer.error["message"]
    assert world.door.ask("GET", "/v1/agents/wrong").status == 404, "nothing of it was taken"


def test_the_value_of_a_secret_is_not_repeated(world: Any) -> None:
    secret = "ghp_" + "x1Y2" * 9
    spec = {**SPEC, "env": [{"name": "TOKEN", "value": secret}], "unknown": secret}
    body = {"apiVersion": bundling.API, "kind": "HostedAgent", "metadata": {"name": "wrong"}, "spec": spec}
    answer = world.door.ask("PUT", "/v1/agents/wrong", body)
    assert answer.status == 422
    assert secret not in answer.raw.decode()


def test_broken_manifests_of_the_folder_are_named_and_hide_no_other_agent(world: Any) -> None:
    said = world.platform.log.read_text()
    assert "misspelt/agent.yaml: spec.sesion: is not a field here; did you mean session?" in said
    assert "misspelt-below/agent.yaml: spec.resources.memroy: is not a field here; did you mean memory?" in said
    assert "not-yaml/agent.yaml: is not YAML: line 2" in said
    for name in ("paced", "shapes"):
        assert world.door.ask("POST", f"/v1/agents/{name}/responses", {"input": "1 0"}).body["status"] == "completed"


def test_a_broken_edit_leaves_the_agent_as_it_was(world: Any) -> None:
    file = world.folder / "shapes" / "agent.yaml"
    good = file.read_text()
    file.write_text(good + "  polo: {min: 1}\n")
    said = "shapes/agent.yaml: spec.polo: is not a field here; did you mean pool?"
    poll("the terminal says so", lambda: said in world.platform.log.read_text(), within=20)
    assert world.door.ask("POST", "/v1/agents/shapes/responses", {"input": "hello"}).body["status"] == "completed"
    file.write_text(good)


def test_what_only_running_it_shows_is_a_condition_of_the_agent(world: Any) -> None:
    """A requirements file that is named and not there, code without an entry, a program that is wrong in its flags."""
    reason, message = _source(world, "no-requirements", {"requirements": "absent.txt"})
    assert "spec.source.requirements" in message and "absent.txt" in message, (reason, message)
    for name in ("paced", "shapes"):
        assert world.door.ask("GET", f"/v1/agents/{name}").body["ready"] is True


def _source(world: Any, name: str, source: dict[str, Any]) -> tuple[str, str]:
    data = bundling.packed(AGENTS / "paced")
    bundling.upload(world.door, name, data)
    made = world.door.ask("PUT", f"/v1/agents/{name}", bundling.manifest(name, data, source=source))
    if made.status == 200:
        return bundling.broken(world.door, name)
    assert made.status == 422, made.raw
    reason, message = bundling.broken(world.door, name)
    assert made.error["message"] in message or message in made.error["message"]
    return reason, message
