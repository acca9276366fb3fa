"""What makes a model request the same one: each thing that clients vary without meaning it, and that nothing else is left out."""

from __future__ import annotations

import copy
import json
from typing import Any

import httpx2
import openai
import orjson
import pytest

from moorage_gateway.models.fingerprints import LENGTH, fingerprint

pytestmark = pytest.mark.unit

HEADERS = (("content-type", "application/json"), ("accept", "application/json"))
CHAT: dict[str, Any] = {
    "model": "m-1", "temperature": 0.2, "tools": [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}],
    "messages": [
        {"role": "user", "content": "what time is it"},
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "call_a", "type": "function", "function": {"name": "look", "arguments": "{}"}},
            {"id": "call_b", "type": "function", "function": {"name": "look", "arguments": "{}"}},
        ]},
        {"role": "tool", "tool_call_id": "call_a", "content": "noon"},
        {"role": "tool", "tool_call_id": "call_b", "content": "night"},
    ],
}  # fmt: skip
MESSAGES: dict[str, Any] = {
    "model": "c-1", "max_tokens": 9, "messages": [
        {"role": "user", "content": "what time is it"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_a", "name": "look", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_a", "content": "noon"}]},
    ],
}  # fmt: skip
RESPONSES: dict[str, Any] = {
    "model": "m-1", "input": [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "what time is it"}]},
        {"type": "function_call", "id": "fc_1", "call_id": "call_a", "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "id": "fco_9", "call_id": "call_a", "output": "noon"},
        {"type": "item_reference", "id": "msg_7"},
    ],
}  # fmt: skip


def of(
    body: Any,
    *,
    endpoint: str = "e",
    method: str = "POST",
    target: str = "chat/completions",
    headers: tuple[tuple[str, str], ...] = HEADERS,
) -> str:
    return fingerprint(endpoint, method, target, headers, orjson.dumps(body), body)


