"""Requests to `/responses` are classified, or refused with the field named."""

from __future__ import annotations

import json
from typing import Any

import pytest

from moorage import text_of
from moorage.serve import inbound
from moorage_api.errors import ApiError

pytestmark = pytest.mark.unit


def ask(body: object, **headers: str) -> inbound.Ask:
    return inbound.ask(json.dumps(body).encode(), {name.replace("_", "-"): value for name, value in headers.items()})


def test_a_string_becomes_one_user_message() -> None:
    found = ask({"input": "hello"})
    assert found.items == [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hello"}]}]
    assert not found.stream and found.store and not found.platform


def test_an_empty_body_asks_with_no_items() -> None:
    assert inbound.ask(b"", {}).items == []


def test_the_platform_gives_history_attempt_ids_and_user() -> None:
    found = ask(
        {"input": "x", "background": True, "moorage": {"history": [{"type": "message"}], "attempt": 3}},
        x_moorage_turn="t1",
        x_agent_response_id="caresp_1",
        x_agent_user_id="u",
        x_client_tag="v",
        authorization="secret",
    )
    assert (
        found.history == [{"type": "message"}]
        and found.attempt == 3
        and found.response_id == "caresp_1"
        and found.user == "u"
    )
    assert found.headers == {"x-client-tag": "v"}
    assert "moorage" not in found.body and not found.background and found.platform


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"input": 3}, "input"),
        ({"input": ["x"]}, "input"),
        ({"input": [{"no": 1}]}, "input"),
        ({"stream": "yes"}, "stream"),
        ({"background": 1}, "background"),
        ({"background": True, "store": False}, "background"),
        ({"previous_response_id": 4}, "previous_response_id"),
        ({"previous_response_id": "a", "conversation": "b"}, "previous_response_id"),
        ({"metadata": {"k": 1}}, "metadata"),
        ({"metadata": {str(n): "v" for n in range(17)}}, "metadata"),
        ({"moorage": 1}, "moorage"),
        ({"moorage": {"attempt": "x"}}, "moorage.attempt"),
    ],
)
def test_a_wrong_field_is_named(body: dict[str, Any], field: str) -> None:
    with pytest.raises(ApiError) as refused:
        ask(body)
    assert refused.value.status == 400 and refused.value.param == field


@pytest.mark.parametrize("raw", [b"{", b"[]", b"\xff", b"[" * 100_000])
def test_a_body_that_is_no_json_object_is_a_400(raw: bytes) -> None:
    with pytest.raises(ApiError) as refused:
        inbound.ask(raw, {})
    assert refused.value.status == 400


def test_text_of_reads_messages_and_leaves_the_rest() -> None:
    items = [
        {"role": "user", "content": "a"},
        {
            "type": "message",
            "content": [{"type": "input_text", "text": "b"}, {"type": "input_image", "image_url": "u"}],
        },
        {"type": "function_call_output", "output": "no"},
    ]
    assert text_of(items) == "a\nb"
