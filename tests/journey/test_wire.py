"""What is on the wire itself: field sets, numbering, `[DONE]`, headers, pace. Read from a bare socket."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from fakes.platform import Platform
from fakes.wire import Event, Wire

pytestmark = pytest.mark.journey

# Every field that must be present; those that may be null (protocols.md §1.3).
NULLABLE = frozenset(
    {
        "completed_at",
        "incomplete_details",
        "previous_response_id",
        "instructions",
        "error",
        "reasoning",
        "usage",
        "max_output_tokens",
        "max_tool_calls",
        "safety_identifier",
        "prompt_cache_key",
    }
)
REQUIRED = NULLABLE | {
    "id",
    "object",
    "created_at",
    "status",
    "model",
    "output",
    "tools",
    "tool_choice",
    "truncation",
    "parallel_tool_calls",
    "text",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "top_logprobs",
    "temperature",
    "store",
    "background",
    "service_tier",
    "metadata",
}
PACED: Any = {"input": "6 words every 100 ms"}


def whole(response: dict[str, Any]) -> None:
    """Fails when a required field is missing, or null where it may not be."""
    assert response.keys() >= REQUIRED, REQUIRED - response.keys()
    assert not [name for name in REQUIRED - NULLABLE if response[name] is None]
    assert response["object"] == "response" and response["text"]["format"] == {"type": "text"}
    for item in response["output"]:
        assert {"id", "type", "status"} <= item.keys()
        for part in item.get("content", []):
            assert {"type", "text", "annotations"} <= part.keys()


def streamed(wire: Wire) -> list[Event]:
    """The events of an answer that has begun; the last one must be `[DONE]`, and nothing may follow it."""
    assert wire.headers["content-type"].startswith("text/event-stream")
    events = list(wire.events())
    assert events.pop().data == "[DONE]"
    for number, event in enumerate(events):
        assert event.name == event.value["type"]
        assert event.value["sequence_number"] == number
        if "response" in event.value:
            whole(event.value["response"])
    return events


def test_a_stream_is_gapless_complete_and_closed_by_done(platform: Platform) -> None:
    with Wire(platform.url, platform.api_key) as wire:
        wire.ask_json("/v1/agents/paced/responses", PACED | {"stream": True})
        assert wire.head() == 200
        events = streamed(wire)
    assert [e.name for e in events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        *["response.output_text.delta"] * 6,
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert len({e.value["response"]["id"] for e in events if "response" in e.value}) == 1


def test_deltas_arrive_while_the_agent_speaks_each_in_a_chunk_of_its_own(platform: Platform) -> None:
    with Wire(platform.url, platform.api_key) as wire:
        wire.ask_json("/v1/agents/paced/responses", {"input": "10 words every 100 ms", "stream": True})
        wire.head()
        told = [(at, data) for at, data in wire.chunks() if b"response.output_text.delta" in data]
    assert [data.count(b"\n\n") for _, data in told] == [1] * 10
    assert told[-1][0] - told[0][0] > 0.7, "nine gaps of 100 ms are told while they pass"


def test_every_answer_carries_its_session_request_and_trace(platform: Platform) -> None:
    trace = uuid.uuid4().hex
    session = f"session-{trace}"
    with Wire(platform.url, platform.api_key) as wire:
        parent = f"00-{trace}-00f067aa0ba902b7-01"
        body = {"input": "1 words every 1 ms", "agent_session_id": session}
        wire.ask_json("/v1/agents/paced/responses", body, traceparent=parent, x_request_id="request-7")
        assert wire.head() == 200
        response = json.loads(wire.body())
        whole(response)
        assert wire.headers["x-agent-session-id"] == session
        assert wire.headers["x-request-id"] == "request-7"
        assert wire.headers["x-moorage-trace-id"] == trace
        wire.ask("GET", f"/v1/agents/paced/responses/{response['id']}?stream=true")
        assert wire.head() == 200 and wire.headers["x-agent-session-id"] == session
        streamed(wire)
        wire.ask("GET", "/v1/agents/paced/responses/" + "caresp_" + "0" * 18 + "A" * 32)
        assert wire.head() == 404 and wire.headers["x-request-id"] and wire.headers["x-moorage-trace-id"]
    assert platform.record("paced", response["id"])["trace_id"] == trace


@pytest.mark.parametrize("word", ["raise", "crash"])
def test_a_failed_turn_ends_its_stream_in_shape_too(platform: Platform, word: str) -> None:
    with Wire(platform.url, platform.api_key) as wire:
        wire.ask_json("/v1/agents/crasher/responses", {"input": word, "stream": True})
        wire.head()
        events = streamed(wire)
    assert events[-1].name == "response.failed"
    assert events[-1].value["response"]["output"][0]["status"] == "incomplete"


def test_a_caller_that_accepts_only_json_is_streamed_to_all_the_same(platform: Platform) -> None:
    with Wire(platform.url, platform.api_key) as wire:
        wire.ask_json("/v1/agents/paced/responses", {"input": "1", "stream": True}, accept="application/json")
        wire.head()
        streamed(wire)
        wire.ask_json("/v1/agents/paced/responses", {"input": "1"}, accept="text/event-stream")
        assert wire.head() == 200 and wire.headers["content-type"] == "application/json"
