"""What a writer is told when Redis lost something (turns.md §1 a, §7): LOSS, and nothing is written."""

from __future__ import annotations

import pytest

from component.ledger.desk import SESSION, START_US, WHO, Desk, acceptance, begun, descriptor, entry
from moorage_api.ledger import loss_scripts, session_scripts, turn_scripts
from moorage_api.ledger.script import Lost, Script

pytestmark = pytest.mark.component

SCRIPTS = [
    x
    for module in (turn_scripts, session_scripts, loss_scripts)
    for x in vars(module).values()
    if isinstance(x, Script)
]
NOTHING = [
    "r-1",
    "1",
    "1",
    "1",
    "[]",
    "1",
    "1",
    "1",
    "1",
    "1",
    "1",
    "1",
    "0",
    "1",
    "{}",
    "[]",
    "[]",
]  # whatever it takes


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda s: s.name)
async def test_after_a_flush_every_script_says_loss_and_writes_nothing(desk: Desk, script: Script) -> None:
    g = await desk.writer("g1")
    await g.turns.accept(acceptance("r-0"))
    await desk.flush()
    with pytest.raises(Lost):
        await g.run(script, *NOTHING)
    assert await desk.state() == {}
    assert await desk.redis.keys("wit:*") == []


async def test_after_a_roll_back_a_writer_who_wrote_since_says_loss(desk: Desk) -> None:
    a, b = await desk.writer("g1"), await desk.writer("g2")
    fence, _ = await begun(desk, a)
    await b.turns.probe()
    copy = await desk.keep()
    assert (await a.turns.append("r-1", fence, 1, [entry("a")]))[0] == "OK"
    await desk.roll_back(copy)
    held = await desk.state()
    with pytest.raises(Lost):
        await a.turns.append("r-1", fence, 2, [entry("b")])
    assert await desk.state() == held
    await b.turns.probe()  # wrote nothing that was lost: it has no witness, and is told by the next generation


async def test_a_loss_makes_one_later_generation_for_everyone(desk: Desk) -> None:
    a, b = await desk.writer("g1"), await desk.writer("g2")
    await desk.flush()
    assert await a.client.found() is True
    assert await b.client.found() is False
    assert a.client.identity.generation == b.client.identity.generation == 2
    assert a.client.identity.ledger == b.client.identity.ledger
    await a.turns.probe()
    await b.turns.probe()


@pytest.mark.parametrize(("stored", "generation"), [(0, 2), (1, 2), (6, 7)])
async def test_a_generation_is_above_every_one_that_is_known(desk: Desk, stored: int, generation: int) -> None:
    g = await desk.writer("g1")
    await desk.flush()
    await g.client.found(stored_generation=stored)
    assert g.client.identity.generation == generation


async def test_a_stored_generation_tells_a_fresh_process_that_redis_is_an_old_one(desk: Desk) -> None:
    await desk.writer("g1")
    knows = await desk.writer("g2", stored_generation=1)
    fresh = await desk.writer("g3", stored_generation=3)
    assert knows.client.identity.generation == 1
    assert fresh.client.identity.generation == 4


async def test_the_first_ledger_settles_at_once_and_a_later_one_after_ten_seconds(desk: Desk) -> None:
    g = await desk.writer("g1")
    assert g.client.identity.settle_ms == START_US // 1000
    await desk.flush()
    await g.client.found()
    assert g.client.identity.settle_ms == START_US // 1000 + 10_000
    await g.sessions.open_session(SESSION, WHO)
    assert (await g.sessions.claim(SESSION, "r1", named=True)).word == "SETTLING"
    await desk.tick(10)
    assert (await g.sessions.claim(SESSION, "r1", named=True)).word == "WAKING"


async def test_a_route_that_was_never_bound_waits_out_a_loss_for_the_sandbox_that_lives(desk: Desk) -> None:
    """Redis was rolled back to a claim that has been given up since: the session's sandbox is another one by now."""
    g = await desk.writer("g1")
    await g.sessions.open_session(SESSION, WHO)
    assert await g.provider.offer(descriptor("sb-1"))
    given = await g.sessions.claim(SESSION, "r1", named=True)
    copy = await desk.keep()
    await g.turns.probe()
    await desk.roll_back(copy)
    await g.client.found()
    assert (await g.sessions.claim(SESSION, "r1", named=True)).word == "SETTLING"
    assert (await g.sessions.claim(SESSION, "r1", named=False)).word == "ROUTE"
    assert (await g.sessions.announce(SESSION, given.epoch, descriptor("sb-1"), WHO)).word == "OK"
    assert (await g.sessions.claim(SESSION, "r1", named=True)).word == "ROUTE", "it said that it is bound"


async def test_a_loss_lets_unbound_sandboxes_be_offered_again(desk: Desk) -> None:
    g = await desk.writer("provider")
    assert await g.provider.offer(descriptor("sb-1"))
    copy = await desk.keep()
    await g.turns.probe()
    await desk.roll_back(copy)
    await g.client.found()
    assert await g.provider.offer(descriptor("sb-1"))


async def test_no_attempt_begins_in_a_later_generation_than_its_turns(desk: Desk) -> None:
    g = await desk.writer("g1")
    accepted = await g.turns.accept(acceptance("r-1"))
    record = await g.turns.turn("r-1")
    assert record is not None
    await desk.flush()
    await g.client.found()
    await g.turns.restore(record, WHO, {"state": "claimed", "epoch": "7"}, [entry("a")], [])
    assert (await g.turns.begin("r-1", accepted.fence, epoch=7, attempt={}))[0] == "GENERATION"
    assert (await g.turns.append("r-1", accepted.fence, 1, [entry("b")]))[0] == "OK"  # what runs goes on
