"""Whom a shim serves: one session for ever, never a lower epoch, nobody it cannot be sure of (turns.md §3; F14, F18, F19)."""

import asyncio
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from fakes.shim_world import DONE, FAST, SECRET, SESSION, World, until
from moorage_api import tokens
from moorage_sandbox.binding import BindingFile

pytestmark = pytest.mark.component
OTHER = "dev:ffffffffffffffff"


@pytest.fixture
async def world(tmp_path):
    async with World(tmp_path) as made:
        yield made


async def test_a_wrong_secret_opens_nothing(world):
    for path in ("/shim/status", "/relay/headers"):
        answer = await world.request("GET", path, {"x-moorage-secret": "guess"})
        assert answer.status == 401
        await answer.read(1000)


async def test_a_binding_is_on_the_volume_before_it_is_answered_and_may_be_repeated(world):
    for _ in range(2):
        assert await world.bind(epoch=5) == (200, {"bound": True, "epoch": 5})
    stored = json.loads((Path(world.config.volume) / ".moorage/binding.json").read_text())
    assert (stored["session"], stored["epoch"], stored["sandbox"]) == (SESSION, 5, "sb-1")


async def test_a_second_session_is_refused_for_ever(world):
    await world.bind()
    for epoch in (1, 2, 10**15):
        status, answer = await world.bind(epoch=epoch, session=OTHER)
        assert (status, answer["error"]) == (409, "other_session")


async def test_of_many_sessions_that_bind_at_once_one_wins(world):
    answers = await asyncio.gather(*(world.bind(session=f"dev:{n:016x}") for n in range(8)))
    assert sorted(status for status, _ in answers) == [200] + [409] * 7


async def test_a_lower_epoch_is_refused_and_a_higher_one_taken(world):
    assert (await world.bind(epoch=5))[0] == 200
    status, answer = await world.bind(epoch=4)
    assert (status, answer["error"]) == (409, "stale_epoch")
    assert (await world.bind(epoch=6))[0] == 200


@pytest.mark.parametrize(
    ("session", "epoch", "word"), [(OTHER, 5, "other_session"), (SESSION, 4, "stale_epoch"), (SESSION, 6, "unbound")]
)
async def test_neither_turn_nor_relay_reaches_another_session_or_epoch(world, session, epoch, word):
    await world.bind(epoch=5)
    status, answer = await world.call("start", **world.start_body([], session=session, epoch=epoch))
    assert (status, answer["error"]) == (409, word)
    relayed = await world.request(
        "GET", "/relay/headers", {"x-moorage-session": session, "x-moorage-epoch": str(epoch)}
    )
    assert (relayed.status, json.loads(await relayed.read(1000))["error"]) == (409, word)
    assert (await world.call("drain", session=session, epoch=epoch, idle_before=0))[0] == 409


@pytest.mark.parametrize("epoch", ["", "x", "-1", "1.0", "9" * 40])
async def test_a_relay_without_a_proper_epoch_is_refused(world, epoch):
    await world.bind()
    answer = await world.request("GET", "/relay/headers", {"x-moorage-session": SESSION, "x-moorage-epoch": epoch})
    assert answer.status == 409
    await answer.read(1000)


async def test_an_unbound_sandbox_starts_nothing(world):
    status, answer = await world.call("start", **world.start_body([]))
    assert (status, answer["error"]) == (409, "unbound")


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b'{"session":1}', b'{"session":"s","epoch":1,"extra":1}'], ids=range(5)
)
async def test_a_body_that_is_no_call_is_refused_with_its_reason(world, body):
    answer = await world.request("POST", "/shim/bind", {}, body)
    assert answer.status == 400
    assert json.loads(await answer.read(10_000))["error"] == "invalid"


async def test_a_body_over_its_limit_is_refused_before_it_is_held(tmp_path):
    async with World(tmp_path, limits=replace(FAST, body=1000)) as world:
        answer = await world.request("POST", "/shim/bind", {}, b" " * 1001)
        assert answer.status == 413
        await answer.aclose()


async def test_a_full_volume_takes_no_binding_and_stays_unbound(tmp_path):
    (tmp_path / "volume").mkdir()
    (tmp_path / "volume/.moorage").write_text("a file where the folder should be")
    with pytest.raises(NotADirectoryError):
        BindingFile(str(tmp_path / "volume")).load()
    (tmp_path / "volume/.moorage").unlink()
    async with World(tmp_path) as world:
        (tmp_path / "volume/.moorage").write_text("")
        status, answer = await world.bind()
        assert (status, answer["error"]) == (503, "not_ready")
        assert (await world.status_page())["state"] == "unbound"


