"""Each row and guard of a turn's scripts (turns.md §1, §2), on a real Valkey."""

from __future__ import annotations

from typing import Any

import pytest

from component.ledger.desk import SESSION, START_US, WHO, Desk, acceptance, begun, claimed, entry
from moorage_api.ledger.records import SessionIdentity

pytestmark = pytest.mark.component


# -- accept -----------------------------------------------------------------------------------------------------------


async def test_an_accepted_turn_has_log_owner_lease_and_due_at_once(desk: Desk) -> None:
    g = await desk.writer("g1")
    accepted = await g.turns.accept(acceptance("r-1"))
    assert (accepted.word, accepted.state, accepted.fence) == ("OK", "running", START_US)
    now = START_US // 1000
    assert await desk.turn("r-1", "owner", "lease", "attempt", "cancel") == ["g1", str(now + 10_000), "0", "0"]
    assert await desk.redis.lrange("e:r-1", 0, -1) == [b'0 0 {"type":"response.created"}']
    assert await desk.redis.zscore("due", "r-1") == now + 10_000
    assert await desk.session("running", "state") == ["r-1", "new"]


async def test_the_second_turn_of_a_session_waits_and_the_fourth_is_refused(desk: Desk) -> None:
    g = await desk.writer("g1")
    states = [(await g.turns.accept(acceptance(f"r-{n}"))) for n in range(1, 5)]
    assert [(a.word, a.state) for a in states] == [("OK", "running"), ("OK", "queued"), ("OK", "queued"), ("FULL", "")]
    assert await g.sessions.waiting(SESSION) == ["r-2", "r-3"]
    assert await desk.turn("r-2", "owner", "lease") == ["", "0"]
    assert await desk.redis.zcard("due") == 3
    assert await desk.redis.exists("t:r-4", "e:r-4") == 0


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"idempotency_hash": "h"}, "JOIN"),
        ({"idempotency_hash": "other"}, "CONFLICT"),
        ({"idempotency_hash": "other", "idempotency": "idem:2"}, "OK"),
    ],
)
async def test_a_key_joins_with_the_same_body_and_conflicts_with_another(
    desk: Desk, change: dict[str, Any], word: str
) -> None:
    g = await desk.writer("g1")
    key = {"idempotency": "idem:1", "idempotency_hash": "h"}
    await g.turns.accept(acceptance("r-1", **key))
    second = await g.turns.accept(acceptance("r-2", **(key | change)))
    assert second.word == word
    assert second.response == ("r-2" if word == "OK" else "r-1")
    assert await desk.redis.exists("t:r-2") == (word == "OK")


@pytest.mark.parametrize(
    ("count", "fields", "joins"),
    [
        (0, {}, False),
        (1, {}, True),
        (2, {}, True),
        (1, {"delivered": "1"}, False),
        (1, {"joined": "r-9"}, False),
        (1, {"joined": "r-2"}, True),  # sent again: the same request
    ],
)
async def test_a_counted_retry_joins_only_what_was_not_answered_and_not_joined(
    desk: Desk, count: int, fields: dict[str, str], joins: bool
) -> None:
    g = await desk.writer("g1")
    await g.turns.accept(acceptance("r-1", retry="retry:1"))
    if fields:
        await desk.redis.hset("t:r-1", mapping=fields)
    second = await g.turns.accept(acceptance("r-2", retry="retry:1", retry_count=count))
    assert (second.word, second.response) == (("JOIN", "r-1") if joins else ("OK", "r-2"))


async def test_a_deleted_session_and_another_users_session_take_no_turn(desk: Desk) -> None:
    g = await desk.writer("g1")
    await g.sessions.open_session(SESSION, WHO)
    stranger = SessionIdentity("dev", "a", "someone else", "s1", "p1")
    assert (await g.turns.accept(acceptance("r-1", identity=stranger))).word == "FOREIGN"
    assert await g.sessions.delete_session(SESSION) == "OK"
    assert (await g.turns.accept(acceptance("r-1"))).word == "DELETED"
    assert await desk.redis.exists("t:r-1") == 0


