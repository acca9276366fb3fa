"""Sessions that leave a sandbox or a volume out of reach (turns.md §5; docs/decisions/0043), on a real Valkey."""

from __future__ import annotations

from dataclasses import replace

import pytest

from component.ledger.desk import SESSION, WHO, Desk, Writer, claimed, descriptor
from moorage_api.ledger import keys
from moorage_api.ledger.records import TurnRecord

pytestmark = pytest.mark.component

VOLUME = "vol-sb-1"
WHY = "its node is not heard of"


async def at_work(desk: Desk, g: Writer) -> int:
    """The epoch of a session that is bound to sb-1, whose shim is not heard of any more."""
    await g.sessions.open_session(SESSION, WHO)
    epoch = await claimed(desk, g)
    await desk.tick(60)
    return epoch


async def moved(desk: Desk, g: Writer) -> int:
    """The epoch that it had before it moved."""
    epoch = await at_work(desk, g)
    assert await g.provider.out_of_reach("sb-1", "", VOLUME, WHY) == "OK"
    assert await g.sessions.move(SESSION, epoch, VOLUME, restore=True) == "OK"
    return epoch


async def test_a_session_that_moves_has_another_epoch_no_volume_and_begins_from_its_checkpoint(desk: Desk) -> None:
    g = await desk.writer("g1")
    before = await moved(desk, g)
    assert await desk.session("state", "volume", "sandbox", "restore") == ["archived", "", "", "1"]
    asked = await g.provider.asked()
    assert (asked.left, asked.doomed) == ({VOLUME: SESSION}, {"sb-1": WHY})
    await g.provider.offer(descriptor("sb-2"))
    claim = await g.sessions.claim(SESSION, "r1", named=True)
    assert (claim.word, claim.sandbox, claim.restore, claim.kept) == ("CLAIMED", "sb-2", True, False)
    assert claim.epoch > before


async def test_the_sandbox_that_it_left_is_told_to_stop_before_and_after_the_next_one_is_bound(desk: Desk) -> None:
    g = await desk.writer("g1")
    before = await moved(desk, g)
    told = await g.sessions.announce(SESSION, before, descriptor("sb-1"), WHO)
    assert told.word == "STOP" and told.epoch > before
    assert await g.provider.holder("sb-1") == ""  # so it stores no checkpoint, and makes no call
    await g.provider.offer(descriptor("sb-2"))
    claim = await g.sessions.claim(SESSION, "r1", named=True)
    await g.sessions.bound(SESSION, claim.epoch)
    told = await g.sessions.announce(SESSION, before, descriptor("sb-1"), WHO)
    assert told.word == "STOP" and told.epoch >= claim.epoch
    assert await g.provider.gone("sb-1", "at last") == ("", "")
    assert await desk.session("state", "sandbox", "volume") == ["claimed", "sb-2", "vol-sb-2"]


async def test_a_session_whose_shim_is_heard_of_works_on_until_somebody_has_no_answer_of_it(desk: Desk) -> None:
    g = await desk.writer("g1")
    epoch = await at_work(desk, g)
    assert (await g.sessions.announce(SESSION, epoch, descriptor("sb-1"), WHO)).word == "OK"
    for _ in range(2):
        assert await g.provider.out_of_reach("sb-1", "", VOLUME, WHY) == "HEARD"
        assert await desk.session("state", "out") == ["claimed", ""]
        await desk.tick(14)
    await g.sessions.doom("sb-1", "no answer")
    assert await g.provider.out_of_reach("sb-1", "", VOLUME, WHY) == "OK"


async def test_a_volume_that_no_pod_gets_to_moves_no_session_that_has_a_sandbox(desk: Desk) -> None:
    g = await desk.writer("g1")
    await at_work(desk, g)
    assert await g.provider.out_of_reach("", SESSION, VOLUME, "no node takes it") == "STALE"
    assert await desk.session("state", "out") == ["claimed", ""]


async def test_what_was_said_of_an_earlier_volume_moves_no_session_off_a_later_one(desk: Desk) -> None:
    """A Redis that was brought back old, or a gateway of an older version, leaves it in the record."""
    g = await desk.writer("g1")
    await at_work(desk, g)
    await g.provider.out_of_reach("sb-1", "", VOLUME, WHY)
    record = TurnRecord.parse("r-1", {"state": "running", "session": SESSION, "fence": "50"})
    assert record is not None
    later = {"state": "claimed", "epoch": str(2**53), "sandbox": "sb-2", "volume": "vol-sb-2", "bound": "1"}
    route = later | {"endpoint": "unix:/sb-2", "secret": "x", "revision": "r1", "tenant": "dev", "agent": "a"}
    assert await g.turns.restore(record, WHO, route, [], []) == "OK"
    assert await desk.session("sandbox", "out") == ["sb-2", ""]
    assert await g.sessions.move(SESSION, 2**53, "vol-sb-2", restore=True) == "STALE"

    await g.provider.gone("sb-2", "exit")
    for state, word, fields in (("archived", "CLAIMED", ("volume", "")), ("hibernated", "WAKING", ("volume", "vol-1"))):
        await desk.redis.hset(f"s:{SESSION}", mapping=dict([fields]) | {"state": state, "out": WHY, "stuck": "x"})
        slept = await g.sessions.session(SESSION)
        assert slept is not None and not slept.leaves
        await g.provider.offer(descriptor("sb-3"))
        claim = await g.sessions.claim(SESSION, "r1", named=True)
        assert (claim.word, claim.reason) == (word, "") and await desk.session("out", "stuck") == ["", ""]


