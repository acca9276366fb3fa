"""Each row and guard of the journal's scripts (turns.md §6), on a real Valkey."""

from __future__ import annotations

from typing import Any

import pytest

from component.ledger.desk import SESSION, Desk, Writer, acceptance, asking, begun, binding
from moorage_api.ledger.journal import MAX_ENTRIES, Asking, Bounds, Outcome, Started

pytestmark = pytest.mark.component

DONE = b'{"status":200}\n\xff\x00answer'


async def start(g: Writer, epoch: int, call: Asking, executor: str = "g1:1", **options: Any) -> Started:
    return await g.journal.start(binding(epoch), call, executor, **options)


async def again(g: Writer, epoch: int, response: str = "r-1") -> int:
    """The turn's next attempt."""
    record = await g.turns.turn(response)
    assert record is not None
    word, fence, _ = await g.turns.begin(response, record.fence, epoch=epoch, attempt={"n": 2})
    assert word == "OK"
    return fence


async def test_a_recorded_answer_is_given_to_the_same_call_of_a_later_attempt(desk: Desk) -> None:
    g = await desk.writer("g1")
    fence, epoch = await begun(desk, g)
    first = await start(g, epoch, asking(fence, 1))
    assert (first.word, first.entry, first.tried) == ("RUN", "fp.0", 1)
    assert await g.journal.complete(asking(fence, 1), first, "g1:1", state="completed", answer=DONE) == "OK"
    later = await again(g, epoch)
    found = await start(g, epoch, asking(later, 7), "g1:2")
    assert (found.word, found.entry, found.answer) == ("DONE", "fp.0", DONE)
    assert (await start(g, epoch, asking(later, 8), "g1:3")).word == "RUN", "the second of its kind was never made"
    assert await g.journal.progress("r-1") == 1


async def test_equal_calls_of_one_attempt_are_counted_in_redis_and_each_is_met_again(desk: Desk) -> None:
    g = await desk.writer("g1")
    fence, epoch = await begun(desk, g)
    for n in range(3):
        one = await start(g, epoch, asking(fence, n + 1), f"g1:{n}")
        assert one.entry == f"fp.{n}"
        await g.journal.complete(asking(fence), one, f"g1:{n}", state="completed", answer=b"%d" % n)
    other = await start(g, epoch, asking(fence, 4, "else"), "g1:9")
    assert other.entry == "else.0"
    later = await again(g, epoch)
    answers = [(await start(g, epoch, asking(later, n), "x")).answer for n in (5, 6, 7)]
    assert answers == [b"0", b"1", b"2"]


async def test_a_call_sent_again_under_its_number_meets_its_own_entry(desk: Desk) -> None:
    g, h = await desk.writer("g1"), await desk.writer("g2")
    fence, epoch = await begun(desk, g)
    await start(g, epoch, asking(fence, 1))
    assert (await start(h, epoch, asking(fence, 1, resent=True), "g2:1")).word == "WAIT"
    assert (await start(h, epoch, asking(fence, 1, "other"), "g2:1")).word == "OTHER", "a number is one request"
    await desk.tick(11)
    taken = await start(h, epoch, asking(fence, 1, resent=True), "g2:1")
    assert (taken.word, taken.entry, taken.tried) == ("RUN", "fp.0", 2)


async def test_while_redis_settles_no_lease_counts_as_over(desk: Desk) -> None:
    g, h = await desk.writer("g1"), await desk.writer("g2")
    fence, epoch = await begun(desk, g)
    await start(g, epoch, asking(fence, permits="once"))
    await desk.tick(11)
    assert (await start(h, epoch, asking(fence, permits="once"), "g2:1", settling=True)).word == "WAIT"
    assert (await start(h, epoch, asking(fence, permits="once"), "g2:1")).word == "UNKNOWN"


async def test_an_effect_whose_executor_is_gone_is_unknown_for_good(desk: Desk) -> None:
    g, h = await desk.writer("g1"), await desk.writer("g2")
    fence, epoch = await begun(desk, g)
    one = await start(g, epoch, asking(fence, permits="once"))
    await desk.tick(11)
    assert (await start(h, epoch, asking(fence, permits="once", resent=True), "g2:1")).word == "UNKNOWN"
    assert await g.journal.complete(asking(fence), one, "g1:1", state="completed", answer=DONE) == "SUPERSEDED"
    later = await again(g, epoch)
    assert (await start(g, epoch, asking(later, permits="once"), "g1:2")).word == "UNKNOWN"


