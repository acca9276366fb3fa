"""Turns as a caller sees them: the queue of a session, its bound, deadlines, and what an agent's own faults look like."""

from __future__ import annotations

import concurrent.futures
import uuid
from typing import Any

import openai
import pytest

from fakes.platform import Platform, poll

pytestmark = pytest.mark.journey


def in_session(session: str) -> Any:
    return {"extra_body": {"agent_session_id": session}}


def new_session() -> str:
    return f"session-{uuid.uuid4().hex}"


def test_turns_of_one_session_run_in_order_and_never_together(platform: Platform) -> None:
    session = new_session()
    with platform.client("paced") as api:
        made = [
            api.responses.create(
                model="paced", input=f"{words} words every 20 ms", background=True, **in_session(session)
            )
            for words in (100, 5, 5, 5)
        ]
        assert [r.status for r in made][1:] == ["queued"] * 3

        def ended() -> Any:
            now = [api.responses.retrieve(r.id) for r in made]
            return now if all(r.status == "completed" for r in now) else None

        poll("all four turns end", ended)
    records = [platform.record("paced", r.id) for r in made]
    spans = [(r["attempts"][0]["started_at"], r["attempts"][0]["ended_at"]) for r in records]
    assert all(earlier[1] <= later[0] for earlier, later in zip(spans, spans[1:], strict=False)), spans
    assert {r["session"] for r in records} == {session}


def test_a_waiting_foreground_call_is_answered_after_the_turn_before_it(platform: Platform) -> None:
    session = new_session()
    with platform.client("paced") as api, concurrent.futures.ThreadPoolExecutor() as pool:
        first = api.responses.create(
            model="paced", input="15 words every 30 ms", background=True, **in_session(session)
        )
        second = pool.submit(api.responses.create, model="paced", input="3 words every 5 ms", **in_session(session))
        assert second.result(timeout=30).output_text == "w0 w1 w2 "
        assert api.responses.retrieve(first.id).status == "completed"


def test_a_full_queue_is_a_429_that_says_when_to_come_back(platform: Platform) -> None:
    session = new_session()
    with platform.client("brief") as api:
        running = api.responses.create(model="brief", input="wait", background=True, **in_session(session))
        waiting = api.responses.create(model="brief", input="x", background=True, **in_session(session))
        with pytest.raises(openai.RateLimitError) as refused:
            api.responses.create(model="brief", input="y", **in_session(session))
        assert int(refused.value.response.headers["retry-after"]) >= 1
        assert refused.value.code == "queue_full"
        api.responses.cancel(running.id)
        ended = poll("the waiting turn runs", lambda: api.responses.retrieve(waiting.id).status == "completed")
    assert ended


def test_a_turn_past_its_deadline_fails_and_says_which_setting_it_was(platform: Platform) -> None:
    session = new_session()
    with platform.client("brief") as api:
        assert api.responses.create(model="brief", input="x", **in_session(session)).output_text == "ok"
        response = api.responses.create(
            model="brief", input="wait", **in_session(session)
        )  # a sandbox is part of its time
    assert response.status == "failed" and response.error is not None
    assert "turn.timeout" in response.error.message and "deadline" in response.error.message
    assert response.output[0].status == "incomplete"  # type: ignore[union-attr]
    with platform.client("brief") as api:
        assert api.responses.create(model="brief", input="again", **in_session(session)).output_text == "ok"


def test_an_agent_that_raises_fails_the_response_with_its_own_words(platform: Platform) -> None:
    session = new_session()
    with platform.client("crasher") as api:
        response = api.responses.create(model="crasher", input="raise", **in_session(session))
        events = list(api.responses.create(model="crasher", input="raise", stream=True, **in_session(session)))
        after = api.responses.create(model="crasher", input="hello", **in_session(session))
    assert response.status == "failed" and response.error is not None
    assert response.error.code == "server_error" and "ValueError: told to raise" in response.error.message
    assert events[-1].type == "response.failed"
    assert after.output_text == "began ok"
    assert [a["reason"] for a in platform.record("crasher", response.id)["attempts"]] == ["failed"]


def test_an_agent_that_crashes_twice_at_one_point_fails_with_its_last_lines(platform: Platform) -> None:
    session = new_session()
    with platform.client("crasher") as api:
        response = api.responses.create(model="crasher", input="crash", **in_session(session))
        after = api.responses.create(model="crasher", input="hello", **in_session(session))
    assert response.status == "failed" and response.error is not None
    assert "twice" in response.error.message and "about to crash" in response.error.message
    record = platform.record("crasher", response.id)
    # The last two at one point; earlier ones may have died before their word was seen, which is another point.
    assert {a["reason"] for a in record["attempts"]} == {"exit"}
    assert len({a["events_after"] for a in record["attempts"]}) == len(record["attempts"]) - 1
    assert record["attempts"][-1]["events_after"] == record["attempts"][-2]["events_after"]
    assert "about to crash" in record["attempts"][-1]["log_tail"]
    assert after.output_text == "began ok", "the session goes on"


def test_a_turn_goes_on_when_its_caller_has_left(platform: Platform) -> None:
    with platform.client("paced") as api:
        stream = api.responses.create(model="paced", input="25 words every 20 ms", stream=True)
        response_id = next(stream).response.id  # type: ignore[union-attr]
        stream.close()

        def ended() -> Any:
            found = api.responses.retrieve(response_id)
            return found if found.status != "in_progress" else None

        assert poll("the turn ends", ended).output_text.split()[-1] == "w24"


def test_the_record_says_who_where_and_with_what(platform: Platform) -> None:
    with platform.client("paced") as api:
        response = api.responses.create(model="paced", input="2 words every 5 ms")
    record = platform.record("paced", response.id)
    assert (record["tenant"], record["user"], record["agent"]) == ("dev", "dev", "paced")
    assert record["session"] == response.agent_session_id  # type: ignore[attr-defined]
    assert record["status"] == "completed" and record["ended_at"] >= record["accepted_at"]
    assert len(record["trace_id"]) == 32 and "workspace_checkpoint" in record
    attempt = record["attempts"][0]
    assert attempt["sandbox"].startswith("sb-") and attempt["epoch"] > 0
    assert attempt["revision"] == record["revision"] == record["versions"]["revision"]
    assert record["accepted_at"] <= attempt["started_at"] <= attempt["ended_at"] <= record["ended_at"]


def test_a_foreground_turn_that_lasts_is_proved_in_the_store_until_it_ends(platform: Platform) -> None:
    """Redis and its owner may be lost together: only that object tells then that there was a turn (decisions/0010)."""
    with platform.client("paced") as client:
        stream = client.responses.create(model="paced", input="60 50", stream=True)
        events = iter(stream)
        proof = f"open/{next(events).response.id}.json"
        poll("the proof of the turn", lambda: proof in platform.stored.names("open/"), within=20)
        assert [event.type for event in events][-1] == "response.completed"
    poll("the end of the proof", lambda: proof not in platform.stored.names("open/"), within=20)
