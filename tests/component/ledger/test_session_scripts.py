"""Each row and guard of a session's scripts (turns.md §5, §7), on a real Valkey."""

from __future__ import annotations

import pytest

from component.ledger.desk import SESSION, START_US, WHO, Desk, acceptance, claimed, descriptor
from moorage_api.catalog import AgentEntry
from moorage_api.ledger.provider import Asked
from moorage_api.ledger.records import SessionIdentity

pytestmark = pytest.mark.component

OTHER = SessionIdentity("dev", "a", "u", "s2", "p2", "r1")
NOW = START_US // 1000


# -- pool and claim ---------------------------------------------------------------------------------------------------


async def test_an_id_is_offered_once_a_ledger(desk: Desk) -> None:
    g = await desk.writer("provider")
    assert await g.provider.offer(descriptor("sb-1"))
    assert not await g.provider.offer(descriptor("sb-1"))
    assert await g.provider.pool("dev", "a", "r1") == ["sb-1"]


async def test_a_claim_pops_a_ready_sandbox_and_the_next_session_gets_another(desk: Desk) -> None:
    g = await desk.writer("g1")
    for name in ("sb-1", "sb-2"):
        await g.provider.offer(descriptor(name))
    await g.sessions.open_session(SESSION, WHO)
    await g.sessions.open_session("dev:p2", OTHER)
    one, two = [await g.sessions.claim(s, "r1", named=False) for s in (SESSION, "dev:p2")]
    assert (one.word, one.sandbox, one.epoch) == ("CLAIMED", "sb-1", START_US)
    assert (two.word, two.sandbox) == ("CLAIMED", "sb-2")
    assert (await g.sessions.claim(SESSION, "r1", named=False)).word == "ROUTE"


@pytest.mark.parametrize(
    ("spoil", "named", "word"),
    [
        ((), False, "CLAIMED"),
        (("DEL", f"s:{SESSION}"), False, "ABSENT"),
        (("HSET", f"s:{SESSION}", "state", "claimed"), False, "CLAIMED"),  # by no sandbox
        (("HSET", f"s:{SESSION}", "state", "draining"), False, "DRAINING"),
        (("HSET", f"s:{SESSION}", "state", "deleted"), False, "DELETED"),
        (("HSET", f"s:{SESSION}", "state", "waking"), False, "WAKING"),
        (("HSET", f"s:{SESSION}", "state", "hibernated", "volume", "v"), False, "WAKING"),
        (("HSET", "ledger", "settle", str(NOW + 5_000)), True, "SETTLING"),
        (("HSET", "ledger", "settle", str(NOW + 5_000)), False, "CLAIMED"),
        (("HSET", "ledger", "settle", str(NOW)), True, "CLAIMED"),
        (("HSET", "ledger", "settle", str(NOW + 60_000)), True, "CLAIMED"),  # the clock jumped back: void
        (("HSET", "x:sb-1", "state", "claimed"), False, "WAKING"),
        (("HSET", "x:sb-1", "generation", "0"), False, "WAKING"),
        (("DEL", "pool:dev/a/r1"), False, "WAKING"),
    ],
)
async def test_what_a_claim_finds(desk: Desk, spoil: tuple[str, ...], named: bool, word: str) -> None:
    g = await desk.writer("g1")
    await g.provider.offer(descriptor("sb-1"))
    await g.sessions.open_session(SESSION, WHO)
    if spoil:
        await desk.redis.execute_command(*spoil)
    assert (await g.sessions.claim(SESSION, "r1", named=named)).word == word
    assert await g.provider.waking() == ([SESSION] if word == "WAKING" and "waking" not in spoil else [])


