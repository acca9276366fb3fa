"""Validation of a create body: wrong fields are named, unknown ones pass, and no bytes whatever get past as an error of ours."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moorage_api.errors import ApiError, Kind
from moorage_gateway import conversation, fields, request
from moorage_gateway.inbound import Page
from moorage_gateway.request import JsonLimits

pytestmark = pytest.mark.unit

LIMITS = JsonLimits(size=100_000, depth=32, containers=5_000)
ID = "caresp_" + "0123456789abcdef" + "00" + "a" * 32


def parse(**body: Any) -> request.Create:
    return request.parse_create(orjson.dumps(body), LIMITS)


WRONG: list[tuple[str, Any, str]] = [
    ("model", 5, "model"),
    ("instructions", ["x"], "instructions"),
    ("store", "true", "store"),
    ("store", 1, "store"),
    ("stream", "yes", "stream"),
    ("background", 0, "background"),
    ("background_options", {"completion_window": "soonest"}, "background_options"),
    ("stream_options", {"include_obfuscation": True}, "stream_options"),
    ("tools", {}, "tools"),
    ("tools", ["x"], "tools[0]"),
    ("tools", [{"name": "x"}], "tools[0].type"),
    ("tools", [{"type": "function"}], "tools[0].name"),
    ("tools", [{"type": "function", "name": "x", "parameters": 5}], "tools[0].parameters"),
    ("tools", [{"type": "function", "name": "x", "strict": "no"}], "tools[0].strict"),
    ("tool_choice", "any", "tool_choice"),
    ("tool_choice", {"name": "x"}, "tool_choice.type"),
    ("tool_choice", 5, "tool_choice"),
    ("parallel_tool_calls", "x", "parallel_tool_calls"),
    ("max_tool_calls", 0, "max_tool_calls"),
    ("max_tool_calls", 1.5, "max_tool_calls"),
    ("text", "x", "text"),
    ("text", {"verbosity": "loud"}, "text.verbosity"),
    ("text", {"format": {"type": "xml"}}, "text.format.type"),
    ("text", {"format": {"type": "json_schema", "name": "x"}}, "text.format.schema"),
    ("reasoning", "high", "reasoning"),
    ("reasoning", {"effort": 5}, "reasoning.effort"),
    ("include", "x", "include"),
    ("include", ["everything"], "include[0]"),
    ("temperature", 2.1, "temperature"),
    ("temperature", True, "temperature"),
    ("temperature", "1", "temperature"),
    ("top_p", -0.1, "top_p"),
    ("top_logprobs", 21, "top_logprobs"),
    ("max_output_tokens", 0, "max_output_tokens"),
    ("max_output_tokens", True, "max_output_tokens"),
    ("presence_penalty", 3, "presence_penalty"),
    ("truncation", "maybe", "truncation"),
    ("metadata", [], "metadata"),
    ("metadata", {str(n): "x" for n in range(17)}, "metadata"),
    ("metadata", {"k" * 65: "x"}, "metadata"),
    ("metadata", {"k": "x" * 513}, "metadata.k"),
    ("metadata", {"k": 5}, "metadata.k"),
    ("context_management", [{}], "context_management[0].type"),
    ("prompt", {"version": "1"}, "prompt.id"),
    ("prompt_cache_retention", "1h", "prompt_cache_retention"),
    ("service_tier", 5, "service_tier"),
    ("user", 5, "user"),
    ("conversation", 5, "conversation"),
    ("conversation", {}, "conversation.id"),
    ("conversation", "a b", "conversation"),
    ("previous_response_id", "resp_1", "previous_response_id"),
    ("previous_response_id", 5, "previous_response_id"),
    ("agent_session_id", "short", "agent_session_id"),
    ("agent_reference", "x", "agent_reference"),
    ("input", 5, "input"),
    ("input", {}, "input"),
    ("input", [None], "input[0]"),
    ("input", [{}], "input[0].type"),
    ("input", [{"type": 5}], "input[0].type"),
    ("input", [{"role": "robot", "content": "x"}], "input[0].role"),
    ("input", [{"role": "user"}], "input[0].content"),
    ("input", [{"role": "user", "content": ["x"]}], "input[0].content[0]"),
    ("input", [{"role": "user", "content": [{"type": "input_text"}]}], "input[0].content[0].text"),
    ("input", [{"type": "function_call", "call_id": "c", "name": "n"}], "input[0].arguments"),
    ("input", [{"type": "function_call_output", "output": "x"}], "input[0].call_id"),
    ("input", [{"type": "function_call_output", "call_id": "c", "output": 5}], "input[0].output"),
    ("input", [{"type": "item_reference"}], "input[0].id"),
    (
        "input",
        [{"role": "user", "content": "x", "id": "a"}, {"role": "user", "content": "y", "id": "a"}],
        "input[1].id",
    ),
    ("input", [{"role": "user", "content": "x", "id": "a b"}], "input[0].id"),
]


@pytest.mark.parametrize(("name", "value", "param"), WRONG)
def test_a_wrong_field_is_a_400_that_names_it(name: str, value: Any, param: str) -> None:
    with pytest.raises(ApiError) as caught:
        parse(**{name: value})
    assert caught.value.status == 400
    assert caught.value.param == param


RIGHT: list[tuple[str, Any]] = [
    ("tools", [{"type": "function", "name": "x", "description": None, "parameters": None, "strict": None}]),
    ("tools", [{"type": "acme:own", "anything": [1]}]),
    ("tool_choice", {"type": "allowed_tools", "mode": "auto", "tools": []}),
    ("text", {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}, "verbosity": "low"}),
    ("reasoning", {"effort": "an effort of next year", "summary": None}),
    ("include", ["reasoning.encrypted_content"]),
    ("temperature", 0),
    ("temperature", 1.5),
    ("metadata", {"k" * 64: "x" * 512}),
    ("context_management", [{"type": "compaction", "compact_threshold": 1000}]),
    ("conversation", {"id": "conv_1"}),
    ("prompt", {"id": "p", "variables": {"a": 1}}),
    ("access_programs", ["x"]),
    ("input", [{"type": "acme:item", "whatever": True}]),
    ("input", [{"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}]),
]


@pytest.mark.parametrize(("name", "value"), RIGHT)
def test_a_right_field_and_an_unknown_one_pass_unchanged(name: str, value: Any) -> None:
    created = parse(**{name: value, "field_of_next_year": {"a": [1, 2]}})
    assert created.body[name] == value
    assert created.body["field_of_next_year"] == {"a": [1, 2]}


def test_null_is_the_same_as_not_given() -> None:
    assert parse(**dict.fromkeys([*fields.KNOWN, "input"])).items == []


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"background": True, "store": False}, Kind.UNSUPPORTED),
        ({"previous_response_id": ID, "conversation": "conv_1"}, Kind.INVALID_REQUEST),
    ],
)
def test_fields_that_exclude_each_other_are_refused(body: dict[str, Any], kind: Kind) -> None:
    with pytest.raises(ApiError) as caught:
        parse(**body)
    assert caught.value.kind is kind


def test_the_agent_is_named_by_reference_or_model() -> None:
    assert parse(model="m").agent == "m"
    assert parse(model="m", agent_reference={"type": "agent_reference", "name": "a"}).agent == "a"
    assert parse().agent is None


def test_transport_fields_are_taken_out_and_the_rest_stays() -> None:
    created = parse(stream=True, stream_options={}, agent_session_id="session-1", model="m", store=False, input="x")
    assert created.body == {"model": "m", "store": False, "input": "x"}
    assert (created.stream, created.store, created.session_id) == (True, False, "session-1")


def test_a_string_becomes_one_message_of_the_user() -> None:
    assert parse(input="hi").items == [
        {"type": "message", "status": "completed", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}
    ]


def test_every_item_gets_an_id_that_depends_on_nothing_but_response_and_place() -> None:
    created = parse(
        input=[{"role": "user", "content": "a"}, {"role": "user", "content": "a"}, {"type": "x:y", "id": "mine"}]
    )
    first, second = conversation.with_ids(created.items, ID), conversation.with_ids(created.items, ID)
    ids = [item["id"] for item in first]
    assert first == second
    assert ids[2] == "mine" and len(set(ids)) == 3
    assert ids[0].startswith("msg_0123456789abcdef00")


ITEMS = [{"id": f"i{n}", "type": "x"} for n in range(5)]


@pytest.mark.parametrize(
    ("page", "ids", "more"),
    [
        (Page(), ["i4", "i3", "i2", "i1", "i0"], False),
        (Page(2), ["i4", "i3"], True),
        (Page(2, "asc"), ["i0", "i1"], True),
        (Page(2, "asc", after="i1"), ["i2", "i3"], True),
        (Page(2, "desc", after="i1"), ["i0"], False),
        (Page(5, "asc", after="i0", before="i3"), ["i1", "i2"], False),
        (Page(5, "asc", after="i4"), [], False),
    ],
)
def test_a_page_is_cut_where_it_is_asked(page: Page, ids: list[str], more: bool) -> None:
    found = conversation.page_of(ITEMS, page)
    assert [item["id"] for item in found["data"]] == ids
    assert found["has_more"] is more
    assert (found["first_id"], found["last_id"]) == ((ids[0], ids[-1]) if ids else (None, None))


def test_a_cursor_that_names_no_item_is_refused() -> None:
    with pytest.raises(ApiError, match="after names no item"):
        conversation.page_of(ITEMS, Page(after="i9"))


@pytest.mark.parametrize(
    ("value", "count"), [(None, 0), (b"0", 0), (b"2", 2), (b"-1", 0), (b"x", 0), (b"99999", 0), (b"\xb2", 0)]
)
def test_a_retry_count_is_a_small_number_or_nothing(value: bytes | None, count: int) -> None:
    assert request.retry_count(value) == count


@pytest.mark.parametrize("value", [b"", b"a b", b"\xff", b"x" * 256])
def test_a_malformed_idempotency_key_is_refused(value: bytes) -> None:
    with pytest.raises(ApiError):
        request.idempotency_key(value)


def test_the_hash_of_a_request_tells_method_path_and_body_apart() -> None:
    hashes = {
        request.body_hash(*parts)
        for parts in [("POST", "/a", b"b"), ("POST", "/ab", b""), ("POST", "/a", b""), ("PUT", "/a", b"b")]
    }
    assert len(hashes) == 4


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=600, derandomize=True, deadline=None)
@given(st.dictionaries(st.sampled_from([*fields.KNOWN, "input", "unknown"]), JSON, max_size=4))
def test_any_json_is_accepted_or_refused_with_a_400(body: dict[str, Any]) -> None:
    try:
        created = request.parse_create(orjson.dumps(body), LIMITS)
    except ApiError as error:
        assert error.status == 400
    else:
        assert created.body.get("unknown") == body.get("unknown")
        conversation.with_ids(created.items, ID)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_accepted_or_refused_with_a_400(raw: bytes) -> None:
    try:
        request.parse_create(raw, LIMITS)
    except ApiError as error:
        assert error.status == 400


@settings(max_examples=60, derandomize=True, deadline=None)
@given(st.integers(1, 200), st.sampled_from([b"[", b'{"a":']))
def test_nesting_is_measured_exactly(depth: int, opening: bytes) -> None:
    closing = b"]" if opening == b"[" else b"}"
    raw = opening * depth + b"1" + closing * depth
    if depth > LIMITS.depth:
        with pytest.raises(ApiError, match="nested deeper"):
            request.parse_json(raw, LIMITS)
    else:
        request.parse_json(raw, LIMITS)
