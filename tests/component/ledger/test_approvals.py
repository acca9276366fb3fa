"""Calls that a person must approve, on a real Valkey: asked about once, let through once, for a while, and never past a loss."""

from __future__ import annotations

from typing import Any

import pytest

from component.ledger.desk import SESSION, Desk
from moorage_api.ledger import keys
from moorage_api.ledger.approvals import ANSWERED_MS, MOST_KEPT, MOST_PENDING, PENDING_MS, ApprovalLedger, Request

pytestmark = pytest.mark.component


def wanted(call: str, what: str = "p", response: str = "r-1") -> Request:
    return Request(what, call, response, "t", "put", f"[{what}]")


class Asker:
    """One writer."""

    def __init__(self, ledger: ApprovalLedger) -> None:
        self.ledger = ledger

    async def look(self, call: str, *more: Any, session: str = SESSION) -> str:
        word, id, reason = await self.ledger.look(session, wanted(call, *more), f"id-{call}")
        return f"{word} {id} {reason}".strip()

    async def say(self, call: str, approve: bool, reason: str = "", session: str = SESSION) -> str:
        return (await self.ledger.answer(session, f"id-{call}", approve=approve, reason=reason))[0]


@pytest.fixture
async def asker(desk: Desk) -> Asker:
    return Asker(ApprovalLedger((await desk.writer("g1")).client))


async def test_one_request_a_call_however_often_it_is_asked_for_and_it_is_let_through_once(asker: Asker) -> None:
    assert await asker.look("1") == "PENDING id-1"
    assert await asker.look("2", "p", "r-2") == "PENDING id-1"
    assert [id for id, _ in await asker.ledger.asked(SESSION, "r-2")] == ["id-1"]
    assert await asker.ledger.asked(SESSION, "r-1") == [], "shown by the turn that asked last"
    assert await asker.ledger.answer(SESSION, "id-1", approve=True, reason="") == ("OK", "t", "put", "[p]")
    assert await asker.ledger.asked(SESSION, "r-2") == []
    assert await asker.look("3", "other") == "PENDING id-3", "another call"
    assert await asker.look("4") == "APPROVED id-1"
    assert await asker.look("4") == "APPROVED id-1", "the same call, made by another gateway"
    assert await asker.look("5") == "PENDING id-5"
    assert await asker.say("1", True) == "OK" and await asker.say("1", False) == "ANSWERED"
    assert await asker.look("6") == "PENDING id-5", "an answer given again grants nothing again"


async def test_who_is_refused_is_not_asked_about_again_for_a_while(asker: Asker, desk: Desk) -> None:
    await asker.look("1")
    assert await asker.say("1", False, "no") == "OK"
    assert await asker.look("2") == "REFUSED id-1 no"
    assert await asker.say("1", True) == "ANSWERED"
    await desk.tick(ANSWERED_MS / 1000 + 1)
    assert await asker.look("3") == "PENDING id-3"


async def test_requests_and_answers_last_for_a_time(asker: Asker, desk: Desk) -> None:
    await asker.look("1")
    await desk.tick(PENDING_MS / 1000 + 1)
    assert await asker.say("1", True) == "NONE"
    await asker.look("2")
    assert await asker.say("2", True) == "OK"
    await desk.tick(ANSWERED_MS / 1000 + 1)
    assert await asker.look("3") == "PENDING id-3"
    assert await desk.redis.hkeys(keys.approvals(SESSION)) == [b"id-3"], "what counts for nothing is taken out"


async def test_there_are_only_so_many(asker: Asker) -> None:
    for n in range(MOST_PENDING):
        assert (await asker.look(f"{n}", f"p{n}")).startswith("PENDING")
    assert await asker.look("x", "px") == "FULL"
    assert await asker.look("y", "p0") == "PENDING id-0"
    for n in range(MOST_PENDING, MOST_KEPT):
        await asker.say(f"{n - MOST_PENDING}", False)
        assert (await asker.look(f"{n}", f"p{n}")).startswith("PENDING")
    await asker.say(f"{MOST_KEPT - 1}", False)
    assert await asker.look("x", "px") == "FULL"


async def test_nothing_counts_in_another_session_or_after_a_loss(asker: Asker, desk: Desk) -> None:
    await asker.look("1")
    assert await asker.say("1", True, session="dev:p2") == "NONE"
    assert await asker.look("2", session="dev:p2") == "PENDING id-2"
    assert await asker.say("1", True) == "OK"
    copy = await desk.keep()
    assert await asker.look("3") == "APPROVED id-1"
    await desk.roll_back(copy)
    later = Asker(ApprovalLedger((await desk.writer("g2", stored_generation=5)).client))
    assert await later.look("4") == "PENDING id-4", "whether the call was made before the loss, nobody knows"
    assert await later.say("1", True) == "NONE"
