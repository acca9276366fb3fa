"""Typed events become an ordered, gapless stream in which every item is opened and closed once."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage import events
from moorage.serve import shapes
from moorage.serve.rendering import Rendering

pytestmark = pytest.mark.unit

ID = "caresp_0123456789abcdef00" + "A" * 32
REQUIRED = (
    "id object created_at completed_at status incomplete_details model previous_response_id instructions output error tools "
    "tool_choice truncation parallel_tool_calls text top_p presence_penalty frequency_penalty top_logprobs temperature reasoning "
    "usage max_output_tokens max_tool_calls store background service_tier metadata safety_identifier prompt_cache_key"
).split()

texts = st.text(max_size=12)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | texts,
    lambda inner: st.dictionaries(texts, inner, max_size=3),
    max_leaves=4,
)
messages = st.fixed_dictionaries(
    {
        "type": st.just("message"),
        "content": texts
        | st.lists(
            st.fixed_dictionaries({"type": st.just("output_text"), "text": texts})
            | st.fixed_dictionaries({"type": st.just("refusal"), "refusal": texts}),
            max_size=3,
        ),
    }
)
whole_items = st.fixed_dictionaries(
    {"type": st.sampled_from(["web_search_call", "mcp_approval_request", "acme:thing"]), "x": json_values}
)
calls = st.fixed_dictionaries(
    {
        "type": st.just("function_call"),
        "call_id": texts,
        "name": texts,
        "arguments": texts | st.dictionaries(texts, texts, max_size=2),
    }
)
agent_events = st.one_of(
    st.builds(events.TextDelta, texts),
    st.builds(events.ReasoningDelta, texts),
    st.builds(events.ToolCall, texts, texts, st.dictionaries(texts, json_values, max_size=2) | texts),
    st.builds(events.ToolResult, texts, json_values),
    st.builds(events.Usage, st.integers(0, 9), st.integers(0, 9), st.integers(0, 9), st.integers(0, 9)),
    st.builds(events.Item, messages | whole_items | calls),
)
endings = st.sampled_from(["complete", "incomplete", "fail", "cancel"])


def rendering() -> Rendering:
    return Rendering(shapes.response(ID, created_at=1, body={}, model="m", session="s" * 8))


def tell(given_events: list[events.Event], ending: str = "complete") -> list[dict[str, Any]]:
    r = rendering()
    told = r.start()
    for event in given_events:
        told += r.feed(event)
    match ending:
        case "complete":
            told += r.complete(2.5)
        case "incomplete":
            told += r.complete(2.5, "max_output_tokens")
        case "fail":
            told += r.fail(2.5, "server_error", "no")
        case "cancel":
            told += r.cancel(2.5)
    return json.loads(json.dumps(told))


class Reader:
    """Reads a stream as a strict client would; every method asserts what the protocol demands of that event."""

    def __init__(self) -> None:
        self.items: dict[int, dict[str, Any]] = {}
        self.open: int | None = None
        self.part: int | None = None
        self.accumulated = ""

    def read(self, event: dict[str, Any]) -> None:
        kind = event["type"]
        if kind == "response.output_item.added":
            assert self.open is None and event["output_index"] == len(self.items)
            assert event["item"]["status"] == "in_progress" and event["item"]["id"]
            self.open, self.part = event["output_index"], None
            self.items[self.open] = event["item"]
        elif kind == "response.content_part.added":
            self._within(event)
            assert self.part is None and event["part"].get("text", event["part"].get("refusal")) == ""
            self.part, self.accumulated = event["content_index"], ""
        elif kind.endswith(".delta"):
            self._within(event)
            assert event["delta"] != ""
            self.accumulated += event["delta"]
        elif kind in ("response.output_text.done", "response.reasoning_text.done", "response.refusal.done"):
            self._within(event)
            assert event.get("text", event.get("refusal")) == self.accumulated
        elif kind == "response.function_call_arguments.done":
            self._within(event)
            assert event["arguments"] == self.accumulated
            self.accumulated = ""
        elif kind == "response.content_part.done":
            self._within(event)
            assert event["content_index"] == self.part
            assert event["part"].get("text", event["part"].get("refusal")) == self.accumulated
            self.part, self.accumulated = None, ""
        elif kind == "response.output_item.done":
            assert event["output_index"] == self.open and self.part is None
            begun = self.items[event["output_index"]]
            assert (begun["id"], begun["type"]) == (event["item"]["id"], event["item"]["type"])
            self.items[event["output_index"]] = event["item"]
            self.open = None

    def _within(self, event: dict[str, Any]) -> None:
        assert event["output_index"] == self.open and event["item_id"] == self.items[event["output_index"]]["id"]


@given(st.lists(agent_events, max_size=8), endings)
def test_any_sequence_of_events_is_told_in_order_without_a_gap(sequence: list[events.Event], ending: str) -> None:
    told = tell(sequence, ending)
    assert [e["sequence_number"] for e in told] == list(range(len(told)))
    assert [e["type"] for e in told[:2]] == ["response.created", "response.in_progress"]
    reader = Reader()
    for event in told:
        reader.read(event)
    final = told[-1]["response"]
    assert reader.open is None
    assert final["output"] == [reader.items[i] for i in range(len(reader.items))]
    statuses = {"complete": "completed", "incomplete": "incomplete", "fail": "failed", "cancel": "cancelled"}
    kinds = {**statuses, "cancel": "failed"}
    assert final["status"] == statuses[ending] and told[-1]["type"] == f"response.{kinds[ending]}"
    assert sum(e["type"] in ("response.completed", "response.failed", "response.incomplete") for e in told) == 1
    assert len({item["id"] for item in final["output"]}) == len(final["output"])


@given(st.lists(agent_events, max_size=8))
def test_the_same_events_give_the_same_stream_and_ids(sequence: list[events.Event]) -> None:
    assert tell(sequence) == tell(sequence)


@given(st.lists(st.builds(events.TextDelta, texts), min_size=1, max_size=6))
def test_consecutive_text_is_one_message_with_all_of_it(sequence: list[events.TextDelta]) -> None:
    output = tell(list(sequence))[-1]["response"]["output"]
    whole = "".join(event.text for event in sequence)
    assert [item["content"][0]["text"] for item in output] == ([whole] if whole else [])


def test_every_response_has_all_required_fields() -> None:
    for event in tell([events.TextDelta("x")]):
        if "response" in event:
            assert [name for name in REQUIRED if name not in event["response"]] == []


def test_text_after_a_tool_call_is_a_message_of_its_own() -> None:
    told = tell(
        [
            events.TextDelta("a"),
            events.ToolCall("c1", "look", {"at": 1}),
            events.ToolResult("c1", {"n": 2}),
            events.TextDelta("b"),
        ]
    )
    output = told[-1]["response"]["output"]
    assert [item["type"] for item in output] == ["message", "function_call", "function_call_output", "message"]
    assert output[1]["arguments"] == '{"at":1}' and output[2]["output"] == '{"n":2}'


def test_usage_adds_up() -> None:
    used = tell([events.Usage(1, 2, 1, 0), events.Usage(10, 20, 0, 5)])[-1]["response"]["usage"]
    assert used == {
        "input_tokens": 11,
        "input_tokens_details": {"cached_tokens": 1},
        "output_tokens": 22,
        "output_tokens_details": {"reasoning_tokens": 5},
        "total_tokens": 33,
    }


def test_a_failure_closes_the_open_item_incomplete_and_says_why() -> None:
    told = tell([events.TextDelta("half")], "fail")
    assert [e["type"] for e in told[-3:]] == ["response.output_item.done", "error", "response.failed"]
    assert told[-3]["item"]["status"] == "incomplete"
    assert told[-1]["response"]["error"] == {"code": "server_error", "message": "no"}


@pytest.mark.parametrize(
    "bad",
    [
        events.TextDelta(7),  # type: ignore[arg-type]
        events.ToolCall("c", "n", {"x": object()}),
        events.ToolCall("c", "n", {"x": float("nan")}),
        events.ToolResult("c", object()),
        events.Item({"type": "message", "content": 3}),
        events.Item({"type": "message", "content": [{"type": "output_text"}]}),
        events.Item({"no": "type"}),
    ],
)
def test_an_event_that_json_cannot_hold_is_refused_and_changes_nothing(bad: events.Event) -> None:
    r = rendering()
    told = r.start() + r.feed(events.TextDelta("a"))
    with pytest.raises((TypeError, ValueError)):
        r.feed(bad)
    told += r.feed(events.TextDelta("b")) + r.complete(3)
    assert [e["sequence_number"] for e in told] == list(range(len(told)))
    assert told[-1]["response"]["output"][0]["content"][0]["text"] == "ab"


def test_an_item_changed_by_the_agent_afterwards_is_not_changed_in_the_answer() -> None:
    mine = {"type": "acme:thing", "list": [1]}
    r = rendering()
    r.feed(events.Item(mine))
    mine["list"].append(2)  # type: ignore[attr-defined]
    assert r.response["output"][0]["list"] == [1]