# -- drain


async def test_a_quiet_sandbox_drains_and_then_starts_nothing(world):
    await world.bind()
    now = world.clock.wall_ms() + 1000
    for _ in range(2):
        assert await world.call("drain", session=SESSION, epoch=1, idle_before=now) == (200, {"status": "draining"})
    status, answer = await world.call("start", **world.start_body([]))
    assert (status, answer["error"]) == (409, "draining")
    relayed = await world.relay("GET", "/headers")
    assert relayed.status == 409
    await relayed.read(1000)


async def test_a_running_turn_an_open_relay_or_newer_activity_makes_a_drain_busy(world):
    await world.bind()
    later = world.clock.wall_ms() + 10_000
    asked = {"session": SESSION, "epoch": 1}
    assert await world.call("drain", **asked, idle_before=1) == (409, {"status": "busy"})
    stream = await world.start([["wait", world.gate("a")], ["event", DONE]])
    await stream.acknowledged()
    assert await world.call("drain", **asked, idle_before=later) == (409, {"status": "busy"})
    world.pass_gate("a")
    await stream.rest()
    dripping = await world.relay("GET", "/drip?1")
    assert await world.call("drain", **asked, idle_before=later) == (409, {"status": "busy"})
    world.pass_gate("0")
    await dripping.read(1000)
    await until_async(lambda: world.call("drain", **asked, idle_before=later), (200, {"status": "draining"}))


async def until_async(ask, wanted):
    async with asyncio.timeout(5):
        while await ask() != wanted:
            await asyncio.sleep(0.01)


# -- announcements


async def test_a_shim_announces_itself_with_its_token(world):
    await until(lambda: world.gateway.heard)
    assert (world.gateway.tokens[0], world.gateway.pod_tokens[0]) == (b"Bearer tok.en", None)
    first = world.gateway.heard[0]
    assert (first["sandbox"], first["session"], first["state"]) == ("sb-1", None, "unbound")
    assert first["secret"] == world.config.secret
    await world.bind(epoch=3)
    await until(lambda: world.gateway.heard[-1]["state"] == "bound")
    last = world.gateway.heard[-1]
    assert (last["session"], last["epoch"], last["endpoint"]) == (SESSION, 3, world.config.endpoint)
    assert (last["session_id"], last["user"], last["pids"][0]) == ("session-1234", "ada", os.getpid())


async def test_in_a_pod_it_announces_no_secret_and_shows_the_pods_token_of_the_moment(tmp_path):
    token = tmp_path / "token"
    token.write_text("aa.bb.cc\n")
    async with World(tmp_path, **in_a_pod(token)) as world:
        await until(lambda: b"aa.bb.cc" in world.gateway.pod_tokens)
        assert world.gateway.tokens[0] == b"Bearer tok.en"
        assert {each["secret"] for each in world.gateway.heard} == {""}
        replace_file(token, "dd.ee.ff")
        await until(lambda: b"dd.ee.ff" in world.gateway.pod_tokens)
        assert (await world.bind())[0] == 200, "it knows its secret by the hash"
        for wrong in ("", "guess", world.config.secret_sha256):
            answer = await world.request("GET", "/shim/status", {"x-moorage-secret": wrong})
            assert answer.status == 401
            await answer.read(1000)


@pytest.mark.parametrize(
    "found", [None, "", "nonsense", "aa.bb.cc\r\nx-moorage-epoch: 9", "a.b.c d", "a.b." + "c" * 4096]
)
async def test_without_a_proper_pod_token_it_says_nothing_to_gateways_and_notes_why_once(tmp_path, found):
    token = tmp_path / "token"
    if found is not None:
        token.write_text(found)
    async with World(tmp_path, **in_a_pod(token)) as world:
        await until(lambda: "cannot announce" in Path(world.config.log_file).read_text())
        assert world.gateway.heard == []
        replace_file(token, "aa.bb.cc")
        await until(lambda: world.gateway.heard)
        assert set(world.gateway.pod_tokens) == {b"aa.bb.cc"}
        log = Path(world.config.log_file).read_text()
        assert log.count("cannot announce") == 1
        assert not found or found not in log


def replace_file(path, text):
    """As the kubelet does: nobody ever reads half of it."""
    fresh = path.with_name("fresh")
    fresh.write_text(text)
    fresh.replace(path)