async def test_an_effect_that_can_be_joined_goes_to_another_executor(desk: Desk) -> None:
    g, h = await desk.writer("g1"), await desk.writer("g2")
    fence, epoch = await begun(desk, g)
    await start(g, epoch, asking(fence, permits="joins"))
    assert (await start(h, epoch, asking(fence, permits="joins", resent=True), "g2:1")).word == "WAIT"
    await desk.tick(11)
    taken = await start(h, epoch, asking(fence, permits="joins", resent=True), "g2:1")
    assert (taken.word, taken.entry, taken.tried) == ("RUN", "fp.0", 2)


async def test_only_the_executor_and_its_try_may_complete(desk: Desk) -> None:
    g, h = await desk.writer("g1"), await desk.writer("g2")
    fence, epoch = await begun(desk, g)
    slow = await start(g, epoch, asking(fence))
    await desk.tick(11)
    quick = await start(h, epoch, asking(fence, resent=True), "g2:1")
    assert await g.journal.complete(asking(fence), slow, "g1:1", state="completed", answer=b"slow") == "SUPERSEDED"
    assert await h.journal.complete(asking(fence), quick, "g2:1", state="completed", answer=b"quick") == "OK"
    assert (await start(g, epoch, asking(fence), "g1:3")).answer == b"quick"


async def test_a_call_is_completed_though_its_attempt_or_its_turn_is_over(desk: Desk) -> None:
    g = await desk.writer("g1")
    fence, epoch = await begun(desk, g)
    old, last = await start(g, epoch, asking(fence, 1)), await start(g, epoch, asking(fence, 2, "b"), "g1:2")
    later = await again(g, epoch)
    assert (await start(g, epoch, asking(fence, 3), "g1:3")).word == "FENCED"
    assert await g.journal.complete(asking(fence), old, "g1:1", state="completed", answer=DONE) == "OK"
    assert (await start(g, epoch, asking(later, 1), "g1:4")).answer == DONE
    await g.turns.decide("r-1", later, "completed", 1, "{}")
    await g.turns.close("r-1", stored=True)
    assert await g.journal.complete(asking(fence), last, "g1:2", state="completed", answer=DONE) == "OK"
    for key in ("j:r-1", "jl:r-1", "jn:r-1", "t:r-1"):
        assert 0 < await desk.redis.ttl(key) <= 1800, key


async def test_an_answer_that_redis_lost_is_written_anew_and_expires_with_its_turn(desk: Desk) -> None:
    g = await desk.writer("g1")
    fence, epoch = await begun(desk, g)
    one = await start(g, epoch, asking(fence))
    await desk.redis.delete("j:r-1", "jl:r-1", "jn:r-1")
    assert await g.journal.complete(asking(fence), one, "g1:1", state="completed", answer=DONE) == "OK"
    assert [e.entry for e in await g.journal.entries("r-1")] == ["fp.0"]
    await desk.redis.delete("t:r-1")
    assert await g.journal.complete(asking(fence), one, "g1:1", state="completed", answer=DONE) == "ABSENT"


async def test_a_dropped_call_may_be_made_again_under_its_number(desk: Desk) -> None:
    g = await desk.writer("g1")
    fence, epoch = await begun(desk, g)
    one = await start(g, epoch, asking(fence, permits="once"))
    assert await g.journal.drop("r-1", one, "g1:1") == "OK"
    second = await start(g, epoch, asking(fence, permits="once", resent=True), "g1:2")
    assert (second.word, second.entry, second.tried) == ("RUN", "fp.0", 1)
    assert await g.journal.drop("r-1", one, "g1:1") == "SUPERSEDED", "it is another's now"
    assert len(await g.journal.entries("r-1")) == 1


async def test_a_held_call_is_nobody_elses(desk: Desk) -> None:
    g, h = await desk.writer("g1"), await desk.writer("g2")
    fence, epoch = await begun(desk, g)
    one = await start(g, epoch, asking(fence))
    for _ in range(3):
        await desk.tick(8)
        assert await g.journal.hold([("r-1", one.entry, "g1:1"), ("r-1", one.entry, "g2:1")]) == ["OK", "LOST"]
        assert (await start(h, epoch, asking(fence), "g2:1")).word == "WAIT"


