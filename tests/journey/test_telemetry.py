"""One call is one trace, across the death of its sandbox; what was said is in none of it; a collector that is away costs nothing."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from fakes.otlp import Collector
from fakes.platform import Platform, poll

pytestmark = pytest.mark.journey

SERVER, CLIENT = 2, 3


def test_one_trace_holds_the_request_and_both_attempts_of_a_killed_turn(
    platform: Platform, collector: Collector
) -> None:
    session, mark = f"session-{uuid.uuid4().hex}", f"mark{uuid.uuid4().hex[:8]}"
    with platform.client("paced") as api:
        raw = api.responses.with_raw_response.create(
            model="paced",
            input=f"100 words every 50 ms {mark}",
            instructions=mark,
            metadata={"about": mark},
            stream=True,
            extra_body={"agent_session_id": session},
        )
        trace_id, deltas, killed = raw.headers["x-moorage-trace-id"], 0, False
        for event in raw.parse():
            deltas += event.type == "response.output_text.delta"
            if deltas == 8 and not killed:
                killed = True
                platform.kill_sandbox("paced", session)
        response: Any = event.response  # type: ignore[union-attr]
    assert response.status == "completed" and response.output_text.split() == [f"w{n}" for n in range(100)]
    record = platform.record("paced", response.id)
    assert record["trace_id"] == trace_id and len(record["attempts"]) == 2

    spans = poll("three spans are exported", lambda: s if len(s := collector.trace(trace_id)) >= 3 else None)
    (root,) = [span for span in spans if span.kind == SERVER]
    attempts = [span for span in spans if span.kind == CLIENT]
    assert root.name == "POST /v1/agents/{agent}/responses" and root.parent_id == ""
    assert root.attributes["http.response.status_code"] == 200 and root.attributes["moorage.session.id"] == session
    assert [span.name for span in attempts] == ["invoke_agent paced"] * 2
    assert {span.parent_id for span in attempts} == {root.span_id}
    assert [span.attributes["moorage.attempt"] for span in attempts] == [1, 2]
    assert [span.failed for span in attempts] == [True, False]
    assert attempts[0].attributes["error.type"] == record["attempts"][0]["reason"]
    for span in attempts:
        assert span.attributes["gen_ai.operation.name"] == "invoke_agent"
        assert span.attributes["gen_ai.agent.name"] == "paced"
        assert span.attributes["gen_ai.response.id"] == response.id
        assert span.attributes["gen_ai.conversation.id"] == session
    said = [mark.encode(), b"w99", platform.api_key.encode()]
    assert not [span.name for span in spans for word in said if word in span.raw], "content was captured"


def test_a_callers_trace_is_continued_down_to_the_agent(platform: Platform, collector: Collector) -> None:
    trace_id, parent = uuid.uuid4().hex, "00f067aa0ba902b7"
    with platform.client("shapes") as api:
        header = {"traceparent": f"00-{trace_id}-{parent}-01"}
        told = json.loads(api.responses.create(model="shapes", input="request", extra_headers=header).output_text)
    spans = poll("two spans are exported", lambda: s if len(s := collector.trace(trace_id)) >= 2 else None)
    root = next(span for span in spans if span.kind == SERVER)
    attempt = next(span for span in spans if span.kind == CLIENT)
    assert root.parent_id == parent and attempt.parent_id == root.span_id
    assert told["headers"]["traceparent"] == f"00-{trace_id}-{attempt.span_id}-01"


def test_an_unsampled_trace_is_not_exported(platform: Platform, collector: Collector) -> None:
    quiet, loud = uuid.uuid4().hex, uuid.uuid4().hex
    with platform.client("shapes") as api:
        for trace_id, flag in ((quiet, "00"), (loud, "01")):
            header = {"traceparent": f"00-{trace_id}-00f067aa0ba902b7-{flag}"}
            raw = api.responses.with_raw_response.create(model="shapes", input="x", extra_headers=header)
            assert raw.headers["x-moorage-trace-id"] == trace_id
    poll("the later trace is exported", lambda: len(collector.trace(loud)) >= 2)
    assert collector.trace(quiet) == []


def test_a_collector_that_refuses_costs_spans_and_nothing_else(platform: Platform, collector: Collector) -> None:
    collector.down, refused = True, collector.refused
    try:
        with platform.client("shapes") as api:
            for n in range(5):
                assert api.responses.create(model="shapes", input=f"{n}").output_text == f"heard {n}"
            poll("an export was refused", lambda: collector.refused > refused)
            assert api.responses.create(model="shapes", input="still").output_text == "heard still"
    finally:
        collector.down = False
    trace_id = uuid.uuid4().hex
    with platform.client("shapes") as api:
        header = {"traceparent": f"00-{trace_id}-00f067aa0ba902b7-01"}
        api.responses.create(model="shapes", input="x", extra_headers=header)
    poll("spans are exported again", lambda: collector.trace(trace_id))
