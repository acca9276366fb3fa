"""The stock openai client against the Responses routes: every operation, sync, async and Azure form."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import openai
import pytest

from fakes.gateway import FakeGateway
from fakes.turns import FakeTurns

pytestmark = pytest.mark.component

Start = Callable[..., Awaitable[FakeGateway]]


def client(gateway: FakeGateway, key: str = "key-ada", **options: Any) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{gateway.url}/v1/agents/hello", api_key=key, max_retries=0, **options)


async def test_a_plain_call_answers_with_the_whole_response(start: Start) -> None:
    gateway = await start()
    async with client(gateway) as api:
        response = await api.responses.create(model="hello", input="good morning", metadata={"a": "b"})
    assert response.output_text == "good morning"
    assert response.status == "completed"
    assert response.model == "hello"
    assert response.metadata == {"a": "b"}
    assert gateway.turns.delivered_ids == [response.id]


async def test_the_streaming_helper_accepts_the_whole_stream(start: Start) -> None:
    gateway = await start()
    async with client(gateway) as api, api.responses.stream(model="hello", input="one two three") as stream:
        deltas = [event.delta async for event in stream if event.type == "response.output_text.delta"]
        final = await stream.get_final_response()
    assert deltas == ["one", " two", " three"]
    assert final.output_text == "one two three"
    assert gateway.turns.delivered_ids == [final.id]


async def test_numbers_of_a_stream_are_gapless_from_zero(start: Start) -> None:
    gateway = await start()
    async with client(gateway) as api:
        stream = await api.responses.create(model="hello", input="a b c d", stream=True)
        numbers = [event.sequence_number async for event in stream]
    assert numbers == list(range(len(numbers)))


async def test_a_background_call_answers_at_once_and_is_followed_from_a_cursor(start: Start) -> None:
    gate = asyncio.Event()
    gateway = await start(FakeTurns(gate=gate))
    async with client(gateway) as api:
        queued = await api.responses.create(model="hello", input="x y", background=True)
        assert queued.status in ("queued", "in_progress")
        gate.set()
        stream = await api.responses.retrieve(queued.id, stream=True, starting_after=1)
        events = [event async for event in stream]
        assert events[0].sequence_number == 2
        assert events[-1].type == "response.completed"
        assert (await api.responses.retrieve(queued.id)).output_text == "x y"


@pytest.mark.parametrize("background", [True, False])
async def test_a_running_response_can_be_cancelled(start: Start, background: bool) -> None:
    gateway = await start(FakeTurns(gate=asyncio.Event()))
    async with client(gateway) as api:
        stream = await api.responses.create(model="hello", input="x", stream=True, background=background)
        first = await anext(aiter(stream))
        assert first.type == "response.created"
        cancelled = await api.responses.cancel(first.response.id)
        assert cancelled.status == "cancelled"
        assert (await api.responses.cancel(first.response.id)).status == "cancelled"
        await stream.close()
    assert ("response.cancel", first.response.id, "ok") in gateway.audited


async def test_a_deleted_response_is_gone(start: Start) -> None:
    gateway = await start()
    async with client(gateway) as api:
        response = await api.responses.create(model="hello", input="x")
        await api.responses.delete(response.id)
        with pytest.raises(openai.NotFoundError):
            await api.responses.retrieve(response.id)


async def test_a_running_response_is_not_deleted(start: Start) -> None:
    gateway = await start(FakeTurns(gate=asyncio.Event()))
    async with client(gateway) as api:
        response = await api.responses.create(model="hello", input="x", background=True)
        with pytest.raises(openai.BadRequestError, match="cancel it"):
            await api.responses.delete(response.id)


async def test_input_items_are_paged_in_both_orders(start: Start) -> None:
    gateway = await start()
    items: Any = [{"role": "user", "content": f"item {n}"} for n in range(5)]
    async with client(gateway) as api:
        response = await api.responses.create(model="hello", input=items)
        page = await api.responses.input_items.list(response.id, order="asc", limit=2)
        assert [item.content[0].text for item in page.data] == ["item 0", "item 1"]  # type: ignore[union-attr]
        everything = [item.id async for item in await api.responses.input_items.list(response.id, limit=2)]  # type: ignore[union-attr]
    assert len(everything) == len(set(everything)) == 5


async def test_an_unstored_response_is_streamed_but_not_kept(start: Start) -> None:
    gateway = await start()
    async with client(gateway) as api:
        response = await api.responses.create(model="hello", input="x", store=False)
        with pytest.raises(openai.NotFoundError):
            await api.responses.retrieve(response.id)


async def test_another_users_and_another_tenants_response_is_not_found(start: Start) -> None:
    gateway = await start()
    async with client(gateway) as api:
        response = await api.responses.create(model="hello", input="x")
    for key in ("key-bob", "key-eve", "key-narrow"):
        async with client(gateway, key) as other:
            for call in (
                other.responses.retrieve(response.id),
                other.responses.cancel(response.id),
                other.responses.delete(response.id),
                other.responses.input_items.list(response.id),
                other.responses.retrieve(response.id, stream=True),
            ):
                with pytest.raises(openai.NotFoundError):
                    await call


async def test_a_response_is_not_found_under_another_agent(start: Start) -> None:
    gateway = await start()
    async with client(gateway) as api:
        response = await api.responses.create(model="hello", input="x")
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1/agents/second", api_key="key-ada") as second:
        with pytest.raises(openai.NotFoundError):
            await second.responses.retrieve(response.id)


async def test_the_model_names_the_agent_at_the_bare_address(start: Start) -> None:
    gateway = await start()
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="key-ada", max_retries=0) as api:
        response = await api.responses.create(model="second", input="x")
        assert gateway.turns.turns[response.id].place.agent == "second"
        assert (await api.responses.retrieve(response.id)).id == response.id
        with pytest.raises(openai.NotFoundError):
            await api.responses.create(model="nobody", input="x")
        with pytest.raises(openai.BadRequestError):
            await api.responses.create(input="x")


@pytest.mark.parametrize("credential", [{"azure_ad_token": "key-ada"}, {"api_key": "key-ada"}])
@pytest.mark.parametrize("deployment", [None, "some-deployment"])
async def test_the_azure_client_does_every_operation(
    start: Start, credential: dict[str, str], deployment: str | None
) -> None:
    gateway = await start()
    options: Any = {"azure_deployment": deployment} if deployment else {}
    api = openai.AsyncAzureOpenAI(
        azure_endpoint=f"{gateway.url}/v1/agents/hello",
        api_version="2026-01-01",
        max_retries=0,
        **credential,
        **options,
    )
    async with api:
        response = await api.responses.create(model="hello", input="a b")
        assert response.output_text == "a b"
        async with api.responses.stream(model="hello", input="c d") as stream:
            assert (await stream.get_final_response()).output_text == "c d"
        assert (await api.responses.retrieve(response.id)).id == response.id
        replay = await api.responses.retrieve(response.id, stream=True, starting_after=2)
        assert [event.sequence_number async for event in replay][0] == 3
        assert (await api.responses.cancel(response.id)).status == "completed"
        assert len((await api.responses.input_items.list(response.id)).data) == 1
        await api.responses.delete(response.id)


async def test_the_sync_client_works_too(start: Start) -> None:
    gateway = await start()

    def talk() -> tuple[str, str]:
        with openai.OpenAI(base_url=f"{gateway.url}/v1/agents/hello", api_key="key-ada", max_retries=0) as api:
            plain = api.responses.create(model="hello", input="x y")
            with api.responses.stream(model="hello", input="p q") as stream:
                return plain.output_text, stream.get_final_response().output_text

    assert await asyncio.to_thread(talk) == ("x y", "p q")


async def test_an_idempotency_key_joins_the_same_turn(start: Start) -> None:
    gateway = await start()
    async with client(gateway) as api:
        extra = {"Idempotency-Key": "once"}
        first = await api.responses.create(model="hello", input="x", extra_headers=extra)
        again = await api.responses.create(model="hello", input="x", extra_headers=extra)
        assert again.id == first.id
        with pytest.raises(openai.ConflictError):
            await api.responses.create(model="hello", input="y", extra_headers=extra)


async def test_a_conflict_is_not_repeated_by_the_client(start: Start) -> None:
    gateway = await start()
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1/agents/hello", api_key="key-ada") as api:
        extra = {"Idempotency-Key": "once"}
        await api.responses.create(model="hello", input="x", extra_headers=extra)
        with pytest.raises(openai.ConflictError):
            await api.responses.create(model="hello", input="y", extra_headers=extra)
    assert len(gateway.turns.requests) == 2


async def test_the_body_reaches_the_turn_without_transport_fields(start: Start) -> None:
    gateway = await start()
    async with client(gateway) as api:
        await api.responses.create(
            model="hello",
            input="x",
            extra_body={"agent_session_id": "my-session-1", "something_new": {"a": 1}},
            extra_headers={"x-client-shade": "blue", "traceparent": f"00-{'a' * 32}-{'b' * 16}-01"},
        )
    request = gateway.turns.requests[0]
    assert request.body["something_new"] == {"a": 1}
    assert not {"stream", "stream_options", "agent_session_id", "agent_reference"} & request.body.keys()
    assert request.headers["x-client-shade"] == "blue"
    assert request.trace_id == "a" * 32
    assert request.headers["traceparent"].startswith(f"00-{'a' * 32}-")
    assert "authorization" not in request.headers


async def test_answers_carry_session_request_and_trace_ids(start: Start) -> None:
    gateway = await start()
    async with client(gateway) as api:
        raw = await api.responses.with_raw_response.create(
            model="hello",
            input="x",
            extra_body={"agent_session_id": "my-session-1"},
            extra_headers={"x-request-id": "r-1"},
        )
    assert raw.headers["x-agent-session-id"] == "my-session-1"
    assert raw.headers["x-request-id"] == "r-1"
    assert len(raw.headers["x-moorage-trace-id"]) == 32


async def test_a_wrong_key_is_a_401_and_a_key_without_scope_a_403(start: Start) -> None:
    gateway = await start()
    async with client(gateway, "key-wrong") as api:
        with pytest.raises(openai.AuthenticationError):
            await api.responses.create(model="hello", input="x")
    async with client(gateway, "key-mute") as api:
        with pytest.raises(openai.PermissionDeniedError):
            await api.responses.create(model="hello", input="x")