@pytest.mark.parametrize(
    "over",
    [{"sandbox": "sb-2"}, {"tenant": "other"}, {"agent": "b"}, {"epoch": 1}],
    ids=lambda over: next(iter(over)),
)
async def test_only_the_sandbox_that_holds_the_session_may_ask(desk: Desk, over: dict[str, Any]) -> None:
    g = await desk.writer("g1")
    fence, epoch = await begun(desk, g)
    held = await desk.state()
    for call in (asking(fence), asking(0, response="")):
        asked = binding(over.get("epoch", epoch), **{k: v for k, v in over.items() if k != "epoch"})
        assert (await g.journal.start(asked, call, "g1:1")).word == "UNBOUND"
    assert await desk.state() == held


async def test_another_sessions_turn_is_none(desk: Desk) -> None:
    g = await desk.writer("g1")
    _, epoch = await begun(desk, g)
    accepted = await g.turns.accept(acceptance("r-2", "dev:p9"))
    assert (await start(g, epoch, asking(accepted.fence, response="r-2"))).word == "ABSENT"


async def test_what_redis_has_lost_is_no_refusal_for_good(desk: Desk) -> None:
    g = await desk.writer("g1")
    fence, epoch = await begun(desk, g)
    held = await desk.state()
    assert (await start(g, epoch + 1, asking(fence))).word == "BEHIND", "the session of an older binding came back"
    assert (await start(g, epoch, asking(fence + 1))).word == "BEHIND", "so did the turn of an older attempt"
    assert (await start(g, epoch, asking(fence, response="r-9"))).word == "BEHIND"
    gone = binding(epoch, session="dev:p2")
    assert (await g.journal.start(gone, asking(fence), "g1:1")).word == "BEHIND"
    assert (await g.journal.start(gone, asking(0, response=""), "g1:1")).word == "BEHIND"
    assert await desk.state() == held


async def test_without_a_turn_nothing_is_recorded(desk: Desk) -> None:
    g = await desk.writer("g1")
    _, epoch = await begun(desk, g)
    held = await desk.state()
    assert (await start(g, epoch, asking(0, 1, response=""))).word == "FREE"
    assert await desk.state() == held


async def test_no_call_begins_in_a_turn_that_is_cancelled_or_over_but_recorded_ones_answer(desk: Desk) -> None:
    g = await desk.writer("g1")
    fence, epoch = await begun(desk, g)
    one = await start(g, epoch, asking(fence, 1))
    await g.journal.complete(asking(fence), one, "g1:1", state="completed", answer=DONE)
    await g.turns.cancel("r-1", "cancelled", 0, "")
    assert (await start(g, epoch, asking(fence, 2), "g1:2")).word == "CANCEL"
    assert (await start(g, epoch, asking(fence, 1), "g1:2")).word == "DONE"
    await g.turns.decide("r-1", fence, "cancelled", 1, "{}")
    assert (await start(g, epoch, asking(fence, 3), "g1:3")).word == "STATE"


async def test_an_effect_sent_before_a_loss_is_unknown_after_it_and_a_new_one_runs(desk: Desk) -> None:
    g = await desk.writer("g1")
    fence, epoch = await begun(desk, g)
    await start(g, epoch, asking(fence, 1, permits="once"))
    record, session = await g.turns.turn("r-1"), await g.sessions.session(SESSION)
    assert record is not None and session is not None
    await desk.redis.delete("j:r-1", "jl:r-1", "jn:r-1")
    await desk.redis.hset("t:r-1", "generation", "0")  # the turn is older than this ledger
    sent = asking(fence, 1, permits="once", resent=True)
    assert (await start(g, epoch, sent, "g1:2")).word == "UNKNOWN"
    assert (await start(g, epoch, asking(fence, 2, "new", permits="once"), "g1:3")).word == "RUN"
    assert (await start(g, epoch, asking(fence, 3, "model", resent=True), "g1:4")).word == "RUN"


