"""Calls of agents at the sandbox port: made once, recorded before their end is told, met again by the next attempt (turns.md §6)."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx2
import pytest

from component.journal.conftest import SECRET, Desk, token
from fakes.sinks import ledger_values, unpacked
from moorage_api.wire import calls as wire
from moorage_gateway.journal import making, spilling
from moorage_gateway.store import StoreUnavailable

pytestmark = pytest.mark.component


async def until(look: Any, within: float = 10.0) -> Any:
    async with asyncio.timeout(within):
        while not (found := look()):
            await asyncio.sleep(0.01)
    return found


async def test_the_next_attempt_gets_the_recorded_answers_in_order_and_asks_nothing_twice(desk: Desk) -> None:
    first = [await desk.chat("one"), await desk.chat("same"), await desk.chat("same")]
    assert [said.text for said in first] == ["answer 1 to one", "answer 2 to same", "answer 3 to same"]
    await desk.attempt()
    again = [await desk.chat("one"), await desk.chat("same"), await desk.chat("same")]
    assert [said.body for said in again] == [said.body for said in first]
    assert all(said.replayed for said in again) and not any(said.replayed for said in first)
    assert (await desk.chat("new")).text == "answer 4 to new"
    assert len(desk.models.asked) == 4


async def test_parallel_calls_replay_right(desk: Desk) -> None:
    first = await asyncio.gather(*(desk.chat(f"q{n % 3}") for n in range(9)))
    await desk.attempt()
    again = await asyncio.gather(*(desk.chat(f"q{n % 3}") for n in range(9)))
    assert sorted(said.text for said in again) == sorted(said.text for said in first)
    assert len(desk.models.asked) == 9


async def test_a_call_whose_sandbox_died_is_finished_and_recorded_once(desk: Desk) -> None:
    asking = asyncio.ensure_future(desk.chat("pause door"))
    await until(lambda: desk.models.times("pause door"))
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await desk.attempt()
    waiting = asyncio.ensure_future(desk.chat("pause door"))
    desk.models.release("door")
    assert (await waiting).text == "answer 1 to pause door"
    assert desk.models.times("pause door") == 1


async def test_a_stream_passes_as_it_comes_and_its_end_only_when_it_is_recorded(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded, may = asyncio.Event(), asyncio.Event()
    real = making.Making._record

    async def record(self: Any, held: Any) -> str:
        recorded.set()
        await may.wait()
        return await real(self, held)

    monkeypatch.setattr(making.Making, "_record", record)
    head, body = desk.call("hold half", stream=True)
    shown = {"authorization": f"Bearer {token('sb-1', 'acme')}"}
    url = desk.gateways[0].sandbox_url + wire.PATH
    seen = b""
    async with desk.http.stream("POST", url, content=head.encode(body), headers=shown) as answer:
        pieces = answer.aiter_raw()
        while b"answer" not in seen:
            seen += await anext(pieces)
        assert b"half" not in seen, "the server holds the second half"
        desk.models.release("half")
        await asyncio.wait_for(recorded.wait(), 10)
        while b"half " not in seen:
            seen += await anext(pieces)
        late: list[bytes] = []
        rest = asyncio.ensure_future(_rest(pieces, late))
        await asyncio.wait([rest], timeout=0.5)
        assert b'"stop"' in seen + b"".join(late), "all that comes before the end has passed"
        assert b"[DONE]" not in seen + b"".join(late) and not rest.done(), "the end was told before it was recorded"
        may.set()
        await asyncio.wait_for(rest, 10)
        seen += b"".join(late)
    assert seen.endswith(b"data: [DONE]\n\n")
    await desk.attempt()
    again = await desk.chat("hold half", stream=True)
    assert again.replayed and again.body == seen


async def _rest(pieces: Any, into: list[bytes]) -> None:
    async for piece in pieces:
        into.append(piece)  # noqa: PERF401 - as they come, not at the end


async def test_a_permission_to_call_is_not_lost_with_its_asker(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    permitted, may = asyncio.Event(), asyncio.Event()
    ledger = desk.gateways[0].core.journaling._ledger
    real = ledger.start

    async def start(*args: Any, **options: Any) -> Any:
        found = await real(*args, **options)
        permitted.set()
        await may.wait()
        return found

    monkeypatch.setattr(ledger, "start", start)
    asking = asyncio.ensure_future(desk.chat("left"))
    await asyncio.wait_for(permitted.wait(), 10)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    port = desk.gateways[0].sandbox
    await until(lambda: port.connections == 0)
    may.set()
    await until(lambda: desk.models.times("left"))
    await desk.attempt()
    assert (await asyncio.wait_for(desk.chat("left"), 5)).text == "answer 1 to left", "no lease had to run out"


async def test_a_stream_that_breaks_off_has_no_end_and_is_asked_again(desk: Desk) -> None:
    call = desk.call("cut it", stream=True)
    with pytest.raises(httpx2.HTTPError):
        await desk.ask(call)
    assert [entry.state for entry in await desk.journal.entries(desk.turn)] == []
    await desk.attempt()
    with pytest.raises(httpx2.HTTPError):
        await desk.chat("cut it", stream=True)
    assert desk.models.times("cut it") == 2


async def test_an_answer_that_never_began_is_an_error_that_is_recorded(desk: Desk) -> None:
    said = await desk.chat("cut")
    assert (said.status, said.json["error"]["code"], said.refused) == (502, "upstream_failed", "")
    await desk.attempt()
    again = await desk.chat("cut")
    assert again.replayed and again.body == said.body
    assert desk.models.times("cut") == 1


async def test_a_gateway_that_ends_hands_its_calls_on(desk: Desk) -> None:
    other = await desk.gateway()
    call = desk.call("pause gate")
    asking = asyncio.ensure_future(desk.ask(call))
    await until(lambda: desk.models.times("pause gate"))
    await desk.gateways[0].stop()
    await asyncio.gather(asking, return_exceptions=True)
    desk.models.release("gate")
    head, body = call
    said = await desk.ask((head.model_copy(update={"resent": True}), body), at=other)
    assert said.status == 200 and desk.models.times("pause gate") == 2


async def test_a_call_that_another_gateway_makes_is_waited_for(desk: Desk) -> None:
    other = await desk.gateway()
    call = desk.call("pause both")
    one = asyncio.ensure_future(desk.ask(call))
    await until(lambda: desk.models.times("pause both"))
    two = asyncio.ensure_future(desk.ask(call, at=other))
    await asyncio.sleep(0)
    desk.models.release("both")
    assert (await one).body == (await two).body
    assert desk.models.times("pause both") == 1


async def test_large_answers_lie_in_the_object_store_and_come_back_whole(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "large " * 30_000
    first = await desk.chat(text)
    held = await desk.ledger.read("HVALS", f"j:{desk.turn}")
    assert max(len(each) for each in held) < 4096
    assert list((desk.folder / "store").rglob("journal/*"))
    await desk.attempt()
    again = await desk.chat(text)
    assert again.replayed and again.body == first.body

    async def away(*_: Any) -> None:
        raise StoreUnavailable("away")

    monkeypatch.setattr(spilling, "PAUSE_S", 0.01)
    monkeypatch.setattr(desk.gateways[0].core.store, "put", away)
    second = await desk.chat(text)
    await desk.attempt()
    assert (await desk.chat(text)).body == first.body
    assert (await desk.chat(text)).body == second.body, "an object store that is away keeps no answer from its agent"


async def test_an_older_attempt_and_a_foreign_sandbox_are_told_no(desk: Desk) -> None:
    old = desk.call("x")
    await desk.attempt()
    assert ((said := await desk.ask(old)).status, said.refused) == (409, wire.FENCED)
    for over in ({"epoch": 1}, {"begun": 1}):
        said = await desk.chat("x", **over)
        assert (said.status, said.refused) == (409, wire.FENCED), over
    # Redis may have lost what these speak of: not now is all that can be said of them.
    for over in ({"epoch": desk.epoch + 1}, {"session": "acme:ffffffffffffffff"}, {"turn": "caresp_other"}):
        said = await desk.chat("x", **over)
        assert (said.status, said.refused) == (503, wire.AGAIN), over
    assert (await desk.ask(desk.call("x"), sandbox="sb-2")).refused == wire.FENCED
    assert (await desk.ask(desk.call("x"), tenant="rival")).status in (404, 409)
    bare = await desk.http.post(desk.gateways[0].sandbox_url + wire.PATH, content=b"x")
    assert bare.status_code == 401
    assert desk.models.asked == []


async def test_what_is_no_call_is_refused_and_asks_nobody(desk: Desk) -> None:
    answers = [
        await desk.chat("x", target="/models/other/v1/chat/completions"),
        await desk.chat("x", target="/models/m/v1/files"),
        await desk.chat("x", target="/models/m/v1/../admin"),
        await desk.chat("x", target="/tools/m"),
        await desk.chat("x", body=b"{not json"),
        await desk.chat("x", body=b"[]"),
        await desk.chat("x", method="DELETE"),
    ]
    assert [said.status for said in answers] == [403, 404, 404, 404, 400, 400, 404]
    assert {said.refused for said in answers} == {wire.NO}
    assert "spec.models" in answers[0].json["error"]["message"]
    url = desk.gateways[0].sandbox_url + wire.PATH
    shown = {"authorization": f"Bearer {token('sb-1', 'acme')}"}
    for content, status in ((b"", 400), (b"{}\n", 400), (b"\xff" * 100, 400), (b"x" * (wire.MAX_BODY + 2**16), 413)):
        assert (await desk.http.post(url, content=content, headers=shown)).status_code == status
    deep = await desk.chat("", body=b'{"model": "m-1", "messages": ' + b"[" * 300 + b"]" * 300 + b"}")
    assert deep.status == 400 and "nested deeper" in deep.json["error"]["message"]
    assert desk.models.asked == []


async def test_a_request_outside_any_turn_is_made_and_not_recorded(desk: Desk) -> None:
    first = await desk.chat("free", turn="", begun=0)
    second = await desk.chat("free", turn="", begun=0)
    assert (first.text, second.text) == ("answer 1 to free", "answer 2 to free")
    assert await desk.journal.entries(desk.turn) == []


async def test_the_key_reaches_the_provider_and_nobody_else(desk: Desk) -> None:
    desk.put_key("k", SECRET)
    await desk.publish("k", credential={"secret": "openai", "key": "api-key"})
    said = await desk.chat(
        "hello",
        target="/models/k/v1/chat/completions",
        headers=[("authorization", "Bearer moorage"), ("x-evil", "1"), ("content-type", "application/json")],
    )
    assert said.status == 200
    asked = desk.models.asked[-1]["headers"]
    assert asked["authorization"] == f"Bearer {SECRET}" and "x-evil" not in asked
    assert SECRET.encode() not in said.body + json.dumps(said.headers).encode()
    dump = b"".join([each async for each in _everything(desk)])
    assert SECRET.encode() not in dump


@pytest.mark.parametrize("steer", ["leak", "leak fail 401", "leak fail 500", "leak stream"])
async def test_a_server_that_repeats_its_key_does_not_tell_it(desk: Desk, steer: str) -> None:
    desk.put_key("k", SECRET)
    await desk.publish("k", credential={"secret": "openai", "key": "api-key"}, retries={"attempts": 1, "maxWait": "1s"})
    said = await desk.chat(steer, target="/models/k/v1/chat/completions", stream="stream" in steer)
    assert desk.models.asked[-1]["headers"]["authorization"] == f"Bearer {SECRET}"
    told = said.body + json.dumps(said.headers).encode()
    assert b"[credential]" in told and SECRET.encode() not in told
    assert SECRET.encode() not in b"".join([each async for each in _everything(desk)])


async def _everything(desk: Desk) -> Any:
    for _, value in ledger_values(desk.gateways[0].settings.redis_url.get_secret_value()):
        for each in unpacked(value):
            yield each
    for path in (desk.folder / "store").rglob("*"):
        if path.is_file():
            yield path.read_bytes()


async def test_a_key_that_is_missing_or_changed(desk: Desk) -> None:
    await desk.publish("k", credential={"secret": "openai", "key": "api-key"})
    missing = await desk.chat("a", target="/models/k/v1/chat/completions")
    assert (missing.status, missing.json["error"]["code"]) == (503, "no_credential")
    assert "'api-key' of secret 'openai'" in missing.json["error"]["message"]
    desk.put_key("k", "sk-second")
    held = desk.gateways[0].core.kinds._kinds[0].credentials  # type: ignore[attr-defined]
    held._now = lambda: 10.0**9  # as if the next look were due
    assert (await desk.chat("b", target="/models/k/v1/chat/completions")).status == 200
    assert desk.models.asked[-1]["headers"]["authorization"] == "Bearer sk-second"


async def test_failures_are_tried_again_as_the_endpoint_says(desk: Desk) -> None:
    await desk.publish("r", retries={"attempts": 2, "maxWait": "2s"})
    there = {"target": "/models/r/v1/chat/completions"}
    assert (await desk.chat("fail 503 2", **there)).status == 200
    assert desk.models.times("fail 503 2") == 3
    spent = await desk.chat("fail 500 9", **there)
    assert (spent.status, spent.headers["x-should-retry"], desk.models.times("fail 500 9")) == (500, "false", 3)
    patient = await desk.chat("fail 429 9 after 60", **there)
    assert (patient.status, patient.headers["retry-after"]) == (429, "60")
    assert desk.models.times("fail 429 9 after 60") == 1, "a server that asks for a minute is not hurried"


async def test_a_server_that_redirects_is_not_followed(desk: Desk) -> None:
    said = await desk.chat("redirect")
    assert said.status == 502 and "redirects" in said.json["error"]["message"]
    assert [each["path"] for each in desk.models.asked] == ["/v1/chat/completions"]


@pytest.mark.parametrize(
    ("base", "why"),
    [
        ("http://169.254.169.254/v1", "without TLS"),
        ("https://169.254.169.254/v1", "metadata"),
        ("https://127.0.0.1:9/v1", "loopback"),
        ("https://10.1.2.3/v1", "private"),
        ("https://localhost:9/v1", "loopback"),
        ("http://models.example/v1", "without TLS"),
    ],
)
async def test_places_that_nobody_named_are_not_connected_to(desk: Desk, base: str, why: str) -> None:
    await desk.publish("p", baseUrl=base)
    said = await desk.chat("x", target="/models/p/v1/chat/completions")
    assert said.status == 502 and why in said.json["error"]["message"], said.body


async def test_metadata_addresses_are_refused_though_somebody_named_them(desk: Desk) -> None:
    await desk.gateway(allowed_upstreams="169.254.169.254:80,10.1.2.3:9")
    await desk.publish("p", baseUrl="http://169.254.169.254/v1")
    said = await desk.chat("x", at=desk.gateways[1], target="/models/p/v1/chat/completions")
    assert said.status == 502 and "metadata" in said.json["error"]["message"]


async def test_models_are_allowed_or_put_in(desk: Desk) -> None:
    await desk.publish("d", models=["m-1", "m-2"], defaultModel="m-2")
    there = {"target": "/models/d/v1/chat/completions"}
    refused = await desk.chat("x", body=b'{"model": "m-9", "messages": []}', **there)
    assert refused.status == 403 and "m-1, m-2" in refused.json["error"]["message"]
    none = await desk.chat("x", body=b'{"messages": [{"role": "user", "content": "hi"}]}', **there)
    assert none.status == 200 and desk.models.asked[-1]["body"]["model"] == "m-2"


async def test_a_call_costs_two_commands_and_a_replay_one(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []
    client = desk.gateways[0].core.client
    real = client.run

    async def run(script: Any, *args: Any) -> Any:
        sent.append(script.name)
        return await real(script, *args)

    monkeypatch.setattr(client, "run", run)
    for n in range(10):
        await desk.chat(f"q{n}")
    await desk.attempt()
    for n in range(10):
        await desk.chat(f"q{n}")
    ours = [name for name in sent if name.startswith("journal_")]
    assert (ours.count("journal_start"), ours.count("journal_complete"), len(ours)) == (20, 10, 30)
