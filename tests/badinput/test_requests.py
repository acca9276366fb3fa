"""Bodies, ids and addresses that are wrong, on every route: the documented 4xx with a message, never a 500 (F34, S9)."""

from __future__ import annotations

from typing import Any

import pytest

from fakes.tenancy_calls import FORMS, UNKNOWN_RESPONSE, calls

pytestmark = pytest.mark.journey

METHODS = ("get", "put", "post", "delete", "patch", "head")
BODIES: dict[str, bytes] = {
    "nothing": b"",
    "half an object": b'{"input": "x"',
    "a list": b"[]",
    "a number": b"17",
    "a string": b'"x"',
    "null": b"null",
    "not UTF-8": b'{"input": "\xff\xfe"}',
    "a lone surrogate": b'{"input": "\\ud800"}',
    "NaN": b'{"temperature": NaN}',
    "the same key twice": b'{"input": "a", "input": "b", "name": 1, "name": 2}',
    "deep": b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
    "wide": b'{"x": [' + b"[]," * 150_000 + b"[]]}",
    "a huge number": b'{"temperature": 1' + b"0" * 10_000 + b"}",
    "wrong types": b'{"input": 5, "agent": [], "digest": {}, "size": [], "scopes": "all", "metadata": 3, "spec": 1}',
    "a NUL": b'{"input": "a", "name": "a\\u0000b", "user": "\\u0000", "agent": "\\u0000", "agent_session_id": "\\u0000"}',
}
IDS = (
    "x",
    "..",
    "%2e%2e",
    "%00",
    "a" * 300,
    "%ff",
    "'%20OR%201=1",
    "caresp_",
    "../../keys",
    "%2Fetc%2Fpasswd",
    "\u00e9",
)


def routes(world: Any) -> list[tuple[str, str]]:
    """(method, path template) of everything served."""
    document = world.door.ask("GET", "/v1/openapi.json").body
    found = [(m.upper(), path) for path, item in document["paths"].items() for m in item if m in METHODS]
    for form in FORMS.values():
        base = form.replace("{agent}", "{name}")
        found.append(("POST", base))
        found += [(method, f"{base}/{{id}}" + (f"/{verb}" if verb else "")) for method, verb in calls()]
    return found


def good(path: str) -> str:
    """The path with ids that are well formed."""
    path = path.replace("{name}", "shapes")
    return path.replace("{id}", UNKNOWN_RESPONSE if "responses" in path else "0" * 32)


@pytest.mark.parametrize("name", BODIES)
def test_a_bad_body_is_never_a_500_on_any_route(world: Any, name: str) -> None:
    for method, path in routes(world):
        if method in ("POST", "PUT", "PATCH"):
            answer = world.door.ask(method, good(path), raw=BODIES[name], headers={"upload-offset": "0"})
            assert answer.status < 500, (method, path, answer.raw)
            if answer.status >= 400:
                assert set(answer.error) == {"message", "type", "param", "code"}
                assert answer.error["message"] and "Traceback" not in answer.raw.decode()


@pytest.mark.parametrize("one", IDS)
def test_a_bad_id_is_never_a_500_on_any_route(world: Any, one: str) -> None:
    for method, template in routes(world):
        for part in ("{id}", "{name}"):
            if part in template:
                path = good(template.replace(part, one)).encode("ascii", "replace").decode()
                answer = world.door.ask(method, path, {} if method in ("POST", "PUT") else None)
                assert 400 <= answer.status < 500, (method, path, answer.status, answer.raw)


BAD_QUERIES = {
    "/v1/sessions?limit=0": "limit",
    "/v1/sessions?limit=x": "limit",
    "/v1/sessions?limit=99999999999999999999": "limit",
    "/v1/sessions?status=sleeping": "status",
    "/v1/agents/shapes/logs?tail=-1": "tail",
    "/v1/agents/shapes/logs?follow=maybe": "follow",
    "/v1/audit?since=-5": "since",
    "/v1/audit?limit=many": "limit",
    f"/v1/responses/{UNKNOWN_RESPONSE}?stream=perhaps": "stream",
    f"/v1/responses/{UNKNOWN_RESPONSE}?stream=true&starting_after=-1": "starting_after",
    f"/v1/responses/{UNKNOWN_RESPONSE}/input_items?limit=101": "limit",
    f"/v1/responses/{UNKNOWN_RESPONSE}/input_items?order=up": "order",
    f"/v1/responses/{UNKNOWN_RESPONSE}/input_items?limit=1&limit=2": "limit",
}


