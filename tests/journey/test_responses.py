"""Every operation of the Responses API by the stock client, one at a time."""

from __future__ import annotations

import json
import uuid
from typing import Any

import openai
import pytest

from fakes.platform import Platform, poll

pytestmark = pytest.mark.journey

UNKNOWN = "caresp_" + "0" * 16 + "00" + "A" * 32


def new_session() -> str:
    return f"session-{uuid.uuid4().hex}"


def slow(words: int = 60, pace: int = 50) -> Any:
    return {"model": "paced", "input": f"{words} words every {pace} ms"}


QUICK: Any = {"model": "paced", "input": "5 words every 5 ms"}
FIVE = "w0 w1 w2 w3 w4 "


def test_a_plain_call_answers_with_the_whole_response(platform: Platform) -> None:
    with platform.client("paced") as api:
        response = api.responses.create(
            **QUICK, instructions="Be brief.", metadata={"ticket": "42"}, temperature=0.5, user="ada"
        )
    assert (response.status, response.output_text) == ("completed", FIVE)
    assert (response.model, response.instructions, response.metadata) == ("paced", "Be brief.", {"ticket": "42"})
    assert (response.temperature, response.user, response.error) == (0.5, "ada", None)
    assert response.completed_at is not None and response.completed_at >= response.created_at
    assert response.agent_reference["name"] == "paced"  # type: ignore[attr-defined]


def test_a_stream_is_told_while_the_agent_speaks(platform: Platform) -> None:
    with platform.client("paced") as api:
        events = list(api.responses.create(**QUICK, stream=True))
    assert [event.type for event in events[:2]] == ["response.created", "response.in_progress"]
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == FIVE
    assert [e.sequence_number for e in events] == list(range(len(events)))
    assert events[-1].type == "response.completed" and events[-1].response.output_text == FIVE


def test_the_streaming_helper_accepts_the_stream_and_gives_the_same_response(platform: Platform) -> None:
    with platform.client("paced") as api:
        with api.responses.stream(**QUICK) as stream:
            said = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
            final = stream.get_final_response()
        again = api.responses.retrieve(final.id)
    assert said == final.output_text == again.output_text == FIVE


def test_a_background_call_answers_at_once_and_ends_by_itself(platform: Platform) -> None:
    with platform.client("paced") as api:
        begun = api.responses.create(**slow(20, 20), background=True)
        assert begun.status in ("queued", "in_progress") and begun.background is True

        def ended() -> Any:
            found = api.responses.retrieve(begun.id)
            return found if found.status not in ("queued", "in_progress") else None

        assert poll("the background response ends", ended).output_text.split() == [f"w{n}" for n in range(20)]


def test_a_live_response_is_read_again_from_a_cursor(platform: Platform) -> None:
    with platform.client("paced") as api:
        first = api.responses.create(**slow(30, 20), background=True, stream=True)
        seen = [next(first) for _ in range(8)]
        first.close()
        cursor = seen[-1].sequence_number
        response_id = seen[0].response.id  # type: ignore[union-attr]
        rest = list(api.responses.retrieve(response_id, stream=True, starting_after=cursor))
        assert [e.sequence_number for e in rest] == list(range(cursor + 1, cursor + 1 + len(rest)))
        whole = list(api.responses.retrieve(response_id, stream=True))
    assert [e.to_dict() for e in whole] == [e.to_dict() for e in [*seen, *rest]]
    assert whole[-1].type == "response.completed"


def test_an_ended_response_is_replayed_the_same_from_any_cursor(platform: Platform) -> None:
    with platform.client("paced") as api:
        live = [event.to_dict() for event in api.responses.create(**QUICK, stream=True)]
        response_id = live[0]["response"]["id"]  # type: ignore[index]
        for cursor in (None, 0, 3, len(live) - 2):
            options: Any = {} if cursor is None else {"starting_after": cursor}
            again = [event.to_dict() for event in api.responses.retrieve(response_id, stream=True, **options)]
            assert again == live[0 if cursor is None else cursor + 1 :]
        for past in (len(live) - 1, len(live) + 1_000):
            beyond = [e.to_dict() for e in api.responses.retrieve(response_id, stream=True, starting_after=past)]
            assert beyond == live[-1:], "past the end the terminal event alone is told"


