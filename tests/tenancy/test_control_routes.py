"""Every route of the OpenAPI document × the ids of somebody else: 404, or an answer without them; and who may call it at all (T1, S1).

The routes come from the running platform. A new one fails `test_every_route_is_judged` until it has its row here.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import pytest

from fakes.tenancy_calls import ATTACKERS

pytestmark = pytest.mark.tenancy

SECRET = "the-victims-secret-5c1e"  # as in conftest.py
CONVERSATION = "conv_victims_conversation_1"


@dataclass(frozen=True)
class Row:
    """What a route owes. `tenant`: its object belongs to the tenant, so another user of it may see it. `scope`: of the key.

    foreign  | the answer to another's id
    ---------|-----------------------------------------------------------------
    "404"    | 404
    "list"   | 200, without anything of the other
    "own"    | makes or finds the caller's own: the other's is untouched
    """

    foreign: str
    scope: str | None = None
    tenant: bool = False
    body: dict[str, Any] | None = None


MANIFEST = {
    "apiVersion": "moorage.dev/v1alpha1",
    "kind": "HostedAgent",
    "metadata": {"name": "shapes"},
    "spec": {"source": {"bundle": "sha256:DIGEST"}},
}
ROUTINE = {
    "apiVersion": "moorage.dev/v1alpha1",
    "kind": "Routine",
    "metadata": {"name": "shapes"},
    "spec": {"agent": "shapes", "schedule": "0 0 1 1 *", "input": "x"},
}
UPLOAD = {"digest": "DIGEST", "size": 1}

ROUTES: dict[str, Row] = {
    "GET /v1/agents": Row("list"),
    "GET /v1/agents/{name}": Row("404", tenant=True),
    "PUT /v1/agents/{name}": Row("own", "deploy", tenant=True, body=MANIFEST),
    "DELETE /v1/agents/{name}": Row("404", "deploy", tenant=True),
    "GET /v1/agents/{name}/logs": Row("404", "operator", tenant=True),
    "GET /v1/models": Row("list"),
    "GET /v1/models/{name}": Row("404", tenant=True),
    "POST /v1/agents/{name}/bundles": Row("own", "deploy", tenant=True, body=UPLOAD),
    "HEAD /v1/bundles/uploads/{id}": Row("404", "deploy"),
    "PATCH /v1/bundles/uploads/{id}": Row("404", "deploy"),
    "GET /v1/sessions": Row("list"),
    "POST /v1/sessions": Row("own", "invoke", body={"agent": "shapes", "agent_session_id": "SESSION"}),
    "GET /v1/sessions/{id}": Row("404"),
    "DELETE /v1/sessions/{id}": Row("404", "invoke"),
    "POST /v1/sessions/{id}/stop": Row("404", "invoke"),
    "GET /v1/sessions/{id}/logs": Row("404"),
    "GET /v1/sessions/{id}/checkpoints": Row("404"),
    "POST /v1/sessions/{id}/checkpoints": Row("404", "invoke"),
    "POST /v1/sessions/{id}/restore": Row("404", "invoke", body={}),
    "POST /v1/sessions/{id}/fork": Row("404", "invoke", body={}),
    "GET /v1/agents/{name}/sessions": Row("list"),
    "POST /v1/agents/{name}/sessions": Row("own", "invoke", body={"agent_session_id": "SESSION"}),
    "GET /v1/agents/{name}/sessions/{id}": Row("404"),
    "DELETE /v1/agents/{name}/sessions/{id}": Row("404", "invoke"),
    "POST /v1/agents/{name}/sessions/{id}/stop": Row("404", "invoke"),
    "GET /v1/agents/{name}/sessions/{id}/logs": Row("404"),
    "GET /v1/keys": Row("list", "admin", tenant=True),
    "POST /v1/keys": Row("own", "admin", tenant=True, body={"name": "mine"}),
    "GET /v1/keys/{id}": Row("404", "admin", tenant=True),
    "DELETE /v1/keys/{id}": Row("404", "admin", tenant=True),
    "GET /v1/routines": Row("list", "operator", tenant=True),
    "GET /v1/routines/{name}": Row("404", "operator", tenant=True),
    "PUT /v1/routines/{name}": Row("own", "operator", tenant=True, body=ROUTINE),
    "DELETE /v1/routines/{name}": Row("404", "operator", tenant=True),
    "GET /v1/routines/{name}/runs": Row("404", "operator", tenant=True),
    "POST /v1/routines/{name}/run": Row("404", "operator", tenant=True),
    "POST /v1/routines/{name}/cancel": Row("404", "operator", tenant=True),
    "POST /v1/routines/{name}/suspend": Row("404", "operator", tenant=True),
    "POST /v1/routines/{name}/resume": Row("404", "operator", tenant=True),
    "GET /v1/toolboxes": Row("list", "operator", tenant=True),
    "GET /v1/toolboxes/{name}/tools": Row("404", "operator", tenant=True),
    "POST /v1/toolboxes/{name}/call": Row("404", "operator", tenant=True, body={"tool": "x"}),
    "GET /v1/oauth/consents": Row("list"),
    "DELETE /v1/oauth/consents/{toolbox}/{upstream}": Row("404"),
    "GET /v1/audit": Row("list", "operator", tenant=True),
    "GET /v1/audit/verify": Row("list", "admin", tenant=True),
}
METHODS = ("get", "put", "post", "delete", "patch", "head")


def _filled(world: Any, value: Any) -> Any:
    """A body with the victim's ids in it."""
    if isinstance(value, dict):
        return {k: _filled(world, v) for k, v in value.items()}
    if not isinstance(value, str):
        return value
    return value.replace("DIGEST", world.ids["digest"]).replace("SESSION", world.ids["session"])


