"""OpenAPI documents as tools: definitions, requests that stay in their place, bounds, and what is refused with the reason."""

from __future__ import annotations

import contextlib
import json
import random
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage_gateway.openapi import Api, ArgumentError, DocumentError, Operation, build, read
from moorage_gateway.openapi.document import MOST_OPERATIONS
from moorage_gateway.openapi.requests import LONGEST_VALUE, MOST_BODY
from moorage_gateway.openapi.schemas import MOST_IN_ALL

pytestmark = pytest.mark.unit

PET = {
    "type": "object",
    "required": ["id", "name"],
    "properties": {
        "id": {"type": "integer", "readOnly": True},
        "name": {"type": "string", "nullable": True, "example": "Rex"},
        "parent": {"$ref": "#/components/schemas/Pet"},
    },
}


def document(paths: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"openapi": "3.0.3", "paths": paths, "components": {"schemas": {"Pet": PET}}, **more}


def one(path: str, described: dict[str, Any], method: str = "get", **item: Any) -> Operation:
    api = read(document({path: {method: described, **item}}))
    assert api.refused == {}
    return api.operations[0]


def query(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": {"type": "string"}, **more}


OWNER = {"name": "owner", "in": "path", "required": True, "schema": {"type": "string"}, "description": "Whose it is."}


def test_an_operation_is_a_tool_with_its_parameters_and_its_body_as_arguments() -> None:
    body = {
        "required": True,
        "content": {"application/json; charset=utf-8": {"schema": {"$ref": "#/components/schemas/Pet"}}},
    }
    pet = one(
        "/pets/{owner}", {"operationId": "pets/add", "summary": "Adds a pet.", "description": "It stays.", "requestBody": body},
        "post", parameters=[OWNER],
    )  # fmt: skip
    assert pet.definition == {
        "name": "pets_add",
        "description": "Adds a pet.\n\nIt stays.",
        "inputSchema": {
            "type": "object",
            "properties": {
                "owner": {"type": "string", "description": "Whose it is."},
                "body": {
                    "type": "object",
                    "required": ["name"],
                    "properties": {"name": {"type": ["string", "null"]}, "parent": {"type": "object"}},
                },
            },
            "required": ["owner", "body"],
            "additionalProperties": False,
        },
    }
    made = build(pet, {"owner": "me", "body": {"name": "Réx"}})
    assert (made.method, made.target, made.headers) == ("POST", "/pets/me", {"content-type": "application/json"})
    assert made.body is not None and json.loads(made.body) == {"name": "Réx"}


def test_lists_are_repeated_or_joined_as_the_document_says() -> None:
    found = one("/a", {"parameters": [query("tag"), query("id", explode=False)]})
    assert found.name == "get_a"
    assert build(found, {"tag": ["x", "y"], "id": [1, 2]}).target == "/a?tag=x&tag=y&id=1%2C2"
    assert build(found, {"tag": True}).target == "/a?tag=true" and build(found, {}).target == "/a"


def test_parameters_of_one_name_in_two_places_get_their_place_behind_it() -> None:
    found = one("/a/{owner}", {"parameters": [OWNER, query("owner"), query("body")]})
    assert set(found.arguments) == {"owner_path", "owner_query", "body_query"}
    assert build(found, {"owner_path": "x", "owner_query": "y"}).target == "/a/x?owner=y"


def test_an_operations_parameter_wins_over_its_paths() -> None:
    found = one("/a", {"parameters": [query("q", required=True)]}, parameters=[query("q")])
    assert found.schema["required"] == ["q"]


def test_a_form_is_a_form() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    found = one("/a", {"requestBody": {"content": {"application/x-www-form-urlencoded": {"schema": schema}}}}, "post")
    made = build(found, {"body": {"a": "b c", "n": [1, 2]}})
    assert made.body == b"a=b+c&n=1&n=2" and made.headers["content-type"] == "application/x-www-form-urlencoded"
    assert build(found, {}).body is None
    with pytest.raises(ArgumentError, match="must be an object"):
        build(found, {"body": "a=b"})


def test_headers_that_are_the_gateways_are_no_arguments() -> None:
    names = ("Authorization", "Host", "X-Kind", "Cookie", "Content-Length", "bad name")
    found = one("/a", {"parameters": [{"name": name, "in": "header", "schema": {}} for name in names]})
    assert set(found.arguments) == {"X-Kind"}
    assert build(found, {"X-Kind": "b"}).headers == {"x-kind": "b"}
    with pytest.raises(ArgumentError, match="printable ASCII"):
        build(found, {"X-Kind": "b\r\nHost: elsewhere"})


def whole(text: str) -> bool:
    """Whether it is Unicode."""
    return not any("\ud800" <= each <= "\udfff" for each in text)


ANY = st.text(st.characters(exclude_categories=()))


@given(ANY, ANY)
def test_what_a_model_says_never_leaves_its_place(owner: str, text: str) -> None:
    found = one("/a/{owner}/b", {"parameters": [OWNER, query("q")]})
    try:
        target = build(found, {"owner": owner, "q": text}).target
    except ArgumentError:
        assert owner in ("", ".", "..") or not whole(owner) or not whole(text)
        return
    path, asked = urlsplit(target).path, urlsplit(target).query
    _, a, segment, b = path.split("/")
    assert (a, b) == ("a", "b") and unquote(segment) == owner
    assert parse_qsl(asked, keep_blank_values=True) == [("q", text)]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({}, "needs 'owner'"),
        ({"owner": "x", "Owner": "y"}, "takes no 'Owner'; it takes owner, q"),
        ({"owner": {"a": 1}}, "must be text, a number"),
        ({"owner": ".."}, "stands in the path"),
        ({"owner": "x" * (LONGEST_VALUE + 1)}, "longer than"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ArgumentError, match=says):
        build(one("/a/{owner}", {"parameters": [OWNER, query("q")]}), arguments)


def test_a_body_is_bounded_and_asked_for_where_it_is_needed() -> None:
    found = one("/a", {"requestBody": {"required": True, "content": {"application/json": {}}}}, "post")
    with pytest.raises(ArgumentError, match="needs 'body'"):
        build(found, {})
    with pytest.raises(ArgumentError, match="are the most"):
        build(found, {"body": "x" * MOST_BODY})


def test_lists_are_bounded_where_they_are_sent() -> None:
    found = one("/a", {"parameters": [query("q"), {"name": "X-A", "in": "header", "schema": {}}]})
    with pytest.raises(ArgumentError, match="stand in the URL are"):
        build(found, {"q": ["x" * 1000] * 70})
    with pytest.raises(ArgumentError, match="'q' has 1001 values"):
        build(found, {"q": [""] * 1001})
    with pytest.raises(ArgumentError, match="'X-A' is longer than 8192"):
        build(found, {"X-A": ["x" * 1000] * 9})


@pytest.mark.parametrize(
    ("info", "title"), [({"title": "Tickets"}, "Tickets"), ({"title": 1}, ""), ([], ""), (None, "")]
)
def test_what_an_api_calls_itself_is_read_and_is_nothing_where_it_is_no_text(info: Any, title: str) -> None:
    assert read(document({}) | {"info": info}).title == title


def refused(described: dict[str, Any], path: str = "/a", **more: Any) -> str:
    api: Api = read(document({path: {"post": described}}, **more))
    assert api.operations == ()
    ((where, why),) = api.refused.items()
    assert where == f"POST {path}"
    return why


@pytest.mark.parametrize(
    ("described", "path", "says"),
    [
        ({"parameters": [query("q", required=True, style="deepObject")]}, "/a", "as deepObject, which cannot be told"),
        ({"parameters": [query("q", required=True) | {"in": "cookie"}]}, "/a", "needs 'q' in cookie"),
        (
            {"requestBody": {"required": True, "content": {"multipart/form-data": {}}}},
            "/a",
            "a body of multipart/form-data",
        ),
        ({}, "/a/{id}", "disagree about the parameters id"),
        ({"parameters": [OWNER]}, "/a", "disagree about the parameters owner"),
        ({"parameters": [{"$ref": "#/nowhere"}]}, "/a", "leads nowhere"),
        ({"parameters": [{"$ref": "https://elsewhere.example/p"}]}, "/a", "not in this document"),
        ({"parameters": [{"$ref": "#/components/a"}]}, "/a", "refers to itself"),
        ({"parameters": ["q"]}, "/a", "is not an object"),
        ({}, "a/../b?c", "a path that is none"),
        ({}, "/a/%2e%2E/b", "a path that is none"),
        ({"parameters": [{"$ref": "#/" + "a/" * 600}]}, "/a", "not in this document"),
        ({"parameters": [query(f"q{n}") for n in range(65)]}, "/a", "more than 64 parameters"),
        ({"parameters": [query("q" * 257)]}, "/a", "name is longer than 256"),
        ({"parameters": [query("q", **{f"x{n}": 1 for n in range(257)})]}, "/a", "more than 256 fields"),
        ({"parameters": [query("q", schema={"enum": ["x" * 1000] * 140})]}, "/a", "more than 128 KiB"),
        ({"requestBody": {"content": {f"a/{n}": {} for n in range(65)}}}, "/a", "a body of more than 64 types"),
        ({"parameters": [{"$ref": "#" + "/a" * 17}]}, "/a", "leads nowhere"),
    ],
)
def test_what_a_request_could_not_be_built_of_is_refused_with_the_reason(
    described: dict[str, Any], path: str, says: str
) -> None:
    components = {"a": {"$ref": "#/components/b"}, "b": {"$ref": "#/components/a"}}
    assert says in refused(described, path, components=components)


def test_a_document_that_grows_without_end_is_refused_at_once() -> None:
    bomb: dict[str, Any] = {
        f"s{n}": {"properties": {k: {"$ref": f"#/components/schemas/s{n + 1}"} for k in "abcdefgh"}} for n in range(20)
    }
    bomb["s20"] = {"type": "string"}
    body = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/s0"}}}}
    assert "more than" in refused({"requestBody": body}, components={"schemas": bomb})


def test_what_a_document_says_makes_no_line_of_its_own_in_a_log() -> None:
    body = {"required": True, "content": {"text/x\nERROR": {}}}
    assert read(document({"/a\n\x1b[1mb": {"get": {}}, "/b": {"post": {"requestBody": body}}})).refused == {
        "GET /a??[1mb": "has a path that is none",
        "POST /b": "needs a body of text/x?ERROR, not of JSON",
    }


def test_the_schemas_of_a_whole_document_are_bounded() -> None:
    wide = {"properties": {f"p{n}": {"type": "string"} for n in range(3000)}}
    body = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Wide"}}}}
    paths = {f"/a{n}": {"post": {"requestBody": body}} for n in range(50)}
    api = read(document(paths, components={"schemas": {"Wide": wide}}))
    assert len(api.operations) == MOST_IN_ALL // 3001
    assert set(api.refused.values()) == {
        f"has no place left: the document's schemas have more than {MOST_IN_ALL} objects in all"
    }


def test_parameters_that_are_somebody_elses_are_no_arguments() -> None:
    given = [query("key"), {"name": "X-Key", "in": "header", "required": True, "schema": {}}, query("x-key")]
    api = read(document({"/a": {"get": {"parameters": given}}}), frozenset({("query", "key"), ("header", "x-key")}))
    assert set(api.operations[0].arguments) == {"x-key"} and api.refused == {}


def test_what_is_small_and_referred_to_often_is_bounded_too() -> None:
    parameters = {f"p{n}": query(f"q{n}") for n in range(60)}
    paths = {
        f"/a{n}": {"get": {"parameters": [{"$ref": f"#/components/{p}"} for p in parameters]}} for n in range(2000)
    }
    api = read(document(paths) | {"components": parameters})
    assert len(api.operations) + len(api.refused) == 2000 and api.operations
    assert all("looks at its parts" in why for why in api.refused.values()) and len(api.refused) > 10


def test_names_are_cleaned_and_a_second_of_one_name_is_refused() -> None:
    api = read(document({"/a": {"get": {"operationId": "a b"}}, "/c": {"get": {"operationId": "a  b"}}}))
    assert [each.name for each in api.operations] == ["a_b"] and api.refused == {
        "GET /c": "has the name a_b, as GET /a does"
    }


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ([], "no OpenAPI document"),
        ({"openapi": "3.0.0"}, "has no paths"),
        ({"swagger": "2.0", "paths": {}}, "give a document of 3.0 or 3.1"),
        (
            {"openapi": "3.1.0", "paths": {f"/{n}": {"get": {}} for n in range(MOST_OPERATIONS + 1)}},
            "more than 2000 operations",
        ),
    ],
)
def test_what_is_no_document_is_said(given: Any, says: str) -> None:
    with pytest.raises(DocumentError, match=says):
        read(given)