def test_a_plain_foreground_response_can_be_streamed_afterwards(platform: Platform) -> None:
    with platform.client("paced") as api:
        response = api.responses.create(**QUICK)
        events = list(api.responses.retrieve(response.id, stream=True))
    assert [e.sequence_number for e in events] == list(range(len(events)))
    assert events[-1].response.output_text == FIVE  # type: ignore[union-attr]


@pytest.mark.parametrize("background", [True, False])
def test_a_running_response_is_cancelled_and_its_stream_ends(platform: Platform, background: bool) -> None:
    with platform.client("paced") as api:
        stream = api.responses.create(**slow(), stream=True, background=background)
        for event in stream:
            if event.type == "response.created":
                response_id = event.response.id
            if event.type == "response.output_text.delta":
                break
        cancelled = api.responses.cancel(response_id)
        rest = list(stream)
        assert cancelled.status == "cancelled"
        assert rest[-1].response.status == "cancelled"  # type: ignore[union-attr]
        assert api.responses.cancel(response_id).status == "cancelled"
        kept = api.responses.retrieve(response_id)
    assert kept.status == "cancelled" and kept.output[0].status == "incomplete"  # type: ignore[union-attr]
    assert platform.record("paced", response_id)["attempts"][0]["ended_at"]


def test_a_waiting_plain_call_is_answered_when_another_cancels_it(platform: Platform) -> None:
    session = new_session()
    with platform.client("paced") as api, platform.client("paced", timeout=30) as other:
        running = other.responses.create(**slow(), background=True, extra_body={"agent_session_id": session})
        queued = other.responses.create(**QUICK, background=True, extra_body={"agent_session_id": session})
        assert queued.status == "queued"
        assert api.responses.cancel(queued.id).status == "cancelled"
        assert api.responses.retrieve(queued.id).status == "cancelled"
        assert api.responses.retrieve(running.id).status == "in_progress"
        assert api.responses.cancel(running.id).status == "cancelled"
    assert platform.record("paced", queued.id)["attempts"] == []


def test_cancelling_an_ended_response_answers_its_outcome(platform: Platform) -> None:
    with platform.client("paced") as api:
        response = api.responses.create(**QUICK)
        assert api.responses.cancel(response.id).status == "completed"
        assert api.responses.retrieve(response.id).output_text == FIVE


def test_a_deleted_response_is_gone_from_every_route(platform: Platform) -> None:
    with platform.client("paced") as api:
        response = api.responses.create(**QUICK)
        api.responses.delete(response.id)
        for call in (
            lambda: api.responses.retrieve(response.id),
            lambda: api.responses.retrieve(response.id, stream=True),
            lambda: api.responses.cancel(response.id),
            lambda: api.responses.delete(response.id),
            lambda: api.responses.input_items.list(response.id),
        ):
            with pytest.raises(openai.NotFoundError):
                call()
    assert platform.call(f"/v1/agents/paced/responses/{response.id}/record")[0] == 404
    assert not [name for name in platform.stored.names() if response.id in name]


def test_a_running_response_is_not_deleted(platform: Platform) -> None:
    with platform.client("paced") as api:
        running = api.responses.create(**slow(), background=True)
        with pytest.raises(openai.BadRequestError, match="cancel it"):
            api.responses.delete(running.id)
        api.responses.cancel(running.id)
        api.responses.delete(running.id)


def test_input_items_are_paged_in_both_orders(platform: Platform) -> None:
    items: Any = [{"role": "user", "content": f"item {n}"} for n in range(5)]
    with platform.client("shapes") as api:
        response = api.responses.create(model="shapes", input=items)
        listed = api.responses.input_items.list

        def texts(order: Any) -> list[str]:
            return [i.content[0].text for i in listed(response.id, limit=2, order=order)]  # type: ignore[union-attr]

        forward = [f"item {n}" for n in range(5)]
        assert texts("asc") == forward and texts("desc") == forward[::-1]
        newest = listed(response.id)
        assert [i.content[0].text for i in newest.data] == forward[::-1]  # type: ignore[union-attr]
        first = listed(response.id, order="asc", limit=2)
        second = listed(response.id, order="asc", limit=2, after=first.last_id)  # type: ignore[attr-defined]
        assert first.has_more and [i.content[0].text for i in second.data] == forward[2:4]  # type: ignore[union-attr]