def _path(world: Any, route: str, *, agent: str = "shapes") -> str:
    path = route.partition(" ")[2].replace("{name}", agent)
    path = path.replace("{toolbox}/{upstream}", "shapes/one")
    for part, which in (("uploads", "upload"), ("sessions", "session"), ("keys", "key")):
        path = path.replace(f"{part}/{{id}}", f"{part}/{world.ids[which]}")
    assert "{" not in path, route
    return path


def _ask(world: Any, who: str, route: str, **more: Any) -> Any:
    method, row = route.partition(" ")[0], ROUTES[route]
    headers, raw = {}, None
    if method == "PATCH":
        headers, raw = {"upload-offset": "0", "content-type": "application/octet-stream"}, b"theirs"
    body = _filled(world, row.body)
    if route == "POST /v1/agents/{name}/bundles":
        body = body | {"size": int(world.ids["bundle size"])}
    return world.door(who).ask(method, _path(world, route, **more), body, headers=headers, raw=raw)


def test_every_route_is_judged(world: Any) -> None:
    document = world.door("ann").ask("GET", "/v1/openapi.json").body
    served = {f"{m.upper()} {path}" for path, item in document["paths"].items() for m in item if m in METHODS}
    assert served == set(ROUTES)


@pytest.mark.parametrize("route", [route for route, row in ROUTES.items() if row.foreign == "404"])
@pytest.mark.parametrize("attacker", ATTACKERS)
def test_a_foreign_object_is_a_404(world: Any, attacker: str, route: str) -> None:
    if ROUTES[route].tenant and attacker == "bob":
        attacker = "rival"  # it belongs to the tenant, and bob is of it
    answer = _ask(world, attacker, route)
    assert answer.status == 404, (route, answer.raw)
    if route.startswith("HEAD"):
        assert "upload-offset" not in answer.headers
        return
    assert answer.error["code"] == "not_found"


@pytest.mark.parametrize("route", [route for route, row in ROUTES.items() if row.foreign == "list"])
@pytest.mark.parametrize("attacker", ATTACKERS)
def test_a_listing_holds_nothing_of_others(world: Any, attacker: str, route: str) -> None:
    agent = "paced" if attacker == "rival" else "shapes"
    answer = _ask(world, attacker, route, agent=agent)
    assert answer.status == 200, answer.raw
    if ROUTES[route].tenant and attacker == "bob":
        return
    hidden = [world.ids[name] for name in ("session", "finished", "running", "upload")]
    if route == "GET /v1/audit":  # what the caller itself named in vain is in its own records
        assert {one["tenant"] for one in answer.body["data"]} <= {"rival"}
        return
    if attacker == "rival":
        hidden += [world.ids["key"], "shapes", '"dev"']
    for one in hidden:
        assert one not in answer.raw.decode(), (route, one)


