"""What calls cost: counted from every protocol's answers, on entries, in metrics, on the turn, as spans of its trace; and bounded."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any

import httpx2
import pytest

from component.journal.conftest import Desk, Said
from fakes.models import CACHED, INPUT, Models, serving
from fakes.otlp import Collector, SpanSeen, collecting

pytestmark = pytest.mark.component

CHAT = "/models/m/v1/chat/completions"


def body(text: str, **more: Any) -> bytes:
    return json.dumps({"model": "m-1", "messages": [{"role": "user", "content": text}], **more}).encode()


async def entry(desk: Desk) -> dict[str, str]:
    """What the last entry says."""
    return (await desk.journal.entries(desk.turn))[-1].what


async def metric(desk: Desk, name: str, at: int = 0) -> dict[str, float]:
    """Its samples, by their labels."""
    lines = desk.gateways[at].metrics.render().decode().splitlines()
    found = [line.rsplit(" ", 1) for line in lines if line.startswith(name + "{")]
    return {labels.removeprefix(name): float(value) for labels, value in found}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", ["chat", "responses", "messages"])
async def test_tokens_are_counted_whatever_the_protocol_and_nothing_is_added(
    desk: Desk, kind: str, stream: bool
) -> None:
    protocol = "anthropic" if kind == "messages" else "openai"
    base = desk.models.url if kind == "messages" else f"{desk.models.url}/v1"
    await desk.publish("k", protocol=protocol, baseUrl=base)
    rest = {"chat": "v1/chat/completions", "responses": "v1/responses", "messages": "v1/messages"}[kind]
    more: dict[str, Any] = {"stream": True} if stream else {}
    asked = {"model": "m-1", "input": "one two", **more} if kind == "responses" else json.loads(body("one two", **more))
    said = await desk.chat("", target=f"/models/k/{rest}", body=json.dumps(asked).encode())
    assert said.status == 200 and said.body.count(b"data:") == (0 if not stream else said.body.count(b"\n\n"))
    what = await entry(desk)
    assert (what["input_tokens"], what["output_tokens"], what["cached_tokens"]) == (str(INPUT), "5", str(CACHED))
    assert (what["endpoint"], what["model"], what["answered_model"]) == ("k", "m-1", "m-1") and "two" not in json.dumps(
        what
    )
    tokens = await metric(desk, "moorage_model_tokens_total")
    for name, count in (("input", INPUT), ("output", 5), ("cached", CACHED)):
        key = f'{{endpoint="k",kind="{name}",model="m-1",tenant="acme"}}'
        assert tokens[key] == count, tokens
    if kind == "chat" and stream:
        asked_for = desk.models.asked[-1]["body"]["stream_options"]
        assert asked_for == {"include_usage": True} and b'"choices": []' not in said.body, (
            "asked for by us, told to us alone"
        )


async def test_a_client_that_asks_for_its_counts_gets_them_and_other_servers_are_not_asked(desk: Desk) -> None:
    own = await desk.chat("", body=body("x", stream=True, stream_options={"include_usage": True}))
    assert b'"choices": []' in own.body and (await entry(desk))["output_tokens"] == "4"
    await desk.chat("", body=body("y", stream=True))
    assert "stream_options" not in desk.models.asked[-1]["body"] and "input_tokens" not in await entry(desk)
    await desk.publish("m", streamUsage=True)
    hidden = await desk.chat("", body=body("z", stream=True))
    assert b'"choices": []' not in hidden.body and (await entry(desk))["output_tokens"] == "4"


async def test_pieces_are_neither_merged_nor_delayed_by_the_counting(desk: Desk) -> None:
    await desk.publish("m", streamUsage=True)
    asking = asyncio.ensure_future(desk.chat("", body=body("hold it", stream=True)))
    flights = desk.gateways[0].core.journaling._making
    async with asyncio.timeout(10):
        while not (held := list(flights._held.values())) or len(held[0].flight._pieces) < 4:
            await asyncio.sleep(0.01)
    assert all(piece.count(b"data:") == 1 for piece in held[0].flight._pieces), "one event, one piece"
    desk.models.release("it")
    assert (await asking).status == 200


async def test_a_turns_calls_add_up_and_a_replay_costs_nothing(desk: Desk) -> None:
    await desk.chat("one")
    await desk.attempt()
    assert (await desk.chat("one")).replayed
    await desk.chat("two")
    await desk.turns.decide(desk.turn, desk.fence, "completed", 1, "{}")
    record = await desk.turns.turn(desk.turn)
    assert record is not None
    assert record.calls == {"calls": 2, "input_tokens": 2 * INPUT, "output_tokens": 8, "cached_tokens": 2 * CACHED}
    calls = await metric(desk, "moorage_model_calls_total")
    assert list(calls.values()) == [2.0], calls


async def test_models_of_an_agents_choosing_make_a_bounded_number_of_series(desk: Desk) -> None:
    for n in range(53):
        await desk.chat("", body=json.dumps({"model": f"made-up-{n}", "messages": []}).encode())
    calls = await metric(desk, "moorage_model_calls_total")
    assert len(calls) == 51 and sum(calls.values()) == 53
    assert next(count for labels, count in calls.items() if 'model="other"' in labels) == 3


# -- traces


async def spans(desk: Desk, collector: Collector, trace: str, many: int) -> list[SpanSeen]:
    async with asyncio.timeout(15):
        while len(found := collector.trace(trace)) < many:
            await asyncio.sleep(0.05)
    return found


async def test_calls_are_spans_of_the_turns_trace_with_their_usage_and_without_a_word(desk: Desk) -> None:
    trace, parent = uuid.uuid4().hex, "00f067aa0ba902b7"
    place = [("traceparent", f"00-{trace}-{parent}-01"), ("content-type", "application/json")]
    with collecting() as collector:
        at = await desk.gateway(otlp_endpoint=collector.url)
        await desk.publish("k", credential={"secret": "openai", "key": "api-key"})
        desk.put_key("k", "sk-canary-5577")
        there = {"at": at, "headers": place, "target": "/models/k/v1/chat/completions"}
        first = await desk.chat("mark77", **there)
        await desk.chat("fail 500 9", **there)
        await desk.attempt()
        assert (await desk.chat("mark77", **there)).replayed
        await desk.ask(desk.call("x", method="GET", target="/models/k/v1/models", body=b"", headers=place), at=at)
        found = await spans(desk, collector, trace, 3)
    assert [span.name for span in found] == ["chat m-1"] * 3, "a list of models is no chat"
    made, failed, replayed = found
    assert {span.parent_id for span in found} == {parent} and {span.kind for span in found} == {3}
    about = made.attributes
    assert (about["gen_ai.operation.name"], about["gen_ai.provider.name"]) == ("chat", "openai")
    assert (about["gen_ai.request.model"], about["gen_ai.response.model"]) == ("m-1", "m-1")
    assert (about["gen_ai.usage.input_tokens"], about["gen_ai.usage.output_tokens"]) == (INPUT, 4)
    assert about["gen_ai.usage.cache_read.input_tokens"] == CACHED and about["gen_ai.response.id"] == first.json["id"]
    assert (about["moorage.turn"], about["moorage.endpoint"], about["moorage.replayed"]) == (desk.turn, "k", False)
    assert (
        failed.failed
        and failed.attributes["error.type"] == "500"
        and "gen_ai.usage.input_tokens" not in failed.attributes
    )
    assert replayed.attributes == about | {"moorage.replayed": True}
    assert not [word for span in found for word in (b"mark77", b"canary") if word in span.raw]


async def test_a_call_that_says_nothing_of_a_trace_has_no_span(desk: Desk) -> None:
    trace = uuid.uuid4().hex
    with collecting() as collector:
        at = await desk.gateway(otlp_endpoint=collector.url)
        for value in ("", "nonsense", f"00-{'0' * 32}-00f067aa0ba902b7-01"):
            assert (await desk.chat(f"a{value}", at=at, headers=[("traceparent", value)])).status == 200
        await desk.chat("last", at=at, headers=[("traceparent", f"00-{trace}-00f067aa0ba902b7-01")])
        await spans(desk, collector, trace, 1)
        assert len(collector._spans) == 1


# -- bounds


def code(said: Said) -> tuple[int, str, str]:
    return said.status, said.json["error"]["code"], said.headers.get("retry-after", "")


async def test_a_minutes_requests_are_refused_with_a_time_and_the_refusal_is_not_recorded(desk: Desk) -> None:
    await desk.publish("m", limits={"requestsPerMinute": 2})
    for n in range(2):
        assert (await desk.chat(f"q{n}")).status == 200
    said = await desk.chat("q2")
    status, kind, after = code(said)
    assert (status, kind) == (429, "rate_limited") and 25 <= int(after) <= 30
    assert "limits.requestsPerMinute" in said.json["error"]["message"] and said.refused == "no"
    await desk.publish("m")
    assert (await desk.chat("q2")).status == 200, "the same call, made once it may be"
    await desk.attempt()
    again = [await desk.chat(f"q{n}") for n in range(3)]
    assert all(each.replayed and each.status == 200 for each in again), "no refusal is met again"


async def test_tokens_of_a_minute_and_of_a_turn_are_bounded(desk: Desk) -> None:
    await desk.publish("m", limits={"tokensPerMinute": 20})
    assert (await desk.chat("one two three four five six")).status == 200
    assert (await desk.chat("q")).status == 429
    await desk.publish("m", limits={"tokensPerTurn": 20})
    said = await desk.chat("q")
    assert code(said) == (429, "turn_budget_spent", "") and said.headers["x-should-retry"] == "false"
    assert desk.models.times("q") == 0


async def test_a_suspended_endpoint_answers_what_is_known_and_asks_nothing(desk: Desk) -> None:
    await desk.publish("a", protocol="anthropic", baseUrl=desk.models.url)
    there = {"target": "/models/a/v1/messages"}
    known = await desk.chat("known", **there)
    await desk.publish("a", protocol="anthropic", baseUrl=desk.models.url, suspend=True)
    said = await desk.chat("new", **there)
    assert (said.status, said.json["type"], said.headers["retry-after"]) == (429, "error", "60")
    assert said.json["error"]["type"] == "rate_limit_error" and "spec.suspend" in said.json["error"]["message"]
    await desk.attempt()
    assert (await desk.chat("known", **there)).body == known.body
    assert desk.models.times("new") == 0
    over = await metric(desk, "moorage_model_calls_total")
    assert next(count for labels, count in over.items() if "over_limit" in labels) == 1


async def test_calls_outside_of_a_turn_and_broken_ones_are_paid_for(desk: Desk) -> None:
    await desk.publish("m", limits={"tokensPerMinute": 10})
    assert (await desk.chat("free", turn="", begun=0)).status == 200
    async with asyncio.timeout(10):
        while (await desk.chat("more", turn="", begun=0)).status == 200:
            await asyncio.sleep(0.05)


async def test_bounds_cost_no_further_command(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    await desk.publish("m", limits={"requestsPerMinute": 100, "tokensPerMinute": 10_000, "tokensPerTurn": 10_000})
    sent: list[str] = []
    client = desk.gateways[0].core.client
    real = client.run

    async def run(script: Any, *args: Any) -> Any:
        sent.append(script.name)
        return await real(script, *args)

    monkeypatch.setattr(client, "run", run)
    for n in range(10):
        await desk.chat(f"q{n}")
    assert len([name for name in sent if name.startswith("journal_")]) == 20


# -- endpoints that stand in


@pytest.fixture
def second() -> Any:
    """Another server of models."""
    with serving() as made:
        yield made


async def pair(desk: Desk, second: Models, **first: Any) -> None:
    """`m`, and `other` that stands in for it."""
    settings = f"127.0.0.1:{desk.models.port},127.0.0.1:{second.port},127.0.0.1:9"
    await desk.gateways.pop().stop()
    await desk.gateway(allowed_upstreams=settings)
    await desk.publish("other", baseUrl=f"{second.url}/v1", models=["big"], aliases={"m-1": "big"}, agent_models=["m"])
    await desk.publish("m", failover=["missing", "other"], **first)


@pytest.mark.parametrize("text", ["fail 503 9", "fail 429 9", "fail 529 9", "cut"])
async def test_another_endpoint_answers_where_the_first_gave_nothing(desk: Desk, second: Models, text: str) -> None:
    await pair(desk, second)
    second.release("x")
    if text == "cut":
        await desk.publish("m", failover=["other"], baseUrl="http://127.0.0.1:9/v1")
        text = "hello"
    else:
        text = text.replace(" 9", " 1")
        second.note({"text": text})  # it has failed there before
    said = await desk.chat(text)
    assert said.status == 200 and second.asked[-1]["body"]["model"] == "big", said.body
    what = await entry(desk)
    assert (what["endpoint"], what["answered_by"], what["model"]) == ("m", "other", "m-1")
    await desk.attempt()
    assert (await desk.chat(text)).body == said.body


async def test_the_last_endpoints_word_is_the_answer_and_an_answer_of_the_first_is_its_own(
    desk: Desk, second: Models
) -> None:
    await pair(desk, second)
    both = await desk.chat("fail 503 9")
    assert (both.status, both.headers["x-should-retry"]) == (503, "false") and second.times("fail 503 9") == 1
    refused = await desk.chat("fail 400 9")
    assert refused.status == 400 and second.times("fail 400 9") == 0, "an error that is an answer stays one"
    await desk.publish("other", baseUrl=f"{second.url}/v1", suspend=True, agent_models=["m"])
    alone = await desk.chat("fail 502 9")
    assert alone.status == 502 and second.times("fail 502 9") == 0
    await desk.publish("other", baseUrl=f"{second.url}/v1", models=["big"], agent_models=["m"])
    assert (await desk.chat("fail 504 9")).status == 504 and second.times("fail 504 9") == 0, (
        "it does not allow the model"
    )


async def test_a_begun_answer_is_not_gone_on_with_elsewhere(desk: Desk, second: Models) -> None:
    await pair(desk, second)
    with pytest.raises(httpx2.HTTPError):
        await desk.chat("cut now", stream=True)
    assert second.asked == []