async def test_an_acceptance_sent_again_after_a_takeover_owns_nothing(desk: Desk) -> None:
    a, b = await desk.writer("g1"), await desk.writer("g2")
    await a.turns.accept(acceptance("r-1"))
    await desk.tick(11)
    word, _ = await b.turns.acquire("r-1")
    before = await desk.state()
    again = await a.turns.accept(acceptance("r-1"))
    assert (word, again.word, again.state) == ("OK", "OK", "taken")
    assert await desk.state() == before


# -- begin ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        ((), "OK"),
        (("DEL", "t:r-1"), "ABSENT"),
        (("HSET", "t:r-1", "fence", "9"), "FENCED"),
        (("HSET", "t:r-1", "state", "closing"), "STATE"),
        (("HSET", "t:r-1", "cancel", "1"), "CANCEL"),
        (("HSET", "t:r-1", "generation", "0"), "GENERATION"),
        (("HSET", f"s:{SESSION}", "state", "draining"), "EPOCH"),
        (("HSET", f"s:{SESSION}", "epoch", "5"), "EPOCH"),
    ],
)
async def test_an_attempt_begins_only_under_every_guard(desk: Desk, spoil: tuple[str, ...], word: str) -> None:
    g = await desk.writer("g1")
    accepted = await g.turns.accept(acceptance("r-1"))
    epoch = await claimed(desk, g)
    if spoil:
        await desk.redis.execute_command(*spoil)
    before = await desk.state()
    told, fence, number = await g.turns.begin("r-1", accepted.fence, epoch=epoch, attempt={"n": 1})
    assert told == word
    if word != "OK":
        assert await desk.state() == before
        return
    assert (fence, number) == (accepted.fence + 1, 1)
    assert await desk.turn("r-1", "begun", "attempt") == [str(fence), "1"]
    assert await g.turns.attempts("r-1") == [{"n": 1}]


async def test_a_fence_only_rises_though_the_clock_jumps_back(desk: Desk) -> None:
    a, b = await desk.writer("g1"), await desk.writer("g2")
    fence, epoch = await begun(desk, a)
    await desk.tick(-3600)
    word, record = await b.turns.acquire("r-1")
    assert word == "OK"  # its lease ends more than 10 s ahead: void
    assert record is not None
    assert record.fence == fence + 1
    word, second, _ = await b.turns.begin("r-1", record.fence, epoch=epoch, attempt={"n": 2})
    assert (word, second) == ("OK", fence + 2)


async def test_the_next_turns_attempt_has_a_higher_fence_than_the_last_ones_though_the_clock_jumped_back(
    desk: Desk,
) -> None:
    g = await desk.writer("g1")
    fence, epoch = await begun(desk, g)
    await g.turns.decide("r-1", fence, "completed", 1, '{"type":"response.completed"}')
    await g.turns.close("r-1", stored=True)
    await desk.tick(-3600)
    accepted = await g.turns.accept(acceptance("r-2"))
    assert accepted.fence < fence
    word, second, _ = await g.turns.begin("r-2", accepted.fence, epoch=epoch, attempt={})
    assert word == "OK"
    assert second > fence


# -- append, decide, close ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spoil", "first", "word", "length"),
    [
        ((), 1, "OK", 3),
        ((), 2, "GAP", 1),
        (("HSET", "t:r-1", "fence", "9"), 1, "FENCED", 0),
        (("HSET", "t:r-1", "state", "closing"), 1, "STATE", 0),
        (("DEL", "t:r-1"), 1, "ABSENT", 0),
    ],
)
async def test_a_group_is_logged_only_under_the_fence_and_at_its_own_index(
    desk: Desk, spoil: tuple[str, ...], first: int, word: str, length: int
) -> None:
    g = await desk.writer("g1")
    fence, _ = await begun(desk, g)
    if spoil:
        await desk.redis.execute_command(*spoil)
    before = await desk.redis.llen("e:r-1")
    assert await g.turns.append("r-1", fence, first, [entry("a"), entry("b")]) == (word, length)
    assert await desk.redis.llen("e:r-1") == (before + 2 if word == "OK" else before)