async def test_after_a_loss_an_effect_that_an_earlier_attempt_may_have_made_is_unknown(desk: Desk) -> None:
    g = await desk.writer("g1")
    fence, epoch = await begun(desk, g)
    await start(g, epoch, asking(fence, 1, permits="once"))
    later = await again(g, epoch)
    await desk.redis.delete("j:r-1", "jl:r-1", "jn:r-1")
    await desk.redis.hset("t:r-1", "generation", "0")  # the turn is older than this ledger
    assert (await start(g, epoch, asking(later, 1, permits="once"), "g1:2")).word == "UNKNOWN"
    assert (await start(g, epoch, asking(later, 2, "model"), "g1:3")).word == "RUN"


async def test_a_full_journal_takes_no_new_call_and_still_answers(desk: Desk) -> None:
    g = await desk.writer("g1")
    fence, epoch = await begun(desk, g)
    one = await start(g, epoch, asking(fence, 1))
    await g.journal.complete(asking(fence), one, "g1:1", state="completed", answer=DONE)
    await desk.redis.rpush("jl:r-1", *["x"] * (MAX_ENTRIES - 1))
    assert (await start(g, epoch, asking(fence, 2), "g1:2")).word == "FULL"
    assert (await start(g, epoch, asking(fence, 1), "g1:2")).word == "DONE"


@pytest.mark.parametrize("way", ["close", "flushed", "forget", "discard"])
async def test_the_journal_goes_with_its_turn(desk: Desk, way: str) -> None:
    g = await desk.writer("g1")
    fence, epoch = await begun(desk, g)
    one = await start(g, epoch, asking(fence))
    await g.journal.complete(asking(fence), one, "g1:1", state="completed", answer=DONE)
    names = ("j:r-1", "jl:r-1", "jn:r-1")
    assert await desk.redis.exists(*names) == 3
    if way == "discard":
        await g.turns.discard("r-1", fence)
    else:
        await g.turns.decide("r-1", fence, "completed", 1, "{}")
        await g.turns.close("r-1", stored=way != "flushed")
        if way == "flushed":
            assert [await desk.redis.ttl(name) for name in names] == [-1, -1, -1]
            await g.turns.flushed("r-1")
    if way == "forget":
        await g.turns.forget("r-1")
    if way in ("forget", "discard"):
        assert await desk.redis.exists(*names) == 0
    else:
        assert all([0 < await desk.redis.ttl(name) <= 1800 for name in names])


async def test_a_session_that_moved_on_refuses_its_former_epoch(desk: Desk) -> None:
    g = await desk.writer("g1")
    fence, epoch = await begun(desk, g)
    await desk.tick(1)
    await g.provider.gone("sb-1", "killed")
    await g.sessions.claim(SESSION, "r1", named=False)
    assert (await start(g, epoch, asking(fence))).word == "UNBOUND"


# -- bounds


def bounded(fence: int, number: int = 1, fingerprint: str = "fp", **bounds: Any) -> Asking:
    return asking(fence, number, fingerprint, bounds=Bounds("dev/m", **bounds))


async def complete(g: Writer, call: Asking, found: Started, tokens: int, executor: str = "g1:1", **sums: int) -> None:
    outcome = Outcome({"finish": "stop"}, sums, tokens)
    assert await g.journal.complete(call, found, executor, state="completed", answer=b"a", outcome=outcome) == "OK"


async def test_a_minutes_requests_are_counted_over_all_gateways_and_come_back_evenly(desk: Desk) -> None:
    g, h = await desk.writer("g1"), await desk.writer("g2")
    fence, epoch = await begun(desk, g)
    for n in range(3):
        found = await start(g if n % 2 else h, epoch, bounded(fence, n + 1, f"f{n}", requests=3))
        assert found.word == "RUN"
    refused = await start(h, epoch, bounded(fence, 9, "f9", requests=3))
    assert (refused.word, refused.short) == ("RATE", "requests") and 19_000 < refused.wait <= 20_000
    assert [entry.entry for entry in await g.journal.entries("r-1")] == ["f0.0", "f1.0", "f2.0"], (
        "no entry of what was refused"
    )
    await desk.tick(20.1)
    word, fence, _ = await g.turns.begin("r-1", fence, epoch=epoch, attempt={"n": 2})
    assert word == "OK"
    assert (await start(g, epoch, bounded(fence, 1, "f9", requests=3))).word == "RUN"
    assert (await start(g, epoch, bounded(fence, 2, "f8", requests=3))).word == "RATE"
    assert 0 < await desk.redis.pttl("rate:dev/m") <= 60_000, "a full bucket is no key"