def test_a_follow_up_sees_the_history_and_the_files_of_its_session(platform: Platform) -> None:
    with platform.client("shapes") as api:
        first = api.responses.create(model="shapes", input="write hello", instructions="only now")
        second = api.responses.create(model="shapes", input="read", previous_response_id=first.id)
        third = api.responses.create(model="shapes", input="told", previous_response_id=second.id)
        branch = api.responses.create(model="shapes", input="told", previous_response_id=first.id)
    assert second.output_text == "hello"
    assert second.previous_response_id == first.id and second.instructions is None
    assert json.loads(third.output_text) == ["write hello", "written", "read", "hello"]
    assert json.loads(branch.output_text) == ["write hello", "written"]
    sessions = {r.agent_session_id for r in (first, second, third, branch)}  # type: ignore[attr-defined]
    assert len(sessions) == 1


def test_the_caller_names_the_session_in_the_body(platform: Platform) -> None:
    session = new_session()
    with platform.client("shapes") as api:
        extra = {"agent_session_id": session}
        api.responses.create(model="shapes", input="write kept", extra_body=extra)
        raw = api.responses.with_raw_response.create(model="shapes", input="read", extra_body=extra)
        other = api.responses.create(model="shapes", input="read", extra_body={"agent_session_id": new_session()})
    assert raw.headers["x-agent-session-id"] == session
    assert raw.parse().output_text == "kept"
    assert other.output_text == "nothing"


def test_an_unstored_response_is_answered_and_not_kept(platform: Platform) -> None:
    with platform.client("paced") as api:
        response = api.responses.create(**QUICK, store=False)
        assert response.output_text == FIVE and response.store is False  # type: ignore[attr-defined]
        stream = list(api.responses.create(**QUICK, store=False, stream=True))
        for response_id in (response.id, stream[0].response.id):  # type: ignore[union-attr]
            with pytest.raises(openai.NotFoundError):
                api.responses.retrieve(response_id)
            assert not [name for name in platform.stored.names() if response_id in name]
        with pytest.raises(openai.BadRequestError) as refused:
            api.responses.create(**QUICK, previous_response_id=response.id)
    assert (refused.value.param, refused.value.code) == ("previous_response_id", "previous_response_not_found")


def test_the_model_names_the_agent_at_the_bare_address(platform: Platform) -> None:
    with openai.OpenAI(base_url=f"{platform.url}/v1", api_key=platform.api_key, max_retries=0) as api:
        response = api.responses.create(model="shapes", input="good day")
        assert response.output_text == "heard good day"
        assert api.responses.retrieve(response.id).id == response.id
        with pytest.raises(openai.NotFoundError):
            api.responses.create(model="nobody", input="x")
        with pytest.raises(openai.BadRequestError) as unnamed:
            api.responses.create(input="x")
        assert unnamed.value.param == "model"
        assert {"paced", "other", "shapes", "crasher", "rechunked", "brief"} <= {m.id for m in api.models.list()}
        assert api.models.retrieve("shapes").owned_by == "dev"


def test_what_the_gateway_does_not_know_reaches_the_agent(platform: Platform) -> None:
    with platform.client("shapes") as api:
        response = api.responses.create(
            model="shapes",
            input="request",
            metadata={"a": "b"},
            instructions="speak up",
            extra_body={"brand_new": {"deep": [1, None]}, "agent_session_id": new_session()},
            extra_headers={"x-client-shade": "blue", "x-other": "kept out"},
        )
    told = json.loads(response.output_text)
    assert told["request"]["brand_new"] == {"deep": [1, None]}
    assert told["request"]["metadata"] == {"a": "b"} and told["request"]["instructions"] == "speak up"
    assert told["headers"]["x-client-shade"] == "blue"
    assert not {"authorization", "x-other", "cookie"} & told["headers"].keys()
    assert platform.api_key not in response.output_text
    assert told["user"] == "dev"
