"""What a first attempt becomes: whatever agents leave out or get wrong, the stream that comes out is whole."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from moorage_gateway.turns import items
from moorage_gateway.turns.normalise import Normaliser, response_from_log
from unit.turns_normalise.streams import (
    TEMPLATE,
    Event,
    Turn,
    began,
    call,
    completed,
    kinds,
    message,
    texts,
)

pytestmark = pytest.mark.unit

AT = {"item_id": "m1", "output_index": 0}
DELTA: Event = {"type": "response.output_text.delta", **AT, "content_index": 0, "delta": "hello"}
MESSAGE = [
    "output_item.added",
    "content_part.added",
    "output_text.delta",
    "output_text.done",
    "content_part.done",
    "output_item.done",
]
CALL = [
    "output_item.added",
    "function_call_arguments.delta",
    "function_call_arguments.done",
    "output_item.done",
]
ADDED: Event = {"type": "response.output_item.added", "output_index": 0, "item": {"type": "message", "id": "m1"}}
WHOLE = {"type": "message", "id": "m1", "role": "assistant", "content": [{"type": "output_text", "text": "hello"}]}
WHOLE_CALL = {"type": "function_call", "id": "f1", "call_id": "c1", "name": "search", "arguments": "{}"}

# name → (what the agent sends, what is logged between in_progress and the terminal event)
UPWARD: dict[str, tuple[list[Event], list[str]]] = {
    "a well-behaved stream passes as it is": ([*began(), *message("hello", chunk=9), completed()], MESSAGE),
    "created and in_progress missing": ([*message("hello", chunk=9), completed()], MESSAGE),
    "a lone delta": ([DELTA, completed()], MESSAGE),
    "part events missing": ([ADDED, DELTA, completed()], MESSAGE),
    "indexes and ids missing": (
        [{"type": "response.output_text.delta", "delta": "hello"}, completed()],
        MESSAGE,
    ),
    "deltas missing": (
        [ADDED, {"type": "response.output_item.done", "output_index": 0, "item": WHOLE}, completed()],
        MESSAGE,
    ),
    "only the done item": (
        [{"type": "response.output_item.done", "output_index": 0, "item": WHOLE}, completed()],
        MESSAGE,
    ),
    "only the final response": ([completed(output=[WHOLE])], MESSAGE),
    "content as a plain string": ([completed(output=[{**WHOLE, "content": "hello"}])], MESSAGE),
    "a done text longer than its deltas": (
        [DELTA, {"type": "response.output_text.done", **AT, "content_index": 0, "text": "hello world"}, completed()],
        [*MESSAGE[:3], *MESSAGE[2:]],
    ),
    "a done text that contradicts its deltas": (
        [DELTA, {"type": "response.output_text.done", **AT, "content_index": 0, "text": "other"}, completed()],
        MESSAGE,
    ),
    "the same events twice": ([*began(), *began(), ADDED, ADDED, DELTA, completed(), completed()], MESSAGE),
    "late events of an item that is done": ([*message("hello", chunk=9), DELTA, completed()], MESSAGE),
    "arguments in one piece with the call": (
        [{"type": "response.output_item.added", "output_index": 0, "item": WHOLE_CALL}, completed()],
        CALL,
    ),
    "only the done call": (
        [{"type": "response.output_item.done", "output_index": 0, "item": WHOLE_CALL}, completed()],
        CALL,
    ),
    "argument deltas of an unknown call": (
        [{"type": "response.function_call_arguments.delta", "output_index": 0, "delta": "{}"}, completed()],
        CALL,
    ),
    "empty deltas": (
        [DELTA, {**DELTA, "delta": ""}, {**DELTA, "delta": None}, completed()],
        MESSAGE,
    ),
    "items in the end under other ids": (
        [*message("hello", chunk=9)[:-1], completed(output=[{**WHOLE, "id": "renamed"}])],
        MESSAGE,
    ),
    "annotations only in the done part": (
        [
            DELTA,
            {
                "type": "response.content_part.done",
                **AT,
                "content_index": 0,
                "part": {
                    "type": "output_text",
                    "text": "hello",
                    "annotations": [{"type": "file_path", "file_id": "x"}],
                },
            },
            completed(),
        ],
        [*MESSAGE[:3], "output_text.annotation.added", *MESSAGE[3:]],
    ),
    "content indexes with gaps": (
        [{**DELTA, "content_index": 3}, {**DELTA, "content_index": 7}, completed()],
        [*MESSAGE[:3], *MESSAGE[1:3], *MESSAGE[3:5], *MESSAGE[3:]],
    ),
    "Open Responses reasoning": (
        [
            {"type": "response.reasoning.delta", "item_id": "r", "output_index": 0, "content_index": 0, "delta": "hm"},
            {"type": "response.reasoning.done", "item_id": "r", "output_index": 0, "content_index": 0, "text": "hm"},
            completed(),
        ],
        [
            "output_item.added",
            "content_part.added",
            "reasoning_text.delta",
            "reasoning_text.done",
            "content_part.done",
            "output_item.done",
        ],
    ),
    "a summary without its part": (
        [
            {
                "type": "response.reasoning_summary_text.delta",
                "item_id": "r",
                "output_index": 0,
                "summary_index": 0,
                "delta": "hm",
            },
            completed(),
        ],
        [
            "output_item.added",
            "reasoning_summary_part.added",
            "reasoning_summary_text.delta",
            "reasoning_summary_text.done",
            "reasoning_summary_part.done",
            "output_item.done",
        ],
    ),
    "progress of a search that was never added": (
        [{"type": "response.web_search_call.searching", "item_id": "w", "output_index": 0}, completed()],
        ["output_item.added", "web_search_call.searching", "output_item.done"],
    ),
    "a refusal beside a text under one index": (
        [DELTA, {**DELTA, "type": "response.refusal.delta", "delta": "no"}, completed()],
        [*MESSAGE[:3], "content_part.added", "refusal.delta"]
        + ["output_text.done", "content_part.done", "refusal.done", "content_part.done", "output_item.done"],
    ),
    "no output at all": ([completed()], []),
}


@pytest.mark.parametrize(("sources", "expected"), UPWARD.values(), ids=UPWARD.keys())
def test_the_log_is_whole_whatever_the_agent_leaves_out(sources: list[Event], expected: list[str]) -> None:
    turn = Turn()
    finish = turn.run(sources)
    assert kinds(turn.log) == ["created", "in_progress", *expected, "completed"]
    assert finish.response["status"] == "completed"


def test_what_comes_out_has_our_ids_and_none_of_the_agents() -> None:
    turn = Turn()
    sources = [*began(), *message("hello"), *call("{}", index=1), completed()]
    for source in sources:
        source |= {"response_id": "resp_agent", "agent_reference": {"name": "x"}}
        if "item" in source:
            source["item"] |= {"response_id": "resp_agent", "agent_reference": {"name": "x"}}
    response = turn.run(sources).response
    assert response["id"] == TEMPLATE.response_id and response["model"] == "echo"
    assert [item["id"] for item in response["output"]] == [
        items.item_id(TEMPLATE.response_id, 0, "message"),
        items.item_id(TEMPLATE.response_id, 1, "function_call"),
    ]
    assert response["output"][0]["id"].startswith("msg_") and response["output"][1]["id"].startswith("fc_")
    assert "resp_agent" not in repr(turn.log) and "'m1'" not in repr(turn.log)
    assert all("response_id" not in item and "agent_reference" not in item for item in response["output"])


def test_unknown_events_pass_renumbered_with_their_references_in_our_ids() -> None:
    turn = Turn()
    custom = {
        "type": "acme:note",
        "sequence_number": 77,
        "item_id": "m1",
        "about": [{"type": "item_reference", "id": "m1"}, {"item_ids": ["m1", "other"], "call_id": "m1"}],
    }
    loose = {"type": "acme:progress", "response_id": "resp_agent", "step": 1, "output_index": 9, "error": "oh"}
    turn.run([*began(), *message("hello")[:3], custom, loose, completed()])
    note, progress = (next(e for e in turn.log if e["type"] == k) for k in ("acme:note", "acme:progress"))
    ours = items.item_id(TEMPLATE.response_id, 0, "message")
    assert note["item_id"] == ours and note["output_index"] == 0 and note["sequence_number"] < 77
    assert note["about"] == [{"type": "item_reference", "id": ours}, {"item_ids": [ours, "other"], "call_id": "m1"}]
    assert progress == {
        "type": "acme:progress",
        "sequence_number": progress["sequence_number"],
        "step": 1,
        "agent_error": "oh",
    }


def test_references_between_items_are_in_our_ids() -> None:
    request = {"type": "mcp_approval_request", "id": "ask", "name": "n", "server_label": "s", "arguments": "{}"}
    answer = {"type": "mcp_approval_response", "id": "yes", "approval_request_id": "ask", "approve": True}
    output = Turn().run([completed(output=[request, answer])]).response["output"]
    assert output[1]["approval_request_id"] == output[0]["id"]


def test_several_responses_of_one_agent_become_one() -> None:
    turn = Turn()
    second = [{**e, "response": {**e["response"], "id": "resp_two"}} for e in began()]
    usage = {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}
    end = completed(usage)
    end["response"]["id"] = "resp_two"
    response = turn.run([*began(), *message("one"), completed(usage), *second, *message("two"), end]).response
    assert texts(response["output"]) == [("completed", "one"), ("completed", "two")]
    assert response["usage"]["total_tokens"] == 10
    assert kinds(turn.log).count("created") == kinds(turn.log).count("completed") == 1


def test_the_same_terminal_event_twice_counts_its_usage_once() -> None:
    end = completed({"input_tokens": 3, "output_tokens": 2, "total_tokens": 5})
    assert Turn().run([*began(), *message("one"), end, end]).response["usage"]["total_tokens"] == 5


def test_calls_with_one_call_id_are_told_apart_and_their_outputs_follow() -> None:
    output = {"type": "function_call_output", "id": "o1", "call_id": "c1", "output": "42"}
    sources = [
        *call("{}", source_id="f1", index=0),
        *call("[]", source_id="f2", index=1),
        {"type": "response.output_item.done", "output_index": 2, "item": output},
        completed(),
    ]
    made = Turn().run(sources).response["output"]
    assert [item["call_id"] for item in made] == ["c1", "c1_1", "c1_1"]


def test_a_call_without_call_id_gets_one_that_stays() -> None:
    bare = {"type": "function_call", "id": "f1", "name": "search", "arguments": ""}
    sources = [
        {"type": "response.output_item.added", "output_index": 0, "item": bare},
        {
            "type": "response.output_item.done",
            "output_index": 0,
            "item": {**bare, "call_id": "late", "arguments": "{}"},
        },
        completed(),
    ]
    item = Turn().run(sources).response["output"][0]
    assert item["call_id"].startswith("call_") and item["arguments"] == "{}"


def test_items_that_run_at_once_keep_their_own_texts() -> None:
    one, two = message("aaaa bbbb", source_id="x", index=0), message("cccc dddd", source_id="y", index=1)
    mixed = [event for pair in zip(one, two, strict=True) for event in pair]
    response = Turn().run([*mixed, completed()]).response
    assert texts(response["output"]) == [("completed", "aaaa bbbb"), ("completed", "cccc dddd")]


def test_text_for_a_call_becomes_a_message_of_its_own() -> None:
    response = Turn().run([*call("{}")[:2], {**DELTA, "item_id": "f1"}, completed()]).response
    assert [item["type"] for item in response["output"]] == ["function_call", "message"]


def test_required_fields_are_filled() -> None:
    output = [{"type": kind, "id": kind} for kind in sorted(items.TYPES)] + [{"type": "acme:thing", "id": "t"}]
    made = Turn().run([completed(output=output)]).response["output"]
    assert len(made) == len(output)
    for item in made:
        assert item["id"] and item["status"] == "completed"
        if item["type"].endswith("_call") and "name" in item:
            assert item["name"] == ""


def test_more_items_than_a_response_holds_fail_the_turn_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(items, "MAX_ITEMS", 5)
    turn = Turn()
    sources = [e for i in range(9) for e in message("x", source_id=f"m{i}", index=i)]
    response = turn.run([*sources, completed()]).response
    assert len(response["output"]) == 5 and response["status"] == "failed"
    assert "5 output items" in response["error"]["message"]


def test_more_parts_than_an_item_holds_fail_the_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(items, "MAX_PARTS", 3)
    response = Turn().run([*message(*"abcdef"), completed()]).response
    assert response["status"] == "failed" and "parts" in response["error"]["message"]
    assert len(response["output"][0]["content"]) == 3


def test_values_nested_without_end_are_cut() -> None:
    deep: Any = "x"
    for _ in range(140):
        deep = {"a": [deep]}
    turn = Turn()
    logprobs = {**DELTA, "logprobs": [deep]}
    custom = {"type": "acme:deep", "value": deep}
    turn.run([logprobs, logprobs, custom, completed(output=[{**WHOLE}, {"type": "acme:thing", "value": deep}])])
    assert len(orjson.dumps(turn.log)) < 40_000  # the writer refuses more than 254 levels


def test_a_running_turn_reads_as_its_log_tells() -> None:
    turn = Turn()
    turn.attempt([*began(), *message("done"), *call('{"a"', index=1)[:-2]])
    response = response_from_log(TEMPLATE, turn.log, status="in_progress")
    assert response["status"] == "in_progress" and response["usage"] is None
    assert texts(response["output"][:1]) == [("completed", "done")]
    assert response["output"][1]["status"] == "in_progress" and response["output"][1]["arguments"] == '{"a"'


def test_an_ended_turn_reads_as_its_terminal_event_tells() -> None:
    turn = Turn()
    finish = turn.run([*message("done"), completed()])
    assert response_from_log(TEMPLATE, turn.log, status="in_progress") == finish.response


def test_feeding_never_changes_what_it_was_given() -> None:
    turn = Turn()
    sources = [*began(), *message("hello", "there"), *call("{}", index=1), completed(output=[dict(WHOLE)])]
    before = repr(sources)
    normaliser = Normaliser(TEMPLATE, turn.log, continues=False)
    for source in sources:
        normaliser.feed(source)
    assert repr(sources) == before