WORDS = (
    "$ref #/components/schemas/Pet #/components name in path query header required schema type object properties items allOf content "
    "application/json requestBody parameters get post /a/{id} id operationId style explode nullable readOnly description enum"
).split()


def anything(rng: random.Random, depth: int = 4) -> Any:
    """Some JSON, of the words that documents are made of."""
    if depth and rng.random() < 0.6:
        many = range(rng.randrange(5))
        if rng.random() < 0.3:
            return [anything(rng, depth - 1) for _ in many]
        return {rng.choice(WORDS): anything(rng, depth - 1) for _ in many}
    return rng.choice([None, True, False, 0, -1.5, "", rng.choice(WORDS), rng.choice(WORDS)])


@pytest.mark.parametrize(
    ("schema", "plain"),
    [
        ({"properties": {"a": {}}, "required": [[], {}, 3, "a", "b"]}, {"properties": {"a": {}}, "required": ["a"]}),
        ({"properties": 3, "required": ["a"], "oneOf": "x"}, {"required": ["a"]}),
    ],
)
def test_what_is_no_schema_in_a_schema_is_left_out(schema: dict[str, Any], plain: dict[str, Any]) -> None:
    found = one("/a", {"requestBody": {"content": {"application/json": {"schema": schema}}}}, "post")
    assert found.schema["properties"]["body"] == plain


@given(st.integers(0, 2**32))
def test_whatever_a_document_holds_it_is_read_or_refused(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(20):
        described, parameter, schema = (anything(rng) for _ in range(3))
        object_ = {"type": "object", "properties": {"a": schema}, "required": anything(rng, 2)}
        body = {"content": {"application/json": {"schema": object_}}}
        given_id = [OWNER | {"name": "id"}, parameter, query("q", schema=schema)]
        paths = {
            "/a/{id}": {"get": described, "put": {"parameters": given_id}},
            "/b": {"post": {"requestBody": body}, "put": {"requestBody": described, "parameters": parameter}},
            "/c": described,
        }
        api = read({"openapi": "3.1.0", "paths": paths, "components": {"schemas": {"Pet": schema, "Other": parameter}}})
        for each in api.operations:
            json.dumps(each.definition)
            with contextlib.suppress(ArgumentError):
                build(each, {"id": "x", "q": [1], "body": {"a": "b"}})