@pytest.mark.parametrize(
    ("spoil", "outcome", "index", "word"),
    [
        ((), "completed", 1, ("OK", "completed")),
        (("HSET", "t:r-1", "cancel", "1"), "completed", 1, ("CANCEL", "")),
        (("HSET", "t:r-1", "cancel", "1"), "cancelled", 1, ("OK", "cancelled")),
        ((), "completed", 2, ("GAP", "1")),
        (("HSET", "t:r-1", "fence", "9"), "completed", 1, ("FENCED", "9")),
        (("HSET", "t:r-1", "state", "closing", "outcome", "failed"), "completed", 1, ("OK", "failed")),
        (("HSET", "t:r-1", "state", "queued"), "completed", 1, ("STATE", "queued")),
        (("DEL", "t:r-1"), "completed", 1, ("ABSENT", "")),
    ],
)
async def test_an_outcome_is_fixed_once_and_a_cancel_that_came_first_wins(
    desk: Desk, spoil: tuple[str, ...], outcome: str, index: int, word: tuple[str, str]
) -> None:
    g = await desk.writer("g1")
    fence, _ = await begun(desk, g)
    if spoil:
        await desk.redis.execute_command(*spoil)
    seen, decided, ended, _ = await g.turns.decide("r-1", fence, outcome, index, '{"type":"end"}')
    assert (seen, decided if seen == "OK" else word[1]) == word
    assert (seen == "OK") == (ended > 0) or spoil


async def test_close_shows_the_end_and_starts_the_next_turn_for_whoever_looks_first(desk: Desk) -> None:
    g = await desk.writer("g1")
    fence, _ = await begun(desk, g)
    await g.turns.accept(acceptance("r-2"))
    assert await g.turns.close("r-1", stored=True) == "STATE"
    await g.turns.decide("r-1", fence, "completed", 1, '{"type":"end"}')
    assert await g.turns.close("r-1", stored=True) == "OK"
    assert await desk.redis.lrange("e:r-1", 0, -1) == [b'0 0 {"type":"response.created"}', b'0 0 {"type":"end"}']
    assert await desk.turn("r-1", "state", "owner") == ["completed", ""]
    assert await desk.turn("r-2", "state", "owner", "lease") == ["running", "", "0"]
    assert await desk.session("running") == ["r-2"]
    assert [x.decode() for x in await desk.redis.zrange("due", 0, -1)] == ["r-2"]
    assert 0 < await desk.redis.ttl("t:r-1") <= 1800


async def test_an_end_that_is_not_stored_yet_is_kept_until_it_is(desk: Desk) -> None:
    g = await desk.writer("g1")
    fence, _ = await begun(desk, g)
    await g.turns.decide("r-1", fence, "completed", 1, '{"type":"end"}')
    await g.turns.close("r-1", stored=False)
    assert await g.turns.unflushed(10) == ["r-1"]
    assert await desk.redis.ttl("t:r-1") == -1
    await g.turns.flushed("r-1")
    assert await g.turns.unflushed(10) == []
    assert await desk.redis.ttl("t:r-1") > 0


# -- cancel, ownership ------------------------------------------------------------------------------------------------


