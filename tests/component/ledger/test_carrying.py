"""Steps of a run's failed try on their way to its next one, on a real Valkey."""

from __future__ import annotations

import json
from typing import Any

import pytest

from component.ledger.desk import Desk, Writer, acceptance, asking, begun, binding
from moorage_api.ledger.journal import JournalLedger
from moorage_gateway.clock import SystemClock
from moorage_gateway.journal.answers import Answer
from moorage_gateway.journal.spilling import INLINE, Spill
from moorage_gateway.routines import carrying
from moorage_gateway.routines.carrying import Carrying
from moorage_gateway.store.memory import MemoryStore

pytestmark = [pytest.mark.component, pytest.mark.routines]

RUN = ("acme", "triage", "run_1")


def told(**outcome: Any) -> Answer:
    """How the journal keeps a step's end."""
    return Answer(200, (), json.dumps({"state": "completed", "outcome": outcome}).encode())


def over(g: Writer, store: MemoryStore) -> tuple[Carrying, Spill]:
    spill = Spill(store, SystemClock())
    return Carrying(JournalLedger(g.client), spill, store), spill


async def made(
    g: Writer, spill: Spill, place: tuple[int, int], print_: str, answer: Answer | None, number: int
) -> None:
    """A step of the first try's turn; with `answer` None it is begun, and that is all."""
    fence, epoch = place
    call = asking(fence, number, print_, permits="once", what={"kind": "step", "name": print_})
    started = await g.journal.start(binding(epoch), call, "sb:1")
    assert started.word == "RUN"
    if answer is not None:
        held = await spill.put("acme", "r-1", f"{started.entry}.1", answer, held=0)
        await g.journal.complete(call, started, "sb:1", state="completed", answer=held)


async def ask(g: Writer, place: tuple[int, int], print_: str, number: int) -> Any:
    fence, epoch = place
    call = asking(fence, number, print_, response="r-2", permits="once", what={"kind": "step", "name": print_})
    return await g.journal.start(binding(epoch), call, "sb:2")


async def second(g: Writer, fence: int, epoch: int) -> tuple[int, int]:
    """The first try ends; the next one's turn, in the same session."""
    await g.turns.decide("r-1", fence, "failed", 1, "{}")
    await g.turns.close("r-1", stored=True)
    accepted = await g.turns.accept(acceptance("r-2"))
    word, fence, _ = await g.turns.begin("r-2", accepted.fence, epoch=epoch, attempt={"n": 1})
    assert word == "OK"
    return fence, epoch


async def test_what_was_done_is_answered_what_failed_runs_again_and_what_is_not_known_is_told_so(desk: Desk) -> None:
    g, store = await desk.writer("g1"), MemoryStore()
    steps, spill = over(g, store)
    place = await begun(desk, g)
    large = told(result="x" * INLINE)
    await made(g, spill, place, "charge", told(result=7), 1)
    await made(g, spill, place, "large", large, 2)
    await made(g, spill, place, "mail", told(error={"type": "E", "message": "no"}), 3)
    await made(g, spill, place, "mail", told(result="sent"), 4)
    await made(g, spill, place, "fetch", told(error={"type": "E", "message": "no"}), 5)
    await made(g, spill, place, "lost", None, 6)
    for _ in range(2):  # the gateway that took it died before it wrote that down
        await steps.take(*RUN, "r-1")
        await steps.give(*RUN, "r-2", lasts_ms=60_000)
    place = await second(g, *place)
    assert (await ask(g, place, "charge", 1)).answer == told(result=7).encode()
    found = await ask(g, place, "large", 2)
    assert found.word == "DONE" and await spill.get("acme", "r-2", found.answer) == large
    assert (await ask(g, place, "mail", 3)).answer == told(result="sent").encode(), "the first of it that did not fail"
    assert (await ask(g, place, "fetch", 4)).word == "RUN"
    assert (await ask(g, place, "lost", 5)).word == "UNKNOWN"
    assert (await ask(g, place, "charge", 6)).word == "RUN", "twice in one try is meant twice"


async def test_a_journal_that_redis_lost_takes_nothing_of_what_was_kept_before(desk: Desk) -> None:
    g, store = await desk.writer("g1"), MemoryStore()
    steps, spill = over(g, store)
    place = await begun(desk, g)
    await made(g, spill, place, "charge", told(result=7), 1)
    await steps.take(*RUN, "r-1")
    await desk.redis.delete("j:r-1", "jl:r-1", "jn:r-1")
    await made(g, spill, place, "mail", told(result="sent"), 9)
    await steps.take(*RUN, "r-1")
    await steps.give(*RUN, "r-2", lasts_ms=60_000)
    assert {one.what["name"] for one in await g.journal.entries("r-2")} == {"charge", "mail"}


async def test_what_there_is_no_room_for_is_told_as_unknown(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carrying, "MOST", 60)
    g, store = await desk.writer("g1"), MemoryStore()
    steps, spill = over(g, store)
    place = await begun(desk, g)
    await made(g, spill, place, "first", told(result=1), 1)
    await made(g, spill, place, "next", told(result=2), 2)
    await steps.take(*RUN, "r-1")
    await steps.give(*RUN, "r-2", lasts_ms=60_000)
    assert {one.what["name"]: one.state for one in await g.journal.entries("r-2")} == {
        "first": "completed",
        "next": "unknown",
    }


async def test_a_run_that_is_over_leaves_nothing(desk: Desk) -> None:
    g, store = await desk.writer("g1"), MemoryStore()
    steps, spill = over(g, store)
    place = await begun(desk, g)
    await made(g, spill, place, "charge", told(result=7), 1)
    await steps.take(*RUN, "r-1")
    await steps.forget(*RUN)
    assert await store.list("routine-steps/", limit=10) == []
    await steps.give(*RUN, "r-2", lasts_ms=60_000)
    assert await g.journal.entries("r-2") == []