async def test_a_claim_whose_sandbox_is_dead_or_anothers_is_made_anew(desk: Desk) -> None:
    g = await desk.writer("g1")
    await g.sessions.open_session(SESSION, WHO)
    await g.provider.offer(descriptor("sb-1"))
    first = await g.sessions.claim(SESSION, "r1", named=False)
    await desk.redis.hset("x:sb-1", "session", "dev:p2")  # given while Redis was an old one: it is another's
    await g.provider.offer(descriptor("sb-2"))
    second = await g.sessions.claim(SESSION, "r1", named=False)
    assert (first.sandbox, second.word, second.sandbox) == ("sb-1", "CLAIMED", "sb-2")
    assert second.epoch > first.epoch
    await g.sessions.bound(SESSION, second.epoch)
    await desk.redis.delete("x:sb-2")  # its death was proved, and the session did not hear of it
    assert (await g.sessions.claim(SESSION, "r1", named=False)).word == "WAKING"
    assert await desk.session("volume") == ["vol-sb-2"]


async def test_epochs_only_rise_though_the_clock_jumps_back(desk: Desk) -> None:
    g = await desk.writer("g1")
    await g.sessions.open_session(SESSION, WHO)
    first = await g.sessions.claim(SESSION, "r1", named=False)
    await g.provider.ready(SESSION, first.epoch, descriptor("sb-1"))
    await g.provider.gone("sb-1", "exit")
    await desk.tick(-3600)
    second = await g.sessions.claim(SESSION, "r1", named=False)
    assert second.epoch == first.epoch + 1


@pytest.mark.parametrize(
    ("spoil", "shift", "taken"),
    [
        ((), 0, True),
        ((), 1, False),
        ((), -1, False),
        (("HSET", f"s:{SESSION}", "state", "deleted"), 0, False),
        (("HSET", f"s:{SESSION}", "state", "hibernated"), 0, False),
    ],
)
async def test_ready_is_taken_for_the_waking_epoch_alone(
    desk: Desk, spoil: tuple[str, ...], shift: int, taken: bool
) -> None:
    g = await desk.writer("provider")
    await g.sessions.open_session(SESSION, WHO)
    asked = await g.sessions.claim(SESSION, "r1", named=False)
    if spoil:
        await desk.redis.execute_command(*spoil)
    before = await desk.state()
    assert await g.provider.ready(SESSION, asked.epoch + shift, descriptor("sb-1")) is taken
    if not taken:
        assert await desk.state() == before
    else:
        assert await desk.session("state", "sandbox", "volume") == ["claimed", "sb-1", "vol-sb-1"]
        assert await g.provider.waking() == []


async def test_why_there_is_no_sandbox_reaches_whoever_waits(desk: Desk) -> None:
    g = await desk.writer("provider")
    await g.sessions.open_session(SESSION, WHO)
    asked = await g.sessions.claim(SESSION, "r1", named=False)
    await g.provider.unready(SESSION, asked.epoch + 1, "not this one")
    await g.provider.unready(SESSION, asked.epoch, "no memory left")
    assert (await g.sessions.claim(SESSION, "r1", named=False)).reason == "no memory left"
    assert await g.provider.waking() == [SESSION]


# -- deaths -----------------------------------------------------------------------------------------------------------


async def test_a_bound_sandboxs_death_leaves_the_workspace_and_an_unbound_ones_leaves_nothing(desk: Desk) -> None:
    g = await desk.writer("g1")
    await g.sessions.open_session(SESSION, WHO)
    await g.provider.offer(descriptor("sb-1"))
    await g.sessions.claim(SESSION, "r1", named=False)
    assert await g.provider.gone("sb-1", "exit") == (SESSION, "new")
    assert await desk.session("state", "volume", "sandbox") == ["new", "", ""]
    await claimed(desk, g, "sb-2")
    assert await g.provider.gone("sb-2", "exit") == (SESSION, "hibernated")
    assert await desk.session("state", "volume", "sandbox") == ["hibernated", "vol-sb-2", ""]


async def test_a_woken_workspace_is_kept_though_its_new_sandbox_dies_before_it_is_bound(desk: Desk) -> None:
    g = await desk.writer("g1")
    await g.sessions.open_session(SESSION, WHO)
    await claimed(desk, g)
    await g.provider.gone("sb-1", "exit")
    asked = await g.sessions.claim(SESSION, "r1", named=False)
    assert asked.word == "WAKING"
    await g.provider.ready(SESSION, asked.epoch, descriptor("sb-2", "vol-sb-1"))
    assert await g.provider.gone("sb-2", "exit") == (SESSION, "hibernated")
    assert await desk.session("volume") == ["vol-sb-1"]


