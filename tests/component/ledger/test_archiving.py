"""Sessions whose files are in a checkpoint and on no volume (turns.md §5, §8), on a real Valkey."""

from __future__ import annotations

from dataclasses import replace

import pytest

from component.ledger.desk import SESSION, WHO, Desk, Writer, acceptance, descriptor

pytestmark = pytest.mark.component


async def hibernated(g: Writer) -> int:
    """The epoch of a session whose sandbox was let go."""
    await g.sessions.open_session(SESSION, WHO)
    await g.provider.offer(descriptor("sb-1"))
    claim = await g.sessions.claim(SESSION, "r1", named=False)
    await g.sessions.bound(SESSION, claim.epoch)
    await g.sessions.drain(SESSION, claim.epoch, idle_before=0)
    await g.sessions.hibernated(SESSION, claim.epoch, "idle", "ck-1")
    await g.provider.gone("sb-1", "idle")
    return claim.epoch


async def archived(g: Writer) -> int:
    epoch = await hibernated(g)
    assert await g.sessions.archive(SESSION, epoch, "ck-1") == "OK"
    return epoch


async def test_an_archived_session_gives_its_volume_away_and_says_so_until_it_is_gone(desk: Desk) -> None:
    g = await desk.writer("g1")
    await archived(g)
    volume = descriptor("sb-1").volume
    assert await desk.session("state", "volume", "restore") == ["archived", "", "1"]
    assert await g.provider.archived() == {SESSION: volume}
    await g.provider.unkept(SESSION, "another")
    assert await g.provider.archived() == {SESSION: volume}
    await g.provider.unkept(SESSION, volume)
    assert await g.provider.archived() == {}


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (("HSET", f"s:{SESSION}", "running", "r-1"), "BUSY"),
        (("RPUSH", f"q:{SESSION}", "r-1"), "BUSY"),
        (("HSET", f"s:{SESSION}", "state", "waking"), "STALE"),
        (("HSET", f"s:{SESSION}", "epoch", "5"), "STALE"),
        (("HSET", f"s:{SESSION}", "saved", "ck-2"), "STALE"),
        (("HSET", f"s:{SESSION}", "saved", ""), "STALE"),
    ],
)
async def test_what_keeps_a_session_from_its_archive(desk: Desk, spoil: tuple[str, ...], word: str) -> None:
    g = await desk.writer("g1")
    epoch = await hibernated(g)
    await desk.redis.execute_command(*spoil)
    assert await g.sessions.archive(SESSION, epoch, "ck-1") == word
    assert await g.sessions.archive(SESSION, epoch, "") != "OK"
    assert await g.provider.archived() == {}


async def test_a_checkpoint_of_an_earlier_sleep_is_none_of_the_next(desk: Desk) -> None:
    g = await desk.writer("g1")
    await hibernated(g)
    asked = await g.sessions.claim(SESSION, "r1", named=True)
    await g.provider.ready(SESSION, asked.epoch, replace(descriptor("sb-2"), volume=descriptor("sb-1").volume))
    await g.sessions.bound(SESSION, asked.epoch)
    await g.provider.gone("sb-2", "died")  # without one
    assert await desk.session("state", "saved") == ["hibernated", ""]
    assert await g.sessions.archive(SESSION, asked.epoch, "ck-1") == "STALE"


async def test_the_next_call_gets_any_ready_sandbox_and_is_told_to_restore(desk: Desk) -> None:
    g = await desk.writer("g1")
    before = await archived(g)
    await g.provider.offer(descriptor("sb-2"))
    claim = await g.sessions.claim(SESSION, "r1", named=True)
    assert (claim.word, claim.sandbox, claim.restore, claim.kept) == ("CLAIMED", "sb-2", True, False)
    assert claim.epoch > before
    await g.sessions.bound(SESSION, claim.epoch)
    assert not (await g.sessions.claim(SESSION, "r1", named=True)).restore
    await g.provider.gone("sb-2", "died")
    assert await desk.session("state", "volume") == ["hibernated", descriptor("sb-2").volume]


async def test_a_sandbox_that_dies_before_its_files_came_leaves_the_session_archived(desk: Desk) -> None:
    g = await desk.writer("g1")
    await archived(g)
    await g.provider.offer(descriptor("sb-2"))
    await g.sessions.claim(SESSION, "r1", named=True)
    assert await g.provider.gone("sb-2", "died") == (SESSION, "archived")
    assert await desk.session("state", "volume", "restore") == ["archived", "", "1"]


async def test_the_same_where_its_death_did_not_reach_the_session(desk: Desk) -> None:
    g = await desk.writer("g1")
    await archived(g)
    for name in ("sb-2", "sb-3"):
        await g.provider.offer(descriptor(name))
    await g.sessions.claim(SESSION, "r1", named=True)
    await desk.redis.delete("x:sb-2")
    claim = await g.sessions.claim(SESSION, "r1", named=True)
    assert (claim.word, claim.sandbox, claim.restore) == ("CLAIMED", "sb-3", True)


async def test_without_a_ready_sandbox_the_provider_makes_one_on_a_fresh_volume(desk: Desk) -> None:
    g = await desk.writer("g1")
    await archived(g)
    asked = await g.sessions.claim(SESSION, "r1", named=True)
    assert asked.word == "WAKING" and await g.provider.waking() == [SESSION]
    assert await g.provider.ready(SESSION, asked.epoch, descriptor("sb-2"))
    claim = await g.sessions.claim(SESSION, "r1", named=True)
    assert (claim.word, claim.restore, claim.kept) == ("ROUTE", True, False)


async def test_a_volume_that_replaces_a_lost_one_is_not_the_sessions_workspace_yet(desk: Desk) -> None:
    g = await desk.writer("g1")
    await hibernated(g)
    asked = await g.sessions.claim(SESSION, "r1", named=True)
    await g.provider.ready(SESSION, asked.epoch, descriptor("sb-2"))  # its own volume was not there any more
    claim = await g.sessions.claim(SESSION, "r1", named=True)
    assert not claim.kept and claim.restore, "it had files: an empty workspace is no answer"
    await g.sessions.bound(SESSION, claim.epoch)
    assert not (await g.sessions.claim(SESSION, "r1", named=True)).restore


async def test_a_label_of_the_volume_that_is_about_to_go_brings_nothing_back(desk: Desk) -> None:
    g = await desk.writer("g1")
    epoch = await archived(g)
    assert await g.provider.label(SESSION, epoch, descriptor("sb-1").volume, WHO) == "KNOWN"
    assert await desk.session("state", "volume") == ["archived", ""]


async def test_after_a_loss_the_label_of_a_volume_that_is_still_there_counts(desk: Desk) -> None:
    g = await desk.writer("g1")
    epoch = await archived(g)
    await desk.flush()
    await g.client.found()
    assert await g.provider.label(SESSION, epoch, descriptor("sb-1").volume, WHO) == "OK"
    assert await desk.session("state", "volume") == ["hibernated", descriptor("sb-1").volume]


async def test_a_fork_begins_archived_and_takes_turns(desk: Desk) -> None:
    g = await desk.writer("g1")
    assert await g.sessions.open_session(SESSION, WHO, restore=True) == "OK"
    assert await g.sessions.open_session(SESSION, WHO) == "OK"  # as every later call does
    assert await desk.session("state", "restore") == ["archived", "1"]
    assert (await g.turns.accept(acceptance("r-1"))).word == "OK"