async def test_a_running_turn_is_flagged_and_a_waiting_one_ends_without_having_run(desk: Desk) -> None:
    g = await desk.writer("g1")
    await g.turns.accept(acceptance("r-1"))
    await g.turns.accept(acceptance("r-2"))
    assert await g.turns.cancel("r-1", "cancelled", 0, "") == ("FLAGGED", "")
    assert await desk.turn("r-1", "state", "cancel") == ["running", "1"]
    assert await desk.redis.zscore("due", "r-1") == START_US // 1000
    assert (await g.turns.cancel("r-2", "cancelled", 1, "{}"))[0] == "GAP"
    assert await g.turns.cancel("r-2", "cancelled", 2, "{}") == ("CLOSING", "cancelled")
    assert await desk.turn("r-2", "state", "outcome") == ["closing", "cancelled"]
    assert await g.sessions.waiting(SESSION) == []
    assert await g.turns.cancel("r-2", "cancelled", 2, "{}") == ("ENDED", "cancelled")
    assert await g.turns.cancel("r-9", "cancelled", 0, "") == ("ABSENT", "")


@pytest.mark.parametrize(
    ("lease_s", "owner", "word"),
    [
        (5, "g1", "HELD"),  # alive
        (0, "g1", "OK"),  # over
        (-5, "g1", "OK"),
        (11, "g1", "OK"),  # void
        (5, "g2", "OK"),  # ours
    ],
)
async def test_a_turn_is_taken_only_when_its_lease_is_over_or_void(
    desk: Desk, lease_s: int, owner: str, word: str
) -> None:
    a, b = await desk.writer("g1"), await desk.writer("g2")
    accepted = await a.turns.accept(acceptance("r-1"))
    now = START_US // 1000
    await desk.redis.hset("t:r-1", mapping={"lease": str(now + lease_s * 1000), "owner": owner})
    told, record = await b.turns.acquire("r-1")
    assert told == word
    if word == "OK":
        assert record is not None
        assert record.fence > accepted.fence or owner == "g2"
        assert (await desk.turn("r-1", "owner"))[0] == "g2"


async def test_a_lease_is_renewed_under_its_fence_alone_and_tells_of_a_cancel(desk: Desk) -> None:
    g = await desk.writer("g1")
    a = await g.turns.accept(acceptance("r-1"))
    b = await g.turns.accept(acceptance("r-2", "dev:p2"))
    await g.turns.cancel("r-2", "cancelled", 0, "")
    await desk.tick(3)
    pairs = [("r-1", a.fence), ("r-2", b.fence), ("r-1", 9), ("r-9", 1)]
    assert await g.turns.renew(pairs) == ["OK", "CANCEL", "FENCED", "FENCED"]
    assert await desk.turn("r-1", "lease") == [str(START_US // 1000 + 13_000)]


async def test_a_released_turn_is_due_now_and_free(desk: Desk) -> None:
    a, b = await desk.writer("g1"), await desk.writer("g2")
    accepted = await a.turns.accept(acceptance("r-1"))
    await a.turns.release("r-1", 9)
    assert (await b.turns.acquire("r-1"))[0] == "HELD"
    await a.turns.release("r-1", accepted.fence)
    assert (await b.turns.acquire("r-1"))[0] == "OK"


async def test_how_an_attempt_ended_is_noted_under_the_fence(desk: Desk) -> None:
    g = await desk.writer("g1")
    fence, _ = await begun(desk, g)
    assert await g.turns.note("r-1", 9, 0, {"fault": "no"}) == "FENCED"
    assert await g.turns.note("r-1", fence, 3, {"fault": "no"}) == "OK"
    assert await g.turns.note("r-1", fence, 0, {"fault": "exit"}) == "OK"
    assert await g.turns.attempts("r-1") == [{"fault": "exit"}]
    assert await g.turns.note("r-9", fence, 0, {}) == "ABSENT"


async def test_only_an_ended_turn_is_forgotten(desk: Desk) -> None:
    g = await desk.writer("g1")
    fence, _ = await begun(desk, g)
    assert await g.turns.forget("r-1") == "STATE"
    await g.turns.decide("r-1", fence, "completed", 1, "{}")
    assert await g.turns.forget("r-1") == "STATE"
    await g.turns.close("r-1", stored=True)
    assert await g.turns.forget("r-1") == "OK"
    assert await desk.redis.exists("t:r-1", "e:r-1", "a:r-1") == 0