async def test_a_call_permitted_once_takes_one_request_however_often_it_is_sent(desk: Desk) -> None:
    g = await desk.writer("g1")
    fence, epoch = await begun(desk, g)
    for _ in range(3):
        assert (await start(g, epoch, bounded(fence, 1, requests=2))).word == "RUN"
    assert (await start(g, epoch, bounded(fence, 2, requests=2))).word == "RUN"
    assert (await start(g, epoch, bounded(fence, 3, requests=2))).word == "RATE"


async def test_tokens_are_taken_when_a_call_has_ended_and_a_debt_is_paid_first(desk: Desk) -> None:
    g = await desk.writer("g1")
    fence, epoch = await begun(desk, g)
    one = bounded(fence, 1, tokens=100)
    found = await start(g, epoch, one)
    await complete(g, one, found, 150)
    assert (
        await g.journal.complete(one, found, "g1:1", state="completed", answer=b"a", outcome=Outcome(tokens=150))
        == "OK"
    )
    refused = await start(g, epoch, bounded(fence, 2, tokens=100))
    assert (refused.word, refused.short) == ("RATE", "tokens") and 30_000 < refused.wait <= 30_600, (
        "150 were taken, once"
    )


async def test_a_turn_that_spent_its_tokens_makes_no_further_call_but_is_answered_what_it_knows(desk: Desk) -> None:
    g = await desk.writer("g1")
    fence, epoch = await begun(desk, g)
    one = bounded(fence, 1, turn_tokens=10)
    await complete(g, one, await start(g, epoch, one), 10)
    assert (await start(g, epoch, bounded(fence, 2, turn_tokens=10))).word == "SPENT"
    assert (await start(g, epoch, asking(fence, 2, bounds=Bounds("dev/other", turn_tokens=10)))).word == "RUN", (
        "its own purse"
    )
    later = await again(g, epoch)
    known = await start(g, epoch, bounded(later, 1, turn_tokens=10, shut=True))
    assert (known.word, known.what) == ("DONE", {"kind": "model", "finish": "stop"})
    assert (await start(g, epoch, bounded(later, 2, "new", turn_tokens=10))).word == "SPENT", "over all its attempts"


async def test_nothing_is_made_where_its_bounds_are_shut(desk: Desk) -> None:
    g = await desk.writer("g1")
    fence, epoch = await begun(desk, g)
    assert (await start(g, epoch, bounded(fence, 1, shut=True))).word == "SHUT"
    assert (await start(g, epoch, asking(0, 0, response="", bounds=Bounds("dev/m", shut=True)))).word == "SHUT"
    assert await g.journal.entries("r-1") == []
    assert (await start(g, epoch, bounded(fence, 1))).word == "RUN", "the same call, once they are open"


async def test_a_call_outside_of_a_turn_is_bounded_too(desk: Desk) -> None:
    g = await desk.writer("g1")
    _, epoch = await begun(desk, g)
    free = asking(0, 0, response="", bounds=Bounds("dev/m", requests=1, tokens=50))
    assert (await start(g, epoch, free)).word == "FREE"
    assert (await start(g, epoch, free)).word == "RATE"
    await g.journal.spend(free, 100)
    found = await start(g, epoch, free)
    assert (found.word, found.short, found.wait) == ("RATE", "tokens", 61_200), "50 below nothing, and one more"


async def test_what_a_turns_calls_add_up_to_is_fixed_with_its_outcome(desk: Desk) -> None:
    g = await desk.writer("g1")
    fence, epoch = await begun(desk, g)
    for n, counts in enumerate(({"input_tokens": 5, "output_tokens": 2}, {"input_tokens": 7, "cached_tokens": 3})):
        call = asking(fence, n + 1, f"f{n}")
        await complete(g, call, await start(g, epoch, call), 0, **counts)
    late = asking(fence, 3, "late")
    open_ = await start(g, epoch, late)
    first = await g.turns.decide("r-1", fence, "completed", 1, "{}")
    await complete(g, late, open_, 0, input_tokens=1000)
    assert await g.turns.decide("r-1", fence, "completed", 1, "{}") == first
    record = await g.turns.turn("r-1")
    assert record is not None
    assert record.calls == {"calls": 2, "input_tokens": 12, "output_tokens": 2, "cached_tokens": 3}