async def test_the_death_of_an_earlier_sandbox_does_not_move_the_session(desk: Desk) -> None:
    g = await desk.writer("g1")
    await g.sessions.open_session(SESSION, WHO)
    epoch = await claimed(desk, g)
    await g.sessions.announce(SESSION, epoch + 5, descriptor("sb-2"), WHO)
    assert await g.provider.gone("sb-1", "exit") == (SESSION, "")
    assert await desk.session("state", "sandbox") == ["claimed", "sb-2"]
    assert await g.provider.gone("sb-9", "exit") == ("", "")


async def test_the_doomed_are_told_until_their_death_is_proved(desk: Desk) -> None:
    g = await desk.writer("g1")
    await g.provider.offer(descriptor("sb-1"))
    await g.sessions.doom("sb-1", "it does not answer")
    await g.sessions.doom("sb-1", "connection refused")  # a consequence: the cause was told first
    assert await g.provider.doomed() == {"sb-1": "it does not answer"}
    await g.provider.gone("sb-1", "killed")
    assert await g.provider.doomed() == {}
    assert await g.provider.pool("dev", "a", "r1") == []


# -- drain ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spoil", "idle_before", "shift", "word"),
    [
        ((), 0, 0, "OK"),
        ((), 0, 1, "STALE"),
        (("HSET", f"s:{SESSION}", "running", "r-1"), 0, 0, "BUSY"),
        (("RPUSH", f"q:{SESSION}", "r-1"), 0, 0, "BUSY"),
        ((), NOW - 1, 0, "BUSY"),  # active since
        ((), NOW, 0, "OK"),
        (("HSET", f"s:{SESSION}", "state", "draining"), 0, 0, "OK"),
        (("HSET", f"s:{SESSION}", "state", "hibernated"), 0, 0, "STALE"),
    ],
)
async def test_a_session_is_drained_only_when_nothing_runs_or_waits_there(
    desk: Desk, spoil: tuple[str, ...], idle_before: int, shift: int, word: str
) -> None:
    g = await desk.writer("g1")
    await g.sessions.open_session(SESSION, WHO)
    epoch = await claimed(desk, g)
    if spoil:
        await desk.redis.execute_command(*spoil)
    before = await desk.session("state")
    assert await g.sessions.drain(SESSION, epoch + shift, idle_before=idle_before) == word
    assert await desk.session("state") == (["draining"] if word == "OK" else before)


async def test_a_busy_session_goes_back_to_claimed_and_a_quiet_one_hibernates(desk: Desk) -> None:
    g = await desk.writer("g1")
    await g.sessions.open_session(SESSION, WHO)
    epoch = await claimed(desk, g)
    assert await g.sessions.hibernated(SESSION, epoch, "idle") == "STALE"
    await g.sessions.drain(SESSION, epoch, idle_before=0)
    assert await g.sessions.undrain(SESSION, epoch + 1) == "STALE"
    assert await g.sessions.undrain(SESSION, epoch) == "OK"
    assert await desk.session("state") == ["claimed"]
    await g.sessions.drain(SESSION, epoch, idle_before=0)
    assert await g.sessions.hibernated(SESSION, epoch - 1, "idle") == "STALE"
    assert await g.sessions.hibernated(SESSION, epoch, "idle") == "OK"
    assert await desk.session("state", "sandbox", "volume") == ["hibernated", "", "vol-sb-1"]
    assert await g.provider.doomed() == {"sb-1": "idle"}
    assert await g.sessions.undrain(SESSION, epoch) == "STALE"
    assert await g.provider.gone("sb-1", "idle") == ("", "")
    assert await desk.session("state") == ["hibernated"]


# -- open, stop, delete -----------------------------------------------------------------------------------------------


async def test_a_session_is_opened_once_by_its_user(desk: Desk) -> None:
    g = await desk.writer("g1")
    assert await g.sessions.open_session(SESSION, WHO) == "OK"
    before = await desk.state()
    assert await g.sessions.open_session(SESSION, WHO) == "OK"
    assert await g.sessions.open_session(SESSION, SessionIdentity("dev", "a", "v", "s1", "p1")) == "FOREIGN"
    assert await desk.state() == before
    assert await g.sessions.page("dev", newest=10) == [SESSION]