@pytest.mark.parametrize("path", BAD_QUERIES)
def test_a_wrong_query_field_is_named(world: Any, path: str) -> None:
    answer = world.door.ask("GET", path)
    assert (answer.status, answer.error["param"]) == (400, BAD_QUERIES[path]), answer.raw


WRONG_FIELDS: dict[str, tuple[dict[str, Any], str]] = {
    "input": ({"input": 5}, "input"),
    "an item": ({"input": [{"type": "message", "content": "x"}]}, "input[0].role"),
    "stream": ({"input": "x", "stream": "yes"}, "stream"),
    "background": ({"input": "x", "background": 1}, "background"),
    "store": ({"input": "x", "store": "no"}, "store"),
    "metadata": ({"input": "x", "metadata": {"k": "v" * 600}}, "metadata.k"),
    "temperature": ({"input": "x", "temperature": "hot"}, "temperature"),
    "previous": ({"input": "x", "previous_response_id": "resp_1"}, "previous_response_id"),
    "session": ({"input": "x", "agent_session_id": "short"}, "agent_session_id"),
    "conversation": ({"input": "x", "conversation": 7}, "conversation"),
}


@pytest.mark.parametrize(("body", "param"), WRONG_FIELDS.values(), ids=WRONG_FIELDS.keys())
def test_a_wrong_field_of_a_create_call_is_named(world: Any, body: dict[str, Any], param: str) -> None:
    answer = world.door.ask("POST", "/v1/agents/shapes/responses", body)
    assert answer.status == 400, answer.raw
    assert answer.error["param"] == param, answer.error


def test_an_unknown_field_is_passed_on(world: Any) -> None:
    body = {"input": "hello", "a_field_of_next_year": {"deep": [1]}}
    assert world.door.ask("POST", "/v1/agents/shapes/responses", body).body["status"] == "completed"


def test_a_wrong_method_says_which_are_right(world: Any) -> None:
    for method, path in (("PUT", "/v1/agents/shapes/responses"), ("POST", "/v1/agents/shapes"), ("PATCH", "/v1/keys")):
        answer = world.door.ask(method, path)
        assert answer.status == 405 and answer.headers["allow"], (method, path)


def test_a_body_over_the_limit_is_a_413_with_the_limit(world: Any) -> None:
    door = world.small_door()
    big = b'{"input": "' + b"x" * 70_000 + b'"}'
    for path in ("/v1/agents/shapes/responses", "/v1/agents/shapes/openai/responses"):
        answer = door.ask("POST", path, raw=big)
        assert (answer.status, answer.error["code"]) == (413, "body_too_large")
        assert "65536" in answer.error["message"] or "64" in answer.error["message"]
    assert door.ask("POST", "/v1/agents/shapes/invocations", raw=b"x" * 2_000_000).status == 413
    assert door.ask("POST", "/v1/agents/shapes/invocations", raw=b"x" * 900_000).raw == b"x" * 900_000
    assert door.ask("POST", "/v1/keys", raw=b'{"name": "' + b"x" * 600_000 + b'"}').status == 413


def test_headers_over_the_limits_are_a_431(world: Any) -> None:
    door = world.small_door()
    assert door.ask("GET", "/v1/agents", headers={"x-big": "x" * 9_000}).status == 431
    assert door.ask("GET", "/v1/agents", headers={f"x-{n}": "y" for n in range(60)}).status == 431
    assert door.ask("GET", "/v1/agents?" + "q" * 9_000).status in (400, 414, 431)
    assert door.ask("GET", "/v1/agents").status == 200
