"""A new effect in a later attempt, while one of the same tool of an earlier attempt has not been met (turns.md §6), on a real Valkey."""

from __future__ import annotations

from typing import Any

import pytest

from component.ledger.desk import Desk, Writer, asking, begun, binding
from moorage_api.ledger.journal import MAX_ENTRIES, Asking, Bounds, Outcome, Reported, Started

pytestmark = pytest.mark.component


def effect(begun_as: int, number: int, fingerprint: str, tool: str = "mail", **over: Any) -> Asking:
    """A call that must not be made twice."""
    return asking(
        begun_as, number, fingerprint, **({"permits": "once", "tool": tool, "call": f"{tool} {fingerprint}"} | over)
    )


class Session:
    """One writer, its session, and the attempt that runs."""

    def __init__(self, g: Writer, fence: int, epoch: int) -> None:
        self.g, self.fence, self.epoch, self.number = g, fence, epoch, 0

    async def start(self, fingerprint: str, tool: str = "mail", *, number: int = 0, **options: Any) -> Started:
        """One call, under the next number unless told which."""
        over = {name: options.pop(name) for name in ("permits", "resent", "bounds") if name in options}
        self.number += 1
        call = effect(self.fence, number or self.number, fingerprint, tool, **over)
        return await self.g.journal.start(binding(self.epoch), call, f"x{self.number}", **options)

    async def done(self, fingerprint: str, tool: str = "mail") -> Started:
        """One call, made and recorded."""
        found = await self.start(fingerprint, tool)
        assert found.word == "RUN", found
        call = effect(self.fence, self.number, fingerprint, tool)
        executor = f"x{self.number}"
        assert (
            await self.g.journal.complete(call, found, executor, state="completed", answer=fingerprint.encode()) == "OK"
        )
        return found

    async def again(self) -> None:
        """The next attempt."""
        record = await self.g.turns.turn("r-1")
        assert record is not None
        word, self.fence, _ = await self.g.turns.begin("r-1", record.fence, epoch=self.epoch, attempt={"n": 2})
        assert word == "OK"


@pytest.fixture
async def session(desk: Desk) -> Session:
    g = await desk.writer("g1")
    return Session(g, *await begun(desk, g))


async def test_it_is_held_and_then_turned_away_to_the_earlier_one_and_the_next_runs(
    session: Session, desk: Desk
) -> None:
    await session.done("a")
    await session.again()
    before = await desk.state()
    assert (await session.start("b", number=1)).word == "HELD"
    assert await desk.state() == before, "what is held has left no trace"
    found = await session.start("b", number=1, waited=True)
    assert (found.word, found.entry, found.answer, found.call) == ("EARLIER", "a.0", b"a", "mail a")
    assert (await session.start("b", number=1)).word == "EARLIER", "sent again, the same is said"
    assert (await session.start("c", number=1)).word == "OTHER"
    assert (await session.start("b", number=2)).entry == "b.0", "one entry turns away one call"


async def test_who_meets_the_earlier_one_while_another_is_held_lets_that_one_run(session: Session) -> None:
    await session.done("a")
    await session.again()
    assert (await session.start("b", number=1)).word == "HELD"
    assert (await session.start("a", number=2)).word == "DONE"
    assert (await session.start("b", number=1, waited=True)).word == "RUN"


async def test_other_tools_models_and_first_attempts_are_not_held(session: Session) -> None:
    await session.done("a")
    await session.done("b")
    await session.again()
    assert (await session.start("c", "other")).word == "RUN"
    assert (await session.start("d", "")).word == "RUN"
    assert (await session.start("e", permits="again")).word == "RUN"


async def test_each_earlier_one_turns_away_one_and_the_oldest_first(session: Session) -> None:
    await session.done("a")
    await session.done("b")
    await session.again()
    assert (await session.start("n1", waited=True)).entry == "a.0"
    assert (await session.start("n2", waited=True)).entry == "b.0"
    assert (await session.start("n3", waited=True)).word == "RUN"