async def test_a_stop_is_looked_at_next_and_refused_under_a_turn(desk: Desk) -> None:
    g = await desk.writer("g1")
    assert await g.sessions.request_stop(SESSION) == "ABSENT"
    await g.sessions.open_session(SESSION, WHO)
    await claimed(desk, g)
    assert await g.sessions.request_stop(SESSION) == "OK"
    assert await g.sessions.due(0, 10) == {SESSION: 0}
    await g.turns.accept(acceptance("r-1"))
    assert await g.sessions.request_stop(SESSION) == "BUSY"


async def test_a_deleted_session_is_a_tombstone_and_its_sandbox_and_files_go(desk: Desk) -> None:
    g = await desk.writer("g1")
    assert await g.sessions.delete_session(SESSION) == "ABSENT"
    accepted = await g.turns.accept(acceptance("r-1"))
    assert await g.sessions.delete_session(SESSION) == "BUSY"
    await g.turns.discard("r-1", accepted.fence)
    epoch = await claimed(desk, g)
    assert await g.sessions.delete_session(SESSION) == "OK"
    assert await g.provider.doomed() == {"sb-1": "session deleted"}
    assert await g.provider.deletes() == [SESSION]
    assert (await g.sessions.claim(SESSION, "r1", named=True)).word == "DELETED"
    assert (await g.sessions.announce(SESSION, epoch, descriptor("sb-1"), WHO)).word == "STOP"
    assert await g.provider.label(SESSION, epoch + 9, "v", WHO) == "DELETED"
    assert await g.sessions.open_session(SESSION, WHO) == "DELETED"
    await g.provider.removed(SESSION)
    assert await g.provider.deletes() == []
    assert 0 < await desk.redis.ttl(f"s:{SESSION}") <= 3600


async def test_a_stop_that_comes_while_a_look_is_under_way_is_not_put_off_by_it(desk: Desk) -> None:
    g = await desk.writer("g1")
    await g.sessions.open_session(SESSION, WHO)
    await claimed(desk, g)
    seen = await g.sessions.due(NOW, 10)
    assert seen == {SESSION: NOW}
    assert await g.sessions.request_stop(SESSION) == "OK"
    await g.sessions.defer(SESSION, seen[SESSION], NOW + 900_000)
    assert await g.sessions.due(NOW, 10) == {SESSION: 0}
    await g.sessions.defer(SESSION, 0, NOW + 1_000)
    assert await g.sessions.due(NOW, 10) == {}
    assert await g.sessions.due(NOW + 1_000, 10) == {SESSION: NOW + 1_000}


# -- announcements and labels -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("known", "sandbox", "state", "word", "told"),
    [
        (None, "", "", "RESTORED", 7),  # Redis lost it
        (6, "sb-0", "claimed", "RESTORED", 7),  # the highest epoch wins
        (7, "sb-1", "claimed", "OK", 7),
        (7, "sb-1", "draining", "OK", 7),
        (7, "sb-1", "hibernated", "STOP", 8),  # this binding is over
        (7, "sb-0", "claimed", "STOP", 8),
        (8, "sb-0", "claimed", "STOP", 8),
    ],
)
async def test_what_a_shim_that_announces_itself_is_told(
    desk: Desk, known: int | None, sandbox: str, state: str, word: str, told: int
) -> None:
    g = await desk.writer("g1")
    if known is not None:
        await g.sessions.open_session(SESSION, WHO)
        await desk.redis.hset(f"s:{SESSION}", mapping={"epoch": str(known), "sandbox": sandbox, "state": state})
    answer = await g.sessions.announce(SESSION, 7, descriptor("sb-1"), WHO)
    assert (answer.word, answer.epoch) == (word, told)
    if word == "RESTORED":
        assert await desk.session("state", "epoch", "sandbox", "volume") == ["claimed", "7", "sb-1", "vol-sb-1"]
        assert not await g.provider.offer(descriptor("sb-1"))  # it is a session's: never in the pool


