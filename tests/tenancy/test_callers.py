"""Who a caller is and what its key allows: scopes on every route, keys for some agents, revoked keys, nobody (T18, T19)."""

from __future__ import annotations

from typing import Any

import pytest

from fakes.http_door import HttpDoor
from fakes.platform import poll
from fakes.tenancy_calls import FORMS, UNKNOWN_RESPONSE, body_of, calls
from moorage_gateway.auth import SCOPES

pytestmark = pytest.mark.tenancy

# What each route needs beside a valid key. Data routes need `invoke`.
NEEDS = {
    ("PUT", "/v1/agents/shapes"): "deploy",
    ("DELETE", "/v1/agents/nothing"): "deploy",
    ("POST", "/v1/agents/shapes/bundles"): "deploy",
    ("HEAD", f"/v1/bundles/uploads/{'0' * 32}"): "deploy",
    ("PATCH", f"/v1/bundles/uploads/{'0' * 32}"): "deploy",
    ("GET", "/v1/agents/shapes/logs?tail=1"): "operator",
    ("GET", "/v1/toolboxes"): "operator",
    ("GET", "/v1/toolboxes/shapes/tools"): "operator",
    ("POST", "/v1/toolboxes/shapes/call"): "operator",
    ("GET", "/v1/oauth/consents?all=true"): "operator",
    ("GET", "/v1/oauth/consents?user=someone"): "operator",
    ("DELETE", "/v1/oauth/consents/shapes/one?user=someone"): "operator",
    ("GET", "/v1/audit?limit=1"): "operator",
    ("GET", "/v1/audit/verify"): "admin",
    ("GET", "/v1/keys"): "admin",
    ("POST", "/v1/keys"): "admin",
    ("GET", f"/v1/keys/{'0' * 16}"): "admin",
    ("DELETE", f"/v1/keys/{'0' * 16}"): "admin",
    ("POST", "/v1/sessions"): "invoke",
    ("POST", "/v1/agents/shapes/sessions"): "invoke",
    ("POST", "/v1/sessions/unknown-session/stop"): "invoke",
    ("DELETE", "/v1/sessions/unknown-session"): "invoke",
    ("POST", "/v1/agents/shapes/responses"): "invoke",
    ("POST", "/v1/agents/shapes/openai/responses"): "invoke",
    ("POST", "/v1/responses"): "invoke",
    ("POST", "/v1/agents/shapes/invocations/x"): "invoke",
    ("GET", f"/v1/responses/{UNKNOWN_RESPONSE}"): "invoke",
}
BODIES = {
    "/v1/toolboxes/shapes/call": {"tool": "nothing"},
    "/v1/sessions": {"agent": "shapes"},
    "/v1/responses": {"model": "shapes", "input": "hello"},
    "/v1/agents/shapes/responses": {"input": "hello"},
    "/v1/agents/shapes/openai/responses": {"input": "hello"},
}


@pytest.mark.parametrize("scope", sorted(SCOPES))
def test_a_key_does_what_its_scope_says_and_nothing_else(world: Any, scope: str) -> None:
    door = world.joins(f"only {scope}", user="ann", scopes=[scope])
    for (method, path), needed in NEEDS.items():
        headers = {"upload-offset": "0"} if method == "PATCH" else {}
        answer = door.ask(method, path, BODIES.get(path), headers=headers)
        if scope in (needed, "admin"):
            assert answer.status not in (401, 403), (method, path, answer.raw)
        else:
            assert answer.status == 403, (method, path, answer.raw)
            if method != "HEAD":
                assert needed in answer.error["message"], "it names the scope that is missing"


def test_sandbox_details_are_for_operators(world: Any) -> None:
    session = world.ids["session"]
    world.joins("plain", user="ann", scopes=["invoke"])
    seen = world.door("plain").ask("GET", f"/v1/sessions/{session}").body
    assert seen["sandbox"] is None
    listed = world.door("plain").ask("GET", "/v1/sessions").body["data"]
    assert listed and all(one["sandbox"] is None for one in listed)
    assert world.door("ann").ask("GET", f"/v1/sessions/{session}").body["sandbox"]["id"].startswith("sb-")