async def test_what_was_turned_away_is_met_anew_in_each_attempt(session: Session) -> None:
    await session.done("a")
    await session.again()
    assert (await session.start("b", waited=True)).word == "EARLIER"
    await session.again()
    assert (await session.start("b", waited=True)).word == "EARLIER"
    assert (await session.start("a")).word == "DONE"
    await session.done("c")
    await session.again()
    assert (await session.start("a")).word == "DONE"
    assert (await session.start("d", waited=True)).entry == "c.0", "of the second attempt"


async def test_one_that_somebody_still_makes_is_waited_for(session: Session, desk: Desk) -> None:
    flying = await session.start("a")
    made = effect(session.fence, session.number, "a")
    await session.again()
    assert (await session.start("b", number=1, waited=True)).word == "HELD"
    assert await session.g.journal.complete(made, flying, "x1", state="completed", answer=b"late") == "OK"
    assert (await session.start("b", number=1, waited=True)).answer == b"late"


async def test_one_whose_maker_is_gone_is_unknown_for_both(session: Session, desk: Desk) -> None:
    await session.start("a")
    await session.again()
    await desk.tick(11)
    assert (await session.start("b", number=1, waited=True, settling=True)).word == "HELD", "while Redis settles"
    found = await session.start("b", number=1, waited=True)
    assert (found.word, found.call) == ("EARLIER_UNKNOWN", "mail a")
    assert (await session.start("a", number=2)).word == "UNKNOWN"


async def test_one_that_was_never_sent_holds_nobody(session: Session) -> None:
    found = await session.start("a")
    assert await session.g.journal.drop("r-1", found, "x1") == "OK"
    await session.again()
    assert (await session.start("b")).word == "RUN"


async def test_who_is_held_or_turned_away_takes_no_request_of_a_purse_and_hears_of_no_bound(session: Session) -> None:
    await session.done("a")
    await session.again()
    one = Bounds("dev/t", requests=1)
    assert (await session.start("b", number=1, bounds=one)).word == "HELD"
    assert (await session.start("b", number=1, bounds=Bounds("dev/t", shut=True), waited=True)).word == "EARLIER"
    assert (await session.start("b", number=2, bounds=one)).word == "RUN", "the one request is still there"
    assert (await session.start("c", number=3, bounds=one)).word == "RATE"
    assert (await session.start("c", number=3)).entry == "c.0", "a call that was not made has left no entry"


async def test_what_an_attempt_reports_adds_to_sums_and_purse_and_keeps_what_it_was(
    session: Session, desk: Desk
) -> None:
    begun = await session.start("a", "step mail")
    call = effect(session.fence, 1, "a", what={"kind": "report"}, bounds=Bounds("dev/t", turn_tokens=100))
    by, outcome = binding(session.epoch), Outcome({}, {"calls": 1}, 7)
    given: dict[str, Any] = {"state": "completed", "answer": b"", "outcome": outcome, "by": by}
    found = await session.g.journal.report(call, begun, "x1", **given)
    assert (found.word, found.what) == ("OK", {"kind": "model"}) and found.lease > 0
    assert await session.g.journal.report(call, begun, "x1", **given) == Reported("OK"), "told the first time only"
    numbers = await desk.redis.hgetall("jn:r-1")
    assert (numbers[b"s:calls"], numbers[b"p:dev/t"]) == (b"1", b"7")
    assert [entry.what for entry in await session.g.journal.entries("r-1")] == [{"kind": "model"}]


async def test_no_effect_is_turned_away_in_a_turn_that_is_cancelled(session: Session) -> None:
    await session.done("a")
    await session.again()
    await session.g.turns.cancel("r-1", "cancelled", 0, "")
    assert (await session.start("b", waited=True)).word == "CANCEL"


