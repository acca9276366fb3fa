"""How a turn ends: the agent's outcome passed on, the interrupted and the cancelled closed properly."""

from __future__ import annotations

from typing import Any

import pytest

from moorage_gateway.turns.normalise import Normaliser, Outcome, created_event
from unit.turns_normalise.streams import TEMPLATE, Event, Turn, check_stream, completed, kinds, message, texts

pytestmark = pytest.mark.unit

DELTA: Event = {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "hello"}


def failed(error: Any) -> Event:
    return {"type": "response.failed", "response": {"id": "resp_agent", "status": "failed", "error": error}}


ERRORS: dict[str, tuple[list[Event], dict[str, Any]]] = {
    "a known code": (
        [failed({"code": "rate_limit_exceeded", "message": "slow down"})],
        {"code": "rate_limit_exceeded", "message": "slow down"},
    ),
    "an unknown code": (
        [failed({"code": "storage_error", "message": "disk"})],
        {"code": "server_error", "message": "disk", "type": "storage_error"},
    ),
    "a synonym": (
        [failed({"type": "too_many_requests", "message": "slow"})],
        {"code": "rate_limit_exceeded", "message": "slow", "type": "too_many_requests"},
    ),
    "a flat error alone": (
        [{"type": "error", "code": "server_error", "message": "boom", "param": None}],
        {"code": "server_error", "message": "boom"},
    ),
    "a nested error alone": (
        [{"type": "error", "error": {"type": "model_error", "code": None, "message": "boom", "param": "x"}}],
        {"code": "server_error", "message": "boom", "type": "model_error", "param": "x"},
    ),
    "a nested error before a bare failed": (
        [{"type": "error", "error": {"code": "server_error", "message": "boom"}}, failed(None)],
        {"code": "server_error", "message": "boom"},
    ),
    "cancelled by the agent": (
        [{"type": "response.cancelled", "response": {"status": "cancelled"}}],
        {"code": "server_error", "message": "The agent cancelled its own response."},
    ),
}


WAITS = {"type": "mcp_approval_request", "id": f"mcpa_call_{'0' * 32}", "server_label": "t", "name": "put", "arguments": "{}"}  # fmt: skip


def test_what_waits_for_a_person_stands_behind_the_agents_output_and_only_once() -> None:
    turn = Turn()
    turn.attempt([*message("done"), completed()])
    assert turn.last is not None
    finish = turn.last.finish(Outcome("completed"), completed_at=1, asked=[WAITS])
    assert [item["type"] for item in finish.response["output"]] == ["message", "mcp_approval_request"]
    assert finish.response["output"][1] == WAITS | {"status": "completed"}
    turn.log += finish.events  # whoever logged this has died before the end
    again = Normaliser(TEMPLATE, turn.log, continues=True)
    ended = again.finish(Outcome("completed"), completed_at=1, asked=[WAITS])
    assert ended.events == [] and ended.response["output"] == finish.response["output"]
    check_stream([*turn.log, ended.terminal])


@pytest.mark.parametrize(("sources", "error"), ERRORS.values(), ids=ERRORS.keys())
def test_an_error_the_agent_reports_is_passed_on(sources: list[Event], error: dict[str, Any]) -> None:
    turn = Turn()
    response = turn.run([*message("hello world")[:4], *sources]).response
    assert response["status"] == "failed" and response["error"] == error
    assert texts(response["output"]) == [("incomplete", "hello wo")]
    reported = any(source["type"] == "error" for source in sources)
    assert kinds(turn.log)[-2:] == (["error", "failed"] if reported else ["output_item.done", "failed"])
    flat = turn.log[-2]
    assert not reported or ("error" not in flat and flat["message"] == error["message"])


def test_a_failure_without_a_message_says_where_to_look() -> None:
    assert "log" in Turn().run([failed({})]).response["error"]["message"]


def test_a_long_error_is_cut_to_eight_kibibytes() -> None:
    text = Turn().run([failed({"message": "ü" * 20_000})]).response["error"]["message"]
    assert len(text.encode()) <= 8192 and text.endswith("(cut)")


def test_an_incomplete_end_says_why() -> None:
    end = {"type": "response.incomplete", "response": {"incomplete_details": {"reason": "content_filter"}}}
    turn = Turn()
    response = turn.run([*message("hello world")[:4], end]).response
    assert response["status"] == "incomplete" and response["incomplete_details"] == {"reason": "content_filter"}
    assert texts(response["output"]) == [("incomplete", "hello wo")]
    assert response["completed_at"] is None


def test_an_interrupted_turn_closes_what_is_open_once() -> None:
    turn = Turn()
    turn.attempt([*message("done"), *message("open and on", source_id="m2", index=1)[:4]])
    assert turn.last is not None and turn.last.outcome is None
    closing = turn.last.interrupt()
    assert kinds(closing) == ["output_text.done", "content_part.done", "output_item.done"]
    turn.log += closing
    assert turn.last.feed(DELTA) == []
    finish = turn.finish(Outcome("cancelled"))
    check_stream(turn.log)
    assert finish.events == [] and finish.response["status"] == "cancelled" and finish.response["error"] is None
    assert finish.terminal["type"] == "response.failed"
    assert texts(finish.response["output"]) == [("completed", "done"), ("incomplete", "open and")]


def test_an_end_may_be_asked_for_again_with_another_outcome() -> None:
    turn = Turn()
    turn.attempt([*message("open")[:3], {"type": "error", "message": "boom"}])
    assert turn.last is not None and turn.last.outcome is not None
    failure = turn.last.finish(turn.last.outcome, completed_at=None)
    cancelled = turn.last.finish(Outcome("cancelled"), completed_at=None)
    assert cancelled.events == failure.events[:-1]
    check_stream([*turn.log, *failure.events, failure.terminal])
    check_stream([*turn.log, *cancelled.events, cancelled.terminal])


def test_a_turn_that_never_ran_ends_after_queued() -> None:
    log = created_event(TEMPLATE, queued=True)
    assert [(e["type"], e["response"]["status"]) for e in log] == [
        ("response.created", "queued"),
        ("response.queued", "queued"),
    ]
    finish = Normaliser(TEMPLATE, log, continues=False).finish(Outcome("cancelled"), completed_at=None)
    check_stream([*log, *finish.events, finish.terminal])
    assert finish.response["output"] == []


def test_an_empty_log_gets_its_beginning() -> None:
    turn = Turn(log=[])
    turn.run([DELTA, completed()])
