"""Turns after a loss: who may write one anew, what bars it, and which one goes (turns.md §7)."""

from __future__ import annotations

import pytest

from component.ledger.desk import SESSION, WHO, Desk, acceptance, entry
from moorage_api.ledger.records import TurnRecord

pytestmark = pytest.mark.component


def _record(response: str, fence: int, state: str = "running") -> TurnRecord:
    raw = {
        "state": state,
        "session": SESSION,
        "fence": str(fence),
        "begun": str(fence),
        "generation": "1",
        "deadline": "9",
    }
    found = TurnRecord.parse(response, raw)
    assert found is not None
    return found


ROUTE = {
    "state": "claimed",
    "epoch": "7",
    "sandbox": "sb-1",
    "endpoint": "unix:/sb-1",
    "secret": "x",
    "volume": "v",
    "bound": "1",
}


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        ((), "OK"),
        (("SET", "lost:r-1", "1"), "LOST"),
        (("HSET", "t:r-1", "fence", "51", "state", "running"), "FENCED"),
        (("HSET", "t:r-1", "fence", "50", "state", "running"), "OK"),
        (("HSET", "t:r-1", "fence", "50", "state", "completed"), "STATE"),
    ],
)
async def test_a_turn_is_written_anew_unless_it_is_barred_ended_or_another_owner_has_it(
    desk: Desk, spoil: tuple[str, ...], word: str
) -> None:
    g = await desk.writer("g1")
    if spoil:
        await desk.redis.execute_command(*spoil)
    told = await g.turns.restore(_record("r-1", 50), WHO, ROUTE, [entry("a"), entry("b")], [{"n": 1}])
    assert told == word
    if word == "OK":
        assert [e.data for e in await g.turns.log("r-1")] == [entry("a").data, entry("b").data]
        assert await desk.session("state", "epoch", "sandbox", "running") == ["claimed", "7", "sb-1", "r-1"]
        assert await g.provider.gone("sb-1", "exit") == (SESSION, "hibernated")  # its death can be proved


async def test_a_turn_of_a_session_deleted_meanwhile_is_cancelled_and_does_not_bring_it_back(desk: Desk) -> None:
    g = await desk.writer("g1")
    await g.provider.label(SESSION, 3, "vol-1", WHO)  # all that is known of it after the loss, of an older binding
    assert await g.sessions.delete_session(SESSION) == "OK"
    for _ in range(2):
        assert await g.turns.restore(_record("r-1", 50), WHO, ROUTE, [entry("a")], [{"n": 1}]) == "OK"
    assert await desk.session("state", "epoch", "sandbox", "running") == ["deleted", "3", "", ""]
    assert await g.turns.renew([("r-1", 50)]) == ["CANCEL"]
    assert await desk.redis.hget("doomed", "sb-1") == b"session deleted"
    assert (await g.turns.accept(acceptance("r-2"))).word == "DELETED"
    assert (await g.turns.decide("r-1", 50, "cancelled", 1, "{}"))[0] == "OK"
    assert await g.turns.close("r-1", stored=True) == "OK"


async def test_a_turn_accepted_meanwhile_gives_way_to_the_one_written_anew(desk: Desk) -> None:
    g = await desk.writer("g1")
    accepted = await g.turns.accept(acceptance("r-2"))
    await g.turns.restore(_record("r-1", 50), WHO, {"state": "new", "epoch": "0"}, [entry("a")], [])
    assert await desk.session("running") == ["r-1"]
    assert await g.sessions.waiting(SESSION) == ["r-2"]
    assert await desk.turn("r-2", "state") == ["queued"]
    assert (await g.turns.renew([("r-2", accepted.fence)])) == ["FENCED"]


async def test_a_turn_given_up_is_barred_and_one_that_is_there_is_not(desk: Desk) -> None:
    g = await desk.writer("g1")
    await g.turns.accept(acceptance("r-1"))
    assert await g.turns.bar("r-1") == "PRESENT"
    assert await g.turns.bar("r-2") == "OK"
    assert await g.turns.restore(_record("r-2", 50), WHO, ROUTE, [], []) == "LOST"


async def test_a_turn_that_came_back_though_its_end_is_stored_goes_and_the_next_runs(desk: Desk) -> None:
    g = await desk.writer("g1")
    accepted = await g.turns.accept(acceptance("r-1"))
    await g.turns.accept(acceptance("r-2"))
    assert await g.turns.discard("r-1", 9) == "FENCED"
    assert await g.turns.discard("r-1", accepted.fence) == "OK"
    assert await desk.redis.exists("t:r-1", "e:r-1") == 0
    assert await desk.session("running") == ["r-2"]