async def test_a_sandbox_that_was_given_to_one_session_is_not_announced_for_another(desk: Desk) -> None:
    g = await desk.writer("g1")
    await g.sessions.open_session(SESSION, WHO)
    await claimed(desk, g)
    before = await desk.state()
    assert (await g.sessions.announce("dev:p2", START_US, descriptor("sb-1"), OTHER)).word == "STOP"
    assert await desk.state() == before


@pytest.mark.parametrize(
    ("held", "word"),
    [
        ({}, "OK"),
        ({"state": "new", "epoch": "0", "volume": ""}, "OK"),
        ({"state": "claimed", "epoch": "9", "volume": "w"}, "KNOWN"),
        ({"state": "claimed", "epoch": "3", "volume": "w"}, "KNOWN"),
        ({"state": "hibernated", "epoch": "9", "volume": "w"}, "KNOWN"),
        ({"state": "hibernated", "epoch": "3", "volume": "w"}, "OK"),  # the newer label wins
        ({"state": "hibernated", "epoch": "7", "volume": "v"}, "OK"),  # sent again
        ({"state": "deleted", "epoch": "1", "volume": ""}, "DELETED"),
    ],
)
async def test_a_label_gives_a_workspace_back_only_where_nothing_newer_is_known(
    desk: Desk, held: dict[str, str], word: str
) -> None:
    g = await desk.writer("provider")
    if held:
        await desk.redis.hset(f"s:{SESSION}", mapping=held)
    before = await desk.session("state", "epoch", "volume")
    assert await g.provider.label(SESSION, 7, "v", WHO) == word
    assert await desk.session("state", "epoch", "volume") == (["hibernated", "7", "v"] if word == "OK" else before)


async def test_a_catalog_entry_raises_the_version_only_when_it_changes(desk: Desk) -> None:
    g = await desk.writer("provider")
    made = AgentEntry("dev", "a", (), frozenset({"responses"}), "moorage", {}, (), None)
    assert await g.provider.publish(made)
    assert not await g.provider.publish(made)
    assert await desk.redis.get("catalog:version") == b"1"
    await g.provider.unpublish("dev", "a")
    assert await g.provider.catalog() == []


# -- what a provider counts -------------------------------------------------------------------------------------------


async def test_at_work_are_sandboxes_whose_session_runs_a_turn_and_those_of_which_nobody_knows(desk: Desk) -> None:
    g = await desk.writer("g1")
    await g.sessions.open_session(SESSION, WHO)
    await claimed(desk, g)
    await g.provider.offer(descriptor("sb-waits"))
    before = await desk.state()
    assert await g.provider.at_work([]) == 0
    assert await g.provider.at_work(["sb-1"]) == 0
    assert await g.provider.at_work(["sb-1", "sb-waits", "sb-unknown"]) == 2
    assert await desk.state() == before, "it only reads"
    await desk.redis.hset(f"s:{SESSION}", "running", "r-1")  # type: ignore[misc]
    assert await g.provider.at_work(["sb-1"]) == 1
    await desk.redis.delete(f"s:{SESSION}")
    assert await g.provider.at_work(["sb-1"]) == 1


async def test_all_that_waits_for_a_provider_is_told_at_once(desk: Desk) -> None:
    g = await desk.writer("g1")
    assert await g.provider.asked() == Asked([], {}, {}, [], {})
    await g.sessions.open_session(SESSION, WHO)
    await g.sessions.claim(SESSION, "r1", named=False)
    await g.provider.doom("sb-9", "it does not answer")
    await desk.redis.hset("archived", "dev:p7", "ws-7")  # type: ignore[misc]
    await desk.redis.zadd("deletes", {"dev:p8": 1})
    await desk.redis.hset("left", "ws-9", "dev:p9")  # type: ignore[misc]
    asked = await g.provider.asked()
    assert asked == Asked([SESSION], {"sb-9": "it does not answer"}, {"dev:p7": "ws-7"}, ["dev:p8"], {"ws-9": "dev:p9"})
    assert asked.waking == await g.provider.waking() and asked.doomed == await g.provider.doomed()
    assert asked.archived == await g.provider.archived() and asked.deletes == await g.provider.deletes()