def test_the_tenants_agents_are_apart_both_ways(world: Any) -> None:
    names = {
        who: {a["name"] for a in world.door(who).ask("GET", "/v1/agents").body["data"]} for who in ("ann", "rival")
    }
    assert names["rival"] == {"paced", "vault"} and "shapes" in names["ann"] and "vault" not in names["ann"]
    for path in ("/v1/agents/vault", "/v1/models/vault", "/v1/agents/vault/sessions", "/v1/agents/vault/logs"):
        assert world.door("ann").ask("GET", path).status == 404
    for address in ("/v1/agents/vault/responses", "/v1/agents/vault/openai/responses"):
        assert world.door("ann").ask("POST", address, {"input": "x"}).status == 404
    assert world.door("ann").ask("POST", "/v1/responses", {"input": "x", "model": "vault"}).status == 404
    assert world.door("ann").ask("POST", "/v1/agents/vault/invocations").status == 404


def test_anothers_bundle_cannot_be_deployed_and_is_not_told_to_be_there(world: Any) -> None:
    begun = _ask(world, "rival", "POST /v1/agents/{name}/bundles")
    assert begun.status == 201 and begun.body["complete"] is False and begun.body["offset"] == 0
    unknown = world.door("rival").ask(
        "POST", "/v1/agents/shapes/bundles", {"digest": hashlib.sha256(b"?").hexdigest(), "size": 5}
    )
    assert (unknown.status, unknown.body["complete"]) == (201, False)
    refused = _ask(world, "rival", "PUT /v1/agents/{name}")
    assert (refused.status, refused.error["param"]) == (422, "spec.source.bundle")


@pytest.mark.parametrize("route", ["POST /v1/sessions", "POST /v1/agents/{name}/sessions"])
def test_naming_anothers_session_makes_ones_own(world: Any, route: str) -> None:
    assert _ask(world, "rival", route).status == 404, "that tenant has no such agent"
    made = _ask(world, "bob", route)
    assert (made.status, made.body["agent_session_id"]) == (201, world.ids["session"])
    assert "nothing" in _read(world, agent_session_id=world.ids["session"])
    theirs, own = (world.door(who).ask("GET", f"/v1/sessions/{world.ids['session']}").body for who in ("ann", "bob"))
    assert theirs["sandbox"]["id"] != own["sandbox"]["id"]
    assert SECRET in _read(world, "ann", agent_session_id=world.ids["session"])


def test_a_session_named_by_header_query_or_conversation_is_ones_own_too(world: Any) -> None:
    session = world.ids["session"]
    assert "nothing" in _read(world, headers={"x-agent-session-id": session})
    assert "nothing" in _read(world, conversation=CONVERSATION)
    query = world.door("bob").ask("POST", f"/v1/agents/shapes/invocations/x?agent_session_id={session}", raw=b"hello")
    assert (query.status, query.raw) == (200, b"hello")


def test_deleting_and_stopping_ones_own_leaves_anothers_of_the_same_name(world: Any) -> None:
    body = {"input": f"write {SECRET}", "agent_session_id": "of-two-users-1"}
    for who in ("ann", "bob"):
        assert world.door(who).ask("POST", "/v1/agents/shapes/responses", body).status == 200
    assert world.door("bob").ask("POST", "/v1/sessions/of-two-users-1/stop").status == 200
    assert world.door("bob").ask("DELETE", "/v1/sessions/of-two-users-1").status == 200
    assert world.door("bob").ask("GET", "/v1/sessions/of-two-users-1").status == 404
    assert world.door("ann").ask("GET", "/v1/sessions/of-two-users-1").body["status"] in ("idle", "active")
    assert SECRET in _read(world, "ann", agent_session_id="of-two-users-1")


def _read(world: Any, who: str = "bob", *, headers: dict[str, str] | None = None, **fields: str) -> str:
    """What the workspace of the session that this request names holds."""
    answer = world.door(who).ask("POST", "/v1/agents/shapes/responses", {"input": "read", **fields}, headers=headers)
    assert answer.status == 200, answer.raw
    return str(answer.raw.decode())


def test_keys_are_made_for_ones_own_tenant_only(world: Any) -> None:
    made = world.door("rival").ask("POST", "/v1/keys", {"user": "ann", "scopes": ["invoke"]})
    assert made.body["tenant"] == "rival"
    named = world.door("rival").ask("POST", "/v1/keys", {"user": "ann", "scopes": ["invoke"], "tenant": "dev"})
    assert (named.status, named.error["param"]) == (400, "tenant")