def changed(body: dict[str, Any], at: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    """The body with one place changed (or taken out, with `...`)."""
    made = copy.deepcopy(body)
    node: Any = made
    for step in at[:-1]:
        node = node[step]
    if value is ...:
        del node[at[-1]]
    else:
        node[at[-1]] = value
    return made


def test_it_is_hex_without_a_dot() -> None:
    found = of(CHAT)
    assert len(found) == LENGTH and set(found) <= set("0123456789abcdef")


def test_order_of_keys_whitespace_and_escapes_do_not_count() -> None:
    turned = json.dumps(dict(reversed(CHAT.items())), indent=3, ensure_ascii=True).encode()
    body = {"model": "m", "messages": [{"role": "user", "content": "é\n"}]}
    assert fingerprint("e", "POST", "chat/completions", HEADERS, turned, json.loads(turned)) == of(CHAT)
    assert fingerprint("e", "POST", "p", (), b'{"a":"\\u00e9"}', json.loads(b'{"a":"\\u00e9"}')) == fingerprint(
        "e", "POST", "p", (), '{ "a": "é" }'.encode(), {"a": "é"}
    )
    assert of(body) != of(changed(body, ("messages", 0, "content"), "e\n"))


@pytest.mark.parametrize(
    "more",
    [
        ("x-stainless-retry-count", "1"),
        ("user-agent", "OpenAI/Python 9"),
        ("traceparent", "00-1"),
        ("accept", "text/event-stream"),
        ("authorization", "Bearer moorage"),
        ("idempotency-key", "stainless-python-retry-1"),
    ],
    ids=lambda more: more[0],
)
def test_headers_of_the_client_do_not_count(more: tuple[str, str]) -> None:
    assert of(CHAT, headers=(*HEADERS, more)) == of(CHAT)


@pytest.mark.parametrize("name", ["anthropic-beta", "anthropic-version", "openai-beta", "content-type"])
def test_headers_that_change_the_meaning_count(name: str) -> None:
    assert of(CHAT, headers=(("accept", "x"), (name, "other"))) != of(CHAT, headers=(("accept", "x"), (name, "one")))
    assert of(CHAT, headers=((name.upper(), " One "),)) == of(CHAT, headers=((name, "one"),))


def test_names_of_calls_count_only_by_their_order() -> None:
    renamed = json.loads(json.dumps(CHAT).replace("call_a", "pyd_ai_1").replace("call_b", "pyd_ai_2"))
    assert of(renamed) == of(CHAT)
    crossed = changed(
        changed(CHAT, ("messages", 2, "tool_call_id"), "call_b"), ("messages", 3, "tool_call_id"), "call_a"
    )
    assert of(crossed) != of(CHAT), "which result belongs to which call is a meaning"
    assert of(json.loads(json.dumps(MESSAGES).replace("toolu_a", "toolu_z"))) == of(MESSAGES)
    assert of(json.loads(json.dumps(RESPONSES).replace("call_a", "call_z"))) == of(RESPONSES)


def test_ids_of_input_items_do_not_count_but_those_that_refer_do() -> None:
    assert of(changed(RESPONSES, ("input", 1, "id"), "fc_other")) == of(RESPONSES)
    assert of(changed(RESPONSES, ("input", 2, "id"), ...)) == of(RESPONSES)
    assert of(changed(RESPONSES, ("input", 3, "id"), "msg_8")) != of(RESPONSES)


def test_trace_ids_in_metadata_do_not_count_and_the_rest_of_it_does() -> None:
    traced = CHAT | {"metadata": {"trace_id": "1", "X-Request-Id": "2"}}
    assert of(traced) == of(CHAT)
    assert of(CHAT | {"metadata": {"trace_id": "1", "customer": "a"}}) == of(CHAT | {"metadata": {"customer": "a"}})
    assert of(CHAT | {"metadata": {"customer": "a"}}) != of(CHAT | {"metadata": {"customer": "b"}})
    assert of(CHAT | {"user": "a"}) != of(CHAT | {"user": "b"})


@pytest.mark.parametrize(
    ("body", "at", "value"),
    [
        (CHAT, ("model",), "m-2"),
        (CHAT, ("temperature",), 0.3),
        (CHAT, ("stream",), True),
        (CHAT, ("seed",), 7),
        (CHAT, ("tools", 0, "function", "name"), "see"),
        (CHAT, ("messages", 0, "content"), "what time was it"),
        (CHAT, ("messages", 0, "role"), "system"),
        (CHAT, ("messages", 1, "tool_calls", 0, "function", "arguments"), '{"a":1}'),
        (CHAT, ("messages", 2, "content"), "dawn"),
        (CHAT, ("messages", 3), ...),
        (MESSAGES, ("max_tokens",), 10),
        (MESSAGES, ("messages", 1, "content", 0, "input"), {"a": 1}),
        (MESSAGES, ("messages", 2, "content", 0, "content"), "dawn"),
        (RESPONSES, ("input", 2, "output"), "dawn"),
        (RESPONSES, ("instructions",), "be brief"),
        (RESPONSES, ("previous_response_id",), "resp_1"),
    ],
    ids=lambda each: ".".join(map(str, each)) if isinstance(each, tuple) else "",
)
def test_everything_that_means_something_counts(body: dict[str, Any], at: tuple[str | int, ...], value: Any) -> None:
    assert of(changed(body, at, value)) != of(body)


def test_endpoint_method_path_and_query_count_but_not_the_querys_order() -> None:
    base = of(CHAT)
    assert len({base, of(CHAT, endpoint="f"), of(CHAT, method="GET"), of(CHAT, target="completions")}) == 4
    assert of(CHAT, target="p?b=2&a=1") == of(CHAT, target="p?a=1&b=2") != of(CHAT, target="p?a=1&b=3")


def test_a_body_that_is_no_json_is_compared_byte_by_byte() -> None:
    assert fingerprint("e", "POST", "p", (), b"\xff1") == fingerprint("e", "POST", "p", (), b"\xff1")
    assert fingerprint("e", "POST", "p", (), b"\xff1") != fingerprint("e", "POST", "p", (), b"\xff2")


@pytest.mark.parametrize(
    "odd", [None, [], "text", 7, {"messages": [None, 1, [], {"content": [None]}], "input": [3], "metadata": {}}]
)
def test_no_shape_of_a_body_breaks_it(odd: Any) -> None:
    assert of(odd) == of(copy.deepcopy(odd))


def test_a_stock_clients_own_retry_is_the_same_request() -> None:
    seen: list[httpx2.Request] = []

    def served(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        if len(seen) < 3:
            return httpx2.Response(500, headers={"retry-after-ms": "1"}, json={})
        return httpx2.Response(
            200, json={"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": []}
        )

    with httpx2.Client(transport=httpx2.MockTransport(served)) as http:
        client = openai.OpenAI(base_url="http://door/v1", api_key="moorage", http_client=http, max_retries=2)
        client.chat.completions.create(model="m-1", messages=[{"role": "user", "content": "hi"}])
    prints = [
        fingerprint(
            "e", "POST", "chat/completions", tuple(each.headers.items()), each.content, orjson.loads(each.content)
        )
        for each in seen
    ]
    assert [each.headers["x-stainless-retry-count"] for each in seen] == ["0", "1", "2"]
    assert len(set(prints)) == 1
