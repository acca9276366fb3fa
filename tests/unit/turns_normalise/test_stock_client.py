"""The stock openai client reads our streams: its `responses.stream()` helper over a transport without a network."""

from __future__ import annotations

import json

import httpx2
import openai
import pytest

from moorage_gateway.turns.normalise import Outcome
from unit.turns_normalise.streams import TEMPLATE, Event, Turn, began, call, completed, message

pytestmark = pytest.mark.unit


def client_for(events: list[Event]) -> openai.OpenAI:
    """A client whose server answers every request with `events` on the wire."""
    wire = "".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n" for e in events) + "data: [DONE]\n\n"

    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, text=wire)

    transport = httpx2.MockTransport(answer)
    return openai.OpenAI(
        api_key="k", base_url="http://moorage.test/v1", http_client=httpx2.Client(transport=transport), max_retries=0
    )


def interrupted() -> Turn:
    """Three attempts: cut, different, cut again; then to the end with a call whose id was used before."""
    turn = Turn()
    turn.attempt([*began(), *message("hello world")[:4]])
    turn.attempt([*began(), *message("help me"), *call('{"a": 1}', index=1)[:3]])
    turn.attempt([*began(), *message("help me", chunk=2), *call('{"a": 2}', index=1), completed()])
    return turn


def test_the_streaming_helper_accepts_an_interrupted_and_diverging_turn() -> None:
    turn = interrupted()
    finish = turn.finish()
    with client_for(turn.log) as client, client.responses.stream(model="echo", input="hi") as stream:
        seen = [event.type for event in stream]
        final = stream.get_final_response()
    assert seen == [event["type"] for event in turn.log]
    assert final.id == TEMPLATE.response_id and final.status == "completed"
    assert [item.id for item in final.output] == [item["id"] for item in finish.response["output"]]
    assert final.output_text == "hello wohelp me"
    assert final.usage is None


def test_the_streaming_helper_accepts_a_turn_that_failed_and_shows_its_error() -> None:
    turn = Turn()
    turn.attempt([*message("hello")[:3], {"type": "error", "error": {"code": "server_error", "message": "boom"}}])
    turn.finish()
    with client_for(turn.log) as client, client.responses.stream(model="echo", input="hi") as stream:
        events = list(stream)
    assert [event.type for event in events[-2:]] == ["error", "response.failed"]
    last = events[-1]
    assert last.type == "response.failed" and last.response.error is not None
    assert last.response.error.message == "boom"


def test_a_plain_stream_reads_a_cancelled_turn_to_its_end() -> None:
    turn = interrupted()
    turn.finish(Outcome("cancelled"))
    with client_for(turn.log) as client, client.responses.create(model="echo", input="hi", stream=True) as stream:
        last = list(stream)[-1]
    assert last.type == "response.failed" and last.response.status == "cancelled"