def test_a_key_for_some_agents_finds_no_other(world: Any) -> None:
    door = world.joins("narrow", user="ann", scopes=["invoke", "deploy", "operator", "admin"], agents=["paced"])
    for path in ("/v1/agents", "/v1/models"):
        assert {one["id"] for one in door.ask("GET", path).body["data"]} == {"paced"}
    toolboxes = door.ask("GET", "/v1/toolboxes")
    assert toolboxes.status == 403 and "bound to some agents" in toolboxes.error["message"]
    for method, path in (
        ("GET", "/v1/agents/shapes"),
        ("GET", "/v1/models/shapes"),
        ("DELETE", "/v1/agents/shapes"),
        ("GET", "/v1/agents/shapes/logs"),
        ("GET", "/v1/agents/shapes/sessions"),
        ("POST", "/v1/agents/shapes/sessions"),
        ("GET", f"/v1/agents/shapes/sessions/{world.ids['session']}"),
        ("GET", f"/v1/sessions/{world.ids['session']}"),
        ("POST", f"/v1/sessions/{world.ids['session']}/stop"),
        ("DELETE", f"/v1/sessions/{world.ids['session']}"),
        ("GET", f"/v1/sessions/{world.ids['session']}/logs"),
        ("POST", "/v1/agents/shapes/responses"),
        ("POST", "/v1/agents/shapes/invocations"),
    ):
        body = {"input": "hello"} if path.endswith("/responses") else None
        answer = door.ask(method, path, body)
        assert answer.status == 404, (method, path, answer.raw)
    for form in FORMS:
        for method, verb in calls():
            path = FORMS[form].format(agent="shapes") + f"/{world.ids['finished']}" + (f"/{verb}" if verb else "")
            assert door.ask(method, path, body_of(verb)).status == 404
    listed = door.ask("GET", "/v1/sessions").body["data"]
    assert all(one["agent"] == "paced" for one in listed)
    wider = door.ask("POST", "/v1/keys", {"user": "ann", "agents": ["shapes"]})
    assert wider.status == 403
    own = door.ask("POST", "/v1/keys", {"user": "ann"})
    assert own.body["agents"] == ["paced"], "a key without a list gets its maker's"


def test_a_revoked_key_is_refused_everywhere_within_five_seconds(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = world.platform.start_gateway()
    made = world.key(user="ann", scopes=["invoke"])
    doors = [HttpDoor(url, made["key"]) for url in (world.platform.url, gateway.url)]
    assert [door.ask("GET", "/v1/agents").status for door in doors] == [200, 200]
    assert world.door("admin").ask("DELETE", f"/v1/keys/{made['id']}").body["revoked_at"] > 0
    poll(
        "both gateways refuse it",
        lambda: all(door.ask("GET", "/v1/agents").status == 401 for door in doors),
        within=5.0,
    )
    for door in doors:
        answer = door.ask("POST", "/v1/agents/shapes/responses", {"input": "hello"})
        assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")
        door.close()
    gateway.kill()


BAD_KEYS = (
    "mk_",
    "mk_" + "0" * 16 + "_" + "0" * 64,
    "sk-anything",
    "x" * 600,
    "",
    "../../api_key",
    "é" * 10,
)


@pytest.mark.parametrize("scheme", ["Bearer ", "Basic ", "bearer", ""])
def test_a_wrong_key_is_a_401_that_says_what_to_send(world: Any, scheme: str) -> None:
    door = world.door("nobody")
    for text in BAD_KEYS:
        answer = door.ask("GET", "/v1/agents", headers={"authorization": f"{scheme}{text}"})
        assert (answer.status, answer.error["code"]) == (401, "invalid_api_key"), text
        assert "api-key: KEY" in answer.error["message"]
    assert door.ask("GET", "/v1/agents", headers={"api-key": "mk_nothing"}).status == 401


def test_a_right_key_beside_a_wrong_one_is_refused(world: Any) -> None:
    headers = {"authorization": f"Bearer {world.platform.api_key}", "api-key": "mk_other"}
    assert world.door("nobody").ask("GET", "/v1/agents", headers=headers).status == 401


def test_the_secret_of_a_right_key_id_is_compared(world: Any) -> None:
    good = world.key(user="ann", scopes=["invoke"])["key"]
    bad = good[:-1] + ("0" if good[-1] != "0" else "1")
    answer = world.door("nobody").ask("GET", "/v1/agents", headers={"authorization": f"Bearer {bad}"})
    assert answer.status == 401


def test_nobody_gets_in_anywhere(world: Any) -> None:
    """The platform on a laptop has keys too: without one every route is a 401, also for what does not exist."""
    door = world.door("nobody")
    paths = [path for _, path in NEEDS] + ["/v1/agents", "/v1/models", "/v1/openapi.json", "/v1/nothing", "/"]
    for form in FORMS.values():
        paths.append(form.format(agent="shapes"))
        paths.append(form.format(agent="shapes") + f"/{world.ids['finished']}")
    for path in paths:
        for method in ("GET", "POST", "DELETE"):
            answer = door.ask(method, path)
            assert (answer.status, answer.error["code"]) == (401, "invalid_api_key"), (method, path)
    assert door.ask("GET", "/healthz").status == 200


def test_anonymous_callers_of_a_dev_gateway_are_this_machines_programs_only(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOORAGE_DEV", "1")
    monkeypatch.setenv("MOORAGE_ANONYMOUS", "1")
    gateway = world.platform.start_gateway()
    door = HttpDoor(gateway.url)
    assert door.ask("GET", "/v1/agents").status == 200
    assert door.ask("GET", f"/v1/responses/{world.ids['finished']}").status == 404, "nobody is not ann"
    assert door.ask("GET", f"/v1/sessions/{world.ids['session']}").status == 404
    for headers in (
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"authorization": "Bearer mk_wrong"},
    ):
        assert door.ask("GET", "/v1/agents", headers=headers).status == 401, headers
    assert door.ask("GET", "/v1/agents", headers={"host": "rebound.example"}).status == 400
    door.close()
    gateway.kill()
