"""The Response object has every field clients may read, with what the caller asked for in it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import openai.types.responses
import pytest

from moorage_gateway.turns.outcomes import Outcome, bounded, incomplete_details_of, usage_of
from moorage_gateway.turns.response_body import response_body
from unit.turns_normalise.streams import TEMPLATE

pytestmark = pytest.mark.unit

# protocols.md §1.3, Open Responses: all present; ∅ = null allowed.
REQUIRED = (
    "id object created_at completed_at∅ status incomplete_details∅ model previous_response_id∅ instructions∅ output error∅ tools "
    "tool_choice truncation parallel_tool_calls text top_p presence_penalty frequency_penalty top_logprobs temperature reasoning∅ "
    "usage∅ max_output_tokens∅ max_tool_calls∅ store background service_tier metadata safety_identifier∅ prompt_cache_key∅"
).split()


def body(**create: Any) -> dict[str, Any]:
    return response_body(replace(TEMPLATE, body=create), status="completed", output=[], completed_at=7)


@pytest.mark.parametrize("field", REQUIRED)
def test_every_required_field_is_present(field: str) -> None:
    shown = body()
    assert field.removesuffix("∅") in shown
    assert field.endswith("∅") or shown[field] is not None


def test_the_stock_clients_model_accepts_it_strictly() -> None:
    tool = {"type": "function", "name": "f", "parameters": {}, "strict": True}
    openai.types.responses.Response.model_validate(body(tools=[tool], conversation="conv_1"))


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ({"temperature": 0}, {"temperature": 0}),
        ({"store": False, "background": True}, {"store": False, "background": True}),
        ({"temperature": None, "tools": None, "metadata": None}, {"temperature": 1.0, "tools": [], "metadata": {}}),
        ({"text": {"verbosity": "low"}}, {"text": {"verbosity": "low", "format": {"type": "text"}}}),
        ({"service_tier": "auto"}, {"service_tier": "default"}),
        ({"conversation": "conv_1"}, {"conversation": {"id": "conv_1"}}),
        ({"conversation": {"id": "conv_1"}}, {"conversation": {"id": "conv_1"}}),
        ({"user": "u"}, {"user": "u"}),
        (
            {"tools": [{"type": "function", "name": "f"}, {"type": "web_search"}]},
            {
                "tools": [
                    {"type": "function", "name": "f", "description": None, "parameters": None, "strict": None},
                    {"type": "web_search"},
                ]
            },
        ),
    ],
)
def test_what_the_caller_gave_is_echoed(given: dict[str, Any], shown: dict[str, Any]) -> None:
    assert {name: body(**given)[name] for name in shown} == shown


def test_only_a_completed_response_says_when() -> None:
    assert body()["completed_at"] == 7
    ended = Outcome("failed", error={"code": "server_error", "message": "x"})
    failed = response_body(TEMPLATE, status="failed", output=[], outcome=ended, completed_at=7)
    assert failed["completed_at"] is None and failed["error"] == ended.error


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, None),
        ({}, None),
        ({"input_tokens": 1, "output_tokens": 2}, (1, 0, 2, 0, 3)),
        ({"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 9}, (1, 0, 2, 0, 9)),
        (
            {
                "input_tokens": 5,
                "input_tokens_details": {"cached_tokens": 4},
                "output_tokens_details": {"reasoning_tokens": 3},
            },
            (5, 4, 0, 3, 5),
        ),
        ({"input_tokens": "many", "output_tokens": -1, "total_tokens": True}, (0, 0, 0, 0, 0)),
        ({"input_tokens": 1e300}, (0, 0, 0, 0, 0)),
    ],
)
def test_usage_has_its_full_shape(given: Any, expected: tuple[int, ...] | None) -> None:
    usage = usage_of(given)
    found = usage and (
        usage["input_tokens"],
        usage["input_tokens_details"]["cached_tokens"],
        usage["output_tokens"],
        usage["output_tokens_details"]["reasoning_tokens"],
        usage["total_tokens"],
    )
    assert found == expected


@pytest.mark.parametrize(
    ("given", "reason"),
    [({"reason": "length"}, "max_output_tokens"), ({"reason": "steered"}, "steered"), (None, "max_output_tokens")],
)
def test_an_incomplete_response_has_a_reason(given: Any, reason: str) -> None:
    assert incomplete_details_of(given) == {"reason": reason}


def test_a_cut_message_is_valid_text_within_its_bound() -> None:
    assert len(bounded("🙂" * 100, 50).encode()) <= 50
    assert bounded("short", 50) == "short"