async def test_an_attempt_reports_for_its_own_session_only(session: Session, desk: Desk) -> None:
    mine = await session.start("a")
    call = effect(session.fence, 1, "a")

    async def report(executor: str, **who: str) -> str:
        by = binding(session.epoch, **who)
        return (await session.g.journal.report(call, mine, executor, state="completed", answer=b"x", by=by)).word

    assert await report("sb-2:1", sandbox="sb-2") == "SUPERSEDED", "another sandbox is another executor"
    await desk.redis.delete("j:r-1", "jl:r-1", "jn:r-1")
    held = await desk.state()
    assert await report("x1", sandbox="sb-2") == "ABSENT"
    assert await report("x1", session="dev:p2") == "ABSENT"
    assert await desk.state() == held
    await desk.redis.hset("s:dev:p2", "sandbox", "sb-2")
    assert await report("x1", session="dev:p2", sandbox="sb-2") == "ABSENT", (
        "a session that is there, and not the turn's"
    )
    assert await report("x1") == "NONE", "nothing was lost, so it never began"
    await desk.redis.hset("t:r-1", "generation", "0")  # the turn is older than this ledger
    await desk.redis.rpush("jl:r-1", *["x"] * MAX_ENTRIES)
    assert await report("x1") == "NONE", "nor is a full journal filled so"
    await desk.redis.delete("jl:r-1")
    assert await report("x1") == "OK"


async def test_a_model_call_that_differs_in_the_clock_alone_takes_the_earlier_answer(session: Session) -> None:
    for fingerprint in ("at-1", "at-2"):
        found = await session.start(fingerprint, "alike x", permits="again")
        call = effect(session.fence, session.number, fingerprint, "alike x", permits="again")
        done = await session.g.journal.complete(
            call, found, f"x{session.number}", state="completed", answer=fingerprint.encode()
        )
        assert done == "OK"
    await session.again()
    first = await session.start("at-8", "alike x", number=1, permits="again")
    assert (first.word, first.entry, first.answer) == ("DONE", "at-1.0", b"at-1"), "the oldest, and nothing waits"
    assert (await session.start("at-8", "alike x", number=1, permits="again")).answer == b"at-1", "sent again, the same"
    assert (await session.start("at-7", "alike x", number=1, permits="again")).word == "OTHER"
    assert (await session.start("at-2", "alike x", permits="again")).answer == b"at-2"
    await session.again()
    assert (await session.start("at-2", "alike x", permits="again")).answer == b"at-2", "its very own is met first"
    assert (await session.start("at-9", "alike x", permits="again")).answer == b"at-1"
    assert (await session.start("at-9", "alike x", permits="again")).word == "RUN", "each is taken once"
    assert (await session.start("at-1", "alike y", permits="again")).word == "DONE", (
        "what it is counts before what it is like"
    )
    await session.again()
    assert (await session.start("at-7", "alike y", permits="again")).word == "RUN", "another question"


async def test_while_another_call_is_open_a_model_is_asked_anew(session: Session, desk: Desk) -> None:
    found = await session.start("at-1", "alike x", permits="again")
    call = effect(session.fence, session.number, "at-1", "alike x", permits="again")
    await session.g.journal.complete(call, found, "x1", state="completed", answer=b"1")
    await session.again()
    other = await session.start("other", "", permits="again")
    assert other.word == "RUN"
    assert (await session.start("at-2", "alike x", permits="again")).word == "RUN"
    await session.again()
    assert (await session.start("at-3", "alike x", permits="again")).answer == b"1", (
        "what another attempt left open is not this one's"
    )


async def test_who_was_told_of_the_same_call_that_nobody_knows_has_passed_over_nothing(
    session: Session, desk: Desk
) -> None:
    await session.start("a")
    await session.again()
    await desk.tick(11)
    assert (await session.start("a")).word == "UNKNOWN"
    assert (await session.done("a")).entry == "a.1", "its agent looked: it had not happened"
    await session.again()
    assert (await session.start("a")).word == "UNKNOWN"  # and looks again: now it has
    assert (await session.start("b", waited=True)).word == "RUN"
    await session.again()
    assert (await session.start("c", waited=True)).entry == "a.0", "who has not asked for it is told of each"
