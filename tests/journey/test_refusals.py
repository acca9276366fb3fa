"""Wrong requests: the documented answer that names the field, never a 500; and which repeats join the turn they repeat."""

from __future__ import annotations

import uuid
from typing import Any

import openai
import pytest

from fakes.cutting import cutting
from fakes.platform import Platform
from fakes.wire import Wire

pytestmark = pytest.mark.journey

UNKNOWN = "caresp_" + "0" * 16 + "00" + "A" * 32
PACED = "/v1/agents/paced/responses"
QUICK: Any = {"model": "paced", "input": "4 words every 5 ms"}

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"temperature": 9}, "temperature"),
    ({"top_p": "high"}, "top_p"),
    ({"stream": "yes"}, "stream"),
    ({"store": 1}, "store"),
    ({"instructions": ["x"]}, "instructions"),
    ({"metadata": {"k": 1}}, "metadata.k"),
    ({"metadata": {f"k{n}": "v" for n in range(17)}}, "metadata"),
    ({"tools": [{"name": "no type"}]}, "tools[0].type"),
    ({"tool_choice": "sometimes"}, "tool_choice"),
    ({"input": 7}, "input"),
    ({"input": [{"role": "wizard", "content": "x"}]}, "input[0].role"),
    ({"input": [{"type": "message", "role": "user", "content": 7}]}, "input[0].content"),
    ({"max_output_tokens": 0}, "max_output_tokens"),
    ({"include": ["everything"]}, "include[0]"),
    ({"truncation": "maybe"}, "truncation"),
    ({"background": True, "store": False}, "background"),
    ({"previous_response_id": "resp_123"}, "previous_response_id"),
    ({"agent_session_id": "short"}, "agent_session_id"),
    ({"agent_session_id": "../../etc/passwd"}, "agent_session_id"),
]


@pytest.mark.parametrize(("body", "param"), WRONG, ids=[param + str(n) for n, (_, param) in enumerate(WRONG)])
def test_a_wrong_field_is_a_400_that_names_it(platform: Platform, body: dict[str, Any], param: str) -> None:
    status, found = platform.call(PACED, method="POST", body={"input": "1"} | body)
    assert (status, found["error"]["param"]) == (400, param), found
    assert found["error"]["type"] == "invalid_request_error" and found["error"]["message"]


@pytest.mark.parametrize(
    ("raw", "code"),
    [(b"", "invalid_json"), (b"{", "invalid_json"), (b"\xff\xfe", "invalid_json"), (b"[1]", "invalid_request")],
)
def test_a_body_that_is_no_object_is_a_400(platform: Platform, raw: bytes, code: str) -> None:
    with Wire(platform.url, platform.api_key) as wire:
        wire.ask("POST", PACED, raw, content_type="application/json")
        assert wire.head() == 400
        assert f'"code":"{code}"'.encode() in wire.body().replace(b'": "', b'":"')


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize("below", ["", "/cancel", "/input_items", "/record"])
def test_an_unknown_id_is_not_found_and_a_malformed_one_says_so(platform: Platform, method: str, below: str) -> None:
    if below == "/cancel":
        method = "POST"
    elif below:
        method = "GET"
    status, found = platform.call(f"{PACED}/{UNKNOWN}{below}", method=method)
    assert (status, found["error"]["type"]) == (404, "not_found"), found
    for malformed in ("resp_1", "caresp_1", UNKNOWN + "x", "%2e%2e"):
        status, found = platform.call(f"{PACED}/{malformed}{below}", method=method)
        assert (status, found["error"]["message"]) == (400, "Malformed identifier."), (malformed, found)


def test_what_an_unknown_previous_response_names_is_refused(platform: Platform) -> None:
    with platform.client("paced") as api:
        real = api.responses.create(**QUICK)
        for previous in (UNKNOWN, real.id[:-4] + "AAAA"):
            with pytest.raises(openai.BadRequestError) as refused:
                api.responses.create(**QUICK, previous_response_id=previous)
            assert refused.value.code == "previous_response_not_found"
            assert refused.value.param == "previous_response_id"


def test_a_response_of_one_agent_is_not_found_under_another(platform: Platform) -> None:
    with platform.client("paced") as api, platform.client("shapes") as other:
        response = api.responses.create(**QUICK)
        with pytest.raises(openai.NotFoundError):
            other.responses.retrieve(response.id)
        with pytest.raises(openai.BadRequestError):
            other.responses.create(model="shapes", input="x", previous_response_id=response.id)


def test_an_unknown_agent_a_wrong_method_and_a_wrong_key_are_told_apart(platform: Platform) -> None:
    assert platform.call("/v1/agents/nobody/responses", method="POST", body={"input": "x"})[0] == 404
    assert platform.call(PACED, method="PUT", body={})[0] == 405
    assert platform.call(PACED, method="POST", body={"input": "x"}, api_key="wrong")[0] == 401
    assert platform.call("/v1/agents/Not-A-Name/responses", method="POST", body={"input": "x"})[0] == 404


def test_the_same_idempotency_key_joins_and_another_body_conflicts_once(platform: Platform) -> None:
    key = {"Idempotency-Key": uuid.uuid4().hex}
    with platform.client("paced", max_retries=2) as api:
        first = api.responses.create(**QUICK, extra_headers=key)
        again = api.responses.create(**QUICK, extra_headers=key)
        streamed = list(api.responses.create(**QUICK, extra_headers={"Idempotency-Key": uuid.uuid4().hex}, stream=True))
        assert again.id == first.id and again.output_text == first.output_text
        assert streamed[0].response.id != first.id  # type: ignore[union-attr]
        with pytest.raises(openai.ConflictError) as refused:
            api.responses.create(model="paced", input="something else", extra_headers=key)
    assert refused.value.response.headers["x-should-retry"] == "false"
    assert refused.value.param == "Idempotency-Key"
    assert refused.value.response.request.headers["x-stainless-retry-count"] == "0"


@pytest.mark.parametrize("stream", [False, True])
def test_the_clients_own_repeat_joins_the_turn_that_its_cut_connection_began(platform: Platform, stream: bool) -> None:
    unique = uuid.uuid4().int % 10**6
    body: Any = {"model": "paced", "input": f"12 words every 40 ms {unique}"}
    before = {s["id"] for s in platform.sessions("paced")}

    def begun() -> list[str]:
        return [s["id"] for s in platform.sessions("paced") if s["id"] not in before and s["status"] == "active"]

    with cutting(platform.url, cuts=1, accepted=lambda: bool(begun())) as way:
        with platform.client("paced", url=way.url, max_retries=2) as api:
            if stream:
                with api.responses.stream(**body) as events:
                    response = events.get_final_response()
            else:
                response = api.responses.create(**body)
        heads = [raw.split(b"\r\n\r\n")[0].lower() for raw in way.requests]
    assert [b"x-stainless-retry-count: %d" % n in head for n, head in enumerate(heads)] == [True, True]
    assert response.output_text == "".join(f"w{n} " for n in range(12))
    assert len({s["id"] for s in platform.sessions("paced")} - before) == 1, "the agent ran twice"
    assert len(platform.record("paced", response.id)["attempts"]) == 1


def test_a_repeat_after_the_whole_answer_was_given_is_a_turn_of_its_own(platform: Platform) -> None:
    with platform.client("paced") as api:
        first = api.responses.create(**QUICK)
        second = api.responses.create(**QUICK, extra_headers={"x-stainless-retry-count": "1"})
    assert second.id != first.id