async def test_without_files_to_lose_it_begins_anew_and_needs_no_checkpoint(desk: Desk) -> None:
    g = await desk.writer("g1")
    await g.sessions.open_session(SESSION, WHO)
    await g.provider.offer(descriptor("sb-1"))
    claim = await g.sessions.claim(SESSION, "r1", named=False)
    await g.provider.out_of_reach("sb-1", "", VOLUME, WHY)
    record = await g.sessions.session(SESSION)
    assert record is not None and not record.has_files
    assert await g.sessions.move(SESSION, claim.epoch, VOLUME, restore=False) == "OK"
    assert await desk.session("state", "volume", "restore") == ["new", "", ""]


async def test_a_session_that_waits_for_a_sandbox_on_its_volume_leaves_it(desk: Desk) -> None:
    g = await desk.writer("g1")
    await at_work(desk, g)
    await g.provider.gone("sb-1", "its pod was deleted")
    asked = await g.sessions.claim(SESSION, "r1", named=True)
    assert asked.word == "WAKING"
    assert await g.provider.out_of_reach("", SESSION, VOLUME, "no node takes it") == "OK"
    record = await g.sessions.session(SESSION)
    assert record is not None and record.has_files and record.out == "no node takes it"
    assert await g.sessions.move(SESSION, asked.epoch, VOLUME, restore=True) == "OK"
    assert await g.provider.waking() == []
    late = replace(descriptor("sb-2"), volume=VOLUME)
    assert not await g.provider.ready(SESSION, asked.epoch, late)  # the pod that came after all is ended


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (("HSET", f"s:{SESSION}", "out", ""), "STALE"),  # it came back
        (("HSET", f"s:{SESSION}", "epoch", "5"), "STALE"),
        (("HSET", f"s:{SESSION}", "volume", "another"), "STALE"),
        (("HSET", f"s:{SESSION}", "state", "hibernated"), "STALE"),
        (("HSET", f"s:{SESSION}", "state", "deleted"), "STALE"),
    ],
)
async def test_what_keeps_a_session_where_it_is(desk: Desk, spoil: tuple[str, ...], word: str) -> None:
    g = await desk.writer("g1")
    epoch = await at_work(desk, g)
    await g.provider.out_of_reach("sb-1", "", VOLUME, WHY)
    await desk.redis.execute_command(*spoil)
    assert await g.sessions.move(SESSION, epoch, VOLUME, restore=True) == word
    assert (await g.provider.asked()).left == {}


async def test_the_end_of_its_sandbox_or_another_one_on_the_volume_calls_the_move_off(desk: Desk) -> None:
    g = await desk.writer("g1")
    epoch = await at_work(desk, g)
    await g.provider.out_of_reach("sb-1", "", VOLUME, WHY)
    await g.sessions.stay(SESSION, epoch, VOLUME, "it has no checkpoint")
    await g.provider.gone("sb-1", "its node is back and has ended it")
    assert await desk.session("state", "out", "stuck", "volume") == ["hibernated", "", "", VOLUME]
    asked = await g.sessions.claim(SESSION, "r1", named=True)
    await g.provider.out_of_reach("", SESSION, VOLUME, WHY)
    await g.sessions.stay(SESSION, asked.epoch, VOLUME, "it has no checkpoint")
    await g.provider.ready(SESSION, asked.epoch, replace(descriptor("sb-2"), volume=VOLUME))
    assert await desk.session("state", "out", "stuck") == ["claimed", "", ""]
    assert await g.sessions.move(SESSION, asked.epoch, VOLUME, restore=True) == "STALE"


async def test_one_whose_shim_is_heard_of_after_all_sleeps_with_its_files(desk: Desk) -> None:
    g = await desk.writer("g1")
    epoch = await at_work(desk, g)
    await g.provider.out_of_reach("sb-1", "", VOLUME, WHY)
    await g.sessions.stay(SESSION, epoch, VOLUME, "it has no checkpoint")
    await g.sessions.drain(SESSION, epoch, idle_before=0)
    assert await g.sessions.hibernated(SESSION, epoch, "idle", "ck-1") == "OK"
    assert await desk.session("state", "volume", "out", "stuck") == ["hibernated", VOLUME, "", ""]


async def test_callers_of_a_session_that_cannot_move_are_told_why(desk: Desk) -> None:
    g = await desk.writer("g1")
    await at_work(desk, g)
    await g.provider.gone("sb-1", "its pod was deleted")
    asked = await g.sessions.claim(SESSION, "r1", named=True)
    await g.provider.out_of_reach("", SESSION, VOLUME, WHY)
    await g.sessions.stay(SESSION, asked.epoch, VOLUME, "it has no checkpoint")
    await g.provider.unready(SESSION, asked.epoch, "not ready within 120 s")
    claim = await g.sessions.claim(SESSION, "r1", named=True)
    assert (claim.word, claim.reason) == ("WAKING", "it has no checkpoint")


async def test_a_sandbox_of_a_pool_is_in_none_any_more(desk: Desk) -> None:
    g = await desk.writer("g1")
    for name in ("sb-1", "sb-2"):
        await g.provider.offer(descriptor(name))
    assert await g.provider.out_of_reach("sb-1", "", VOLUME, WHY) == "FREE"
    assert await g.provider.out_of_reach("sb-1", "", VOLUME, WHY) == "UNKNOWN"
    assert await g.provider.pool("dev", "a", "r1") == ["sb-2"]
    assert await desk.redis.exists(keys.sandbox("sb-1")) == 0
