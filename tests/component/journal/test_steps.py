"""Steps at the sandbox port: begun and ended by the attempt, recorded for the next one (turns.md §6)."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from typing import Any

import pytest

from component.journal.conftest import WITHIN, Desk, Said
from fakes.otlp import collecting
from moorage_gateway.journal import spilling

pytestmark = pytest.mark.component


async def begin(desk: Desk, name: str = "mail", arguments: Any = None, **over: Any) -> Said:
    body = json.dumps({"name": name, "arguments": arguments}).encode()
    return await desk.ask(desk.call("", body=body, target="/steps/begin", **over))


async def end(desk: Desk, mark: str, result: Any = "sent", sandbox: str = "sb-1", **over: Any) -> Said:
    said = over.pop("said", {"result": result})
    body = json.dumps({"step": mark, **said}).encode()
    return await desk.ask(desk.call("", body=body, target="/steps/end", **over), sandbox=sandbox)


async def step(desk: Desk, name: str = "mail", arguments: Any = None, result: Any = "sent") -> None:
    """One that runs, and ends."""
    begun = await begin(desk, name, arguments)
    assert begun.json["state"] == "run", begun
    assert (await end(desk, begun.json["step"], result)).json == {"state": "recorded"}


async def test_a_later_attempt_gets_the_recorded_result_in_order(desk: Desk) -> None:
    await step(desk, "mail", [1], {"id": 1})
    await step(desk, "mail", [1], {"id": 2})
    await step(desk, "call", [1], None)
    await desk.attempt()
    found = [await begin(desk, *asked) for asked in (("mail", [1]), ("mail", [1]), ("call", [1]))]
    assert all(said.replayed for said in found)
    assert [said.json for said in found] == [
        {"state": "completed", "outcome": {"result": result}} for result in ({"id": 1}, {"id": 2}, None)
    ]
    assert (await begin(desk, "mail", [1])).json["state"] == "run"


async def test_keys_of_arguments_have_no_order_and_everything_else_counts(desk: Desk) -> None:
    await step(desk, "mail", {"a": 1, "b": [2, "x"]})
    await desk.attempt()
    assert (await begin(desk, "mail", {"b": [2, "x"], "a": 1})).json["state"] == "completed"
    for name, arguments in (("mail", {"a": 1, "b": ["x", 2]}), ("mail", None), ("Mail", {"a": 1, "b": [2, "x"]})):
        assert (await begin(desk, name, arguments)).json["state"] == "run"


async def test_a_failure_is_an_outcome(desk: Desk) -> None:
    begun = await begin(desk)
    await end(desk, begun.json["step"], said={"error": {"type": "ValueError", "message": "no"}})
    await desk.attempt()
    assert (await begin(desk)).json["outcome"] == {"error": {"type": "ValueError", "message": "no"}}


async def test_a_step_whose_attempt_died_is_unknown_and_the_next_of_its_kind_runs(desk: Desk) -> None:
    begun = await begin(desk)
    await desk.attempt()
    assert (await begin(desk)).json == {"state": "outcome_unknown"}
    assert (await begin(desk)).json["state"] == "run"
    late = await end(desk, begun.json["step"])
    assert late.refused == "no" and "has ended" in late.json["error"]["message"]


async def test_a_report_under_way_when_its_attempt_died_counts(desk: Desk) -> None:
    begun, old = await begin(desk), desk.fence
    await desk.attempt()
    asking = asyncio.ensure_future(begin(desk))
    assert (await end(desk, begun.json["step"], begun=old)).json == {"state": "recorded"}
    assert (await asking).json == {"state": "completed", "outcome": {"result": "sent"}}


async def test_begin_and_end_sent_again_say_the_same(desk: Desk) -> None:
    other = await desk.gateway()
    call = desk.call("", body=b'{"name": "mail"}', target="/steps/begin")
    first, again = (
        await desk.ask(call),
        await desk.ask((call[0].model_copy(update={"resent": True}), call[1]), at=other),
    )
    assert first.json == again.json
    for _ in range(2):
        assert (await end(desk, first.json["step"], "one")).json == {"state": "recorded"}
    assert (await end(desk, first.json["step"], "two")).json == {"state": "recorded"}
    await desk.attempt()
    assert (await begin(desk)).json["outcome"] == {"result": "one"}, "the first word counts"


@pytest.mark.parametrize("size", [1, 10_000, 100_000])
async def test_what_was_never_begun_cannot_be_ended(desk: Desk, size: int) -> None:
    said = await end(desk, f"{desk.fence}.1.{'ab' * 20}.0", "x" * size)
    assert said.refused == "no" and said.json["error"]["code"] == "not_begun"
    assert await desk.journal.entries(desk.turn) == [] and not [
        path for path in (desk.folder / "store").rglob("*") if path.parent.name == "journal"
    ]


async def test_another_sandbox_ends_nothing(desk: Desk) -> None:
    begun = await begin(desk)
    assert (await end(desk, begun.json["step"], sandbox="sb-2")).refused == "fenced"
    assert (await end(desk, begun.json["step"])).json == {"state": "recorded"}


async def test_outside_of_a_turn_nothing_is_recorded(desk: Desk) -> None:
    assert (await begin(desk, turn="", begun=0)).json == {"state": "free"}
    assert (await end(desk, "1.1.00.0", turn="", begun=0)).refused == "no"
    assert await desk.journal.entries(desk.turn) == []


async def test_a_large_result_goes_to_the_store(desk: Desk) -> None:
    text = "x" * (spilling.INLINE + 1)
    await step(desk, result=text)
    assert int(await desk.ledger.read("HGET", f"jn:{desk.turn}", "octets")) < 200
    await desk.attempt()
    assert (await begin(desk)).json["outcome"] == {"result": text}


async def test_many_results_do_not_fill_redis(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spilling, "INLINE_ALL", 20_000)
    for n in range(4):
        await step(desk, result=f"{n}" * 9_000)
    assert int(await desk.ledger.read("HGET", f"jn:{desk.turn}", "octets")) < 20_000
    await desk.attempt()
    assert [(await begin(desk)).json["outcome"]["result"][0] for _ in range(4)] == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    ("target", "body", "says"),
    [
        ("/steps/begin", b"{", "not JSON"),
        ("/steps/begin", b"[]", "JSON object"),
        ("/steps/begin", b'{"name": ""}', "printable"),
        ("/steps/begin", b'{"name": "a\\nb"}', "printable"),
        ("/steps/begin", json.dumps({"name": "n" * 129}).encode(), "printable"),
        ("/steps/begin", b'{"name": "a", "arguments": NaN}', "NaN"),
        ("/steps/begin", b"[" * 100_000, "JSON"),
        ("/steps/end", b'{"step": "1.1.aa.0"}', "either"),
        ("/steps/end", b'{"step": 7, "result": 1}', "either"),
        ("/steps/end", b'{"step": "x", "result": 1}', "has ended"),
        ("/steps/other", b"{}", "moorage.step"),
    ],
)
async def test_what_is_no_step_is_told_what_one_is(desk: Desk, target: str, body: bytes, says: str) -> None:
    said = await desk.ask(desk.call("", body=body, target=target))
    assert said.refused == "no" and 400 <= said.status < 500 and says in said.json["error"]["message"]
    assert await desk.journal.entries(desk.turn) == []


async def test_a_new_step_is_turned_away_once_to_the_earlier_one_of_its_name(desk: Desk) -> None:
    await step(desk, "mail", ["now 1"], {"id": 7})
    await desk.attempt()
    began = time.monotonic()
    found = await begin(desk, "mail", ["now 2"])
    assert time.monotonic() - began >= 1.0, "it waits for the earlier one to be met"
    assert found.json == {
        "state": "already_done_in_earlier_attempt", "call": {"name": "mail", "arguments": ["now 1"]},
        "outcome": {"result": {"id": 7}},
    }  # fmt: skip
    assert (await begin(desk, "mail", ["now 2"])).json["state"] == "run"


async def test_parallel_steps_are_not_turned_away_by_one_that_comes_a_little_later(desk: Desk) -> None:
    await step(desk, "mail", ["a"], 1)
    await desk.attempt()
    new = asyncio.ensure_future(begin(desk, "mail", ["b"]))
    async with asyncio.timeout(10):
        while not desk.gateways[0].core.journaling._starting:
            await asyncio.sleep(0.005)
    assert (await begin(desk, "mail", ["a"])).json["outcome"] == {"result": 1}
    assert (await new).json["state"] == "run"


async def test_an_earlier_step_of_unknown_outcome_turns_away_too(desk: Desk) -> None:
    await begin(desk, "mail", ["x" * 5000])
    await desk.attempt()
    found = await begin(desk, "mail", ["b"])
    assert found.json == {"state": "already_done_in_earlier_attempt", "call": None, "outcome": None}


async def test_steps_are_spans_of_the_turns_trace_once_each_and_without_arguments_or_results(desk: Desk) -> None:
    trace, parent = uuid.uuid4().hex, "00f067aa0ba902b7"
    over: dict[str, Any] = {
        "headers": [("traceparent", f"00-{trace}-{parent}-01"), ("content-type", "application/json")]
    }
    with collecting() as collector:
        at = await desk.gateway(otlp_endpoint=collector.url)
        desk.gateways.insert(0, desk.gateways.pop(desk.gateways.index(at)))
        before = time.time_ns()
        begun = await begin(desk, "mail", ["mark77"], **over)
        for _ in range(2):  # a report is sent again where its answer was lost
            await end(desk, begun.json["step"], "mark78", **over)
        failing = await begin(desk, "call", **over)
        await end(desk, failing.json["step"], said={"error": {"type": "mark79", "message": "mark80"}}, **over)
        await desk.attempt()
        assert (await begin(desk, "mail", ["mark77"], **over)).replayed
        async with asyncio.timeout(WITHIN):
            while len(found := collector.trace(trace)) < 3:
                await asyncio.sleep(0.05)
    assert [span.name for span in found] == ["step mail", "step call", "step mail"]
    assert {span.parent_id for span in found} == {parent}
    made, failed, replayed = (span.attributes for span in found)
    assert (made["moorage.step"], made["moorage.turn"], made["moorage.replayed"]) == ("mail", desk.turn, False)
    assert made["moorage.entry"] and replayed == made | {"moorage.replayed": True}
    assert failed["error.type"] == "step_failed" and "error.type" not in made
    assert before - 1_000_000_000 <= found[0].began <= found[0].ended <= time.time_ns(), "it spans the time it ran"
    assert not [span for span in found if b"mark" in span.raw]