def in_a_pod(token):
    """A shim as a pod's spec tells it: no secret in it."""
    return {"secret": "", "secret_sha256": tokens.secret_sha256(SECRET), "token_file": str(token)}


async def test_told_a_higher_epoch_it_stops_everything(world):
    await world.bind(epoch=3)
    stream = await world.start([["wait", world.gate("never")]], epoch=3)
    await stream.acknowledged()
    world.gateway.epoch = 4
    assert (await stream.rest())[1].kind == "orphaned"
    assert await asyncio.wait_for(world.task, 5) == 0
    assert world.init.alive() == []
    assert "higher epoch" in [each for each in world.status() if each["op"] == "over"][0]["reason"]


async def test_without_any_gateway_for_a_minute_it_stops_everything(world):
    await world.bind()
    stream = await world.start([["wait", world.gate("never")]])
    await stream.acknowledged()
    world.gateway.silent = True
    world.clock.ahead = 61
    assert (await stream.rest())[1].kind == "orphaned"
    assert await asyncio.wait_for(world.task, 5) == 0
    assert world.init.alive() == []


async def test_an_unbound_sandbox_outlives_its_gateways(world):
    world.gateway.silent = True
    world.clock.ahead = 1000
    assert (await world.status_page())["state"] == "unbound"
    world.gateway.silent = False
    heard = len(world.gateway.heard)
    await until(lambda: len(world.gateway.heard) > heard)
    assert (await world.bind())[0] == 200


# -- a shim that died and came back


async def test_a_restarted_shim_refuses_everything_until_a_gateway_has_answered(world):
    await world.bind()
    await world.halt()
    world.gateway.silent = True
    await world.boot()
    status, answer = await world.bind()
    assert (status, answer["error"]) == (503, "starting")
    status, answer = await world.call("attach", turn="caresp_1", fence=99, begun=1)
    assert (status, answer["error"]) == (503, "starting")
    world.gateway.silent = False
    await until(lambda: world.gateway.heard[-1]["state"] == "bound")
    stream = await until_started(world)
    await stream.acknowledged()
    assert dict((await stream.source())[1]["headers"])["x-agent-user-id"] == "ada"
    await stream.rest()


async def until_started(world):
    """Nobody binds a bound sandbox again: the restarted shim knows its session from the volume."""
    async with asyncio.timeout(5):
        while True:
            try:
                return await world.start([["echo", "seen"], ["event", DONE]])
            except AssertionError as refusal:
                assert "starting" in str(refusal)
                await asyncio.sleep(0.01)


async def test_a_restarted_shim_whose_session_lives_elsewhere_ends(world):
    await world.bind()
    await world.halt()
    world.gateway.epoch = 2
    await world.boot()
    assert await asyncio.wait_for(world.task, 5) == 0


async def test_a_restarted_shim_never_runs_the_attempt_it_lost_again(world):
    await world.bind()
    stream = await world.start([["event", DONE]], fence=50)
    await stream.acknowledged()
    await stream.rest()
    await world.halt()
    await world.boot()
    await until_async(world.bind, (200, {"bound": True, "epoch": 1}))
    for fence, word in ((50, "unknown"), (49, "fenced")):
        status, answer = await world.call("start", **world.start_body([], fence=fence))
        assert (status, answer["error"]) == (409, word)
    stream = await world.start([["event", DONE]], fence=51)
    assert await stream.acknowledged() == 51
    await stream.rest()


async def test_a_new_sandbox_on_a_sessions_volume_serves_that_session_alone(world):
    await world.bind(epoch=5)
    await world.halt()
    world.config = replace(world.config, sandbox="sb-2")
    world.gateway.epoch = 6  # the wake that made it: no reason to end
    await world.boot()
    await until(lambda: world.gateway.heard[-1]["sandbox"] == "sb-2")
    assert world.gateway.heard[-1]["state"] == "unbound"
    assert (await world.bind(epoch=6, session=OTHER))[1]["error"] == "other_session"
    assert (await world.bind(epoch=4))[1]["error"] == "stale_epoch"
    assert await world.bind(epoch=6) == (200, {"bound": True, "epoch": 6})


async def test_when_init_is_gone_the_attempt_ends_and_so_does_the_shim(world):
    await world.bind()
    stream = await world.start([["wait", world.gate("never")]])
    await stream.acknowledged()
    await world.init.close()
    assert (await stream.rest())[1].kind in ("exit", "orphaned")
    assert await asyncio.wait_for(world.task, 5) == 0
