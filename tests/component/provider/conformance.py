"""What every provider promises its ledger, as one suite: imported by a test module a provider, which gives the `world` fixture.

A world is a running provider on a real Valkey with one agent deployed (`pool: {min: 2, max: 3}`), the gateway's half of the ledger
to claim with, and a few ways to act as the agent or as its murderer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from moorage_api import names
from moorage_api.ledger import keys
from moorage_api.ledger.provider import ProviderLedger
from moorage_api.ledger.records import Claim, Descriptor, SessionIdentity, SessionRecord
from moorage_api.ledger.sessions import SessionLedger
from moorage_api.provider.loop import Provider
from moorage_gateway.ledger_client import LedgerClient

WITHIN = 30.0
AGENT = "hello"
SAVED = "ck-1"


class Hands(Protocol):
    """How a test acts on sandboxes of one kind of machine."""

    async def kill(self, one: Descriptor) -> None: ...
    async def write(self, one: Descriptor, name: str, data: bytes) -> None: ...
    async def read(self, one: Descriptor, name: str) -> bytes | None: ...
    async def call(self, one: Descriptor, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]: ...
    def alive(self, one: Descriptor) -> bool: ...
    def fill(self, one: Descriptor) -> None: ...
    def break_agent(self, agent: str) -> None: ...


@dataclass
class World:
    provider: Provider
    ledger: ProviderLedger
    sessions: SessionLedger
    client: LedgerClient
    hands: Hands
    revision: str
    deploy: Callable[..., Awaitable[str]]

    async def pool(self, revision: str | None = None) -> list[str]:
        return await self.ledger.pool("dev", AGENT, revision or self.revision)

    async def open(self, session: str, user: str = "ann") -> str:
        partition = names.partition("dev", AGENT, user, session)
        key = names.session_key("dev", partition)
        identity = SessionIdentity("dev", AGENT, user, session, partition)
        assert await self.sessions.open_session(key, identity) == "OK"
        return key

    async def claim(self, key: str, revision: str | None = None) -> Claim:
        return await self.sessions.claim(key, revision or self.revision, named=False)

    async def claimed(self, key: str, revision: str | None = None) -> Claim:
        """A route, whether from the pool or made for this session."""
        found = await self.claim(key, revision)
        return found if found.word != "WAKING" else await self.route(key)

    async def route(self, key: str) -> Claim:
        async def claimed() -> Claim | None:
            record = await self.record(key)
            return await self.claim(key) if record.state == "claimed" else None

        return await eventually(claimed)

    async def record(self, key: str) -> SessionRecord:
        record = await self.sessions.session(key)
        assert record is not None
        return record

    async def descriptor(self, sandbox: str) -> Descriptor:
        found = await self.sessions.sandbox(sandbox)
        assert found is not None
        return found

    async def bind(self, key: str, claim: Claim) -> Descriptor:
        one, record = await self.descriptor(claim.sandbox), await self.record(key)
        body = {"session": key, "epoch": claim.epoch, "tenant": "dev", "agent": AGENT, "user": record.user}
        status, answer = await self.hands.call(
            one, "/shim/bind", {**body, "session_id": record.session, "gateways": []}
        )
        assert (status, answer.get("epoch")) == (200, claim.epoch), answer
        assert await self.sessions.bound(key, claim.epoch) == "OK"
        return one

    async def hibernate(self, key: str, claim: Claim) -> None:
        assert await self.sessions.drain(key, claim.epoch, idle_before=0) == "OK"
        assert await self.sessions.hibernated(key, claim.epoch, "idle", SAVED) == "OK"


async def eventually(look: Callable[[], Awaitable[Any]], within: float = WITHIN) -> Any:
    """The first true value of `look`, or a failure naming the last one."""
    until = time.monotonic() + within
    while True:
        found = await look()
        if found:
            return found
        assert time.monotonic() < until, f"{look.__qualname__} was still {found!r} after {within:g} s"
        await asyncio.sleep(0.02)


async def pool_of(world: World, size: int, revision: str | None = None) -> list[str]:
    found: list[str] = []

    async def full() -> bool:
        found[:] = await world.pool(revision)
        return len(found) == size

    await eventually(full)
    return found


async def test_a_pool_is_filled_and_every_descriptor_in_it_answers(world: World) -> None:
    for sandbox in await pool_of(world, 2):
        one = await world.descriptor(sandbox)
        status, answer = await world.hands.call(one, "/shim/status", {})
        assert (status, answer["sandbox"], answer["session"]) == (200, sandbox, None)
        assert one.revision == world.revision and world.hands.alive(one)


async def test_a_wrong_secret_is_refused(world: World) -> None:
    one = await world.descriptor((await pool_of(world, 2))[0])
    stranger = Descriptor(**{**one.__dict__, "secret": "0" * 64})
    assert (await world.hands.call(stranger, "/shim/status", {}))[0] == 401


async def test_a_claimed_sandbox_is_replaced_in_the_pool(world: World) -> None:
    before = await pool_of(world, 2)
    key = await world.open("first-session")
    claim = await world.claim(key)
    assert claim.word == "CLAIMED" and claim.sandbox == before[0]
    after = await pool_of(world, 2)
    assert claim.sandbox not in after and before[1] in after


async def test_an_empty_pool_makes_a_sandbox_for_the_session(world: World) -> None:
    await pool_of(world, 2)
    keys_of = [await world.open(f"session-{n}") for n in range(4)]
    claims = [await world.claimed(key) for key in keys_of]
    assert len({claim.sandbox for claim in claims}) == 4
    for key, claim in zip(keys_of, claims, strict=True):
        await world.bind(key, claim)


async def test_a_bound_sandbox_refuses_another_session_and_a_lower_epoch(world: World) -> None:
    await pool_of(world, 2)
    key, other = await world.open("first-session"), await world.open("other-session")
    claim = await world.claim(key)
    one = await world.bind(key, claim)
    body = {"tenant": "dev", "agent": AGENT, "user": "ann", "session_id": "x", "gateways": []}
    status, answer = await world.hands.call(one, "/shim/bind", {**body, "session": other, "epoch": claim.epoch + 1})
    assert (status, answer["error"]) == (409, "other_session")
    status, answer = await world.hands.call(one, "/shim/bind", {**body, "session": key, "epoch": claim.epoch - 1})
    assert (status, answer["error"]) == (409, "stale_epoch")


async def test_a_killed_sandbox_is_reported_gone_and_its_session_wakes_with_its_files(world: World) -> None:
    await pool_of(world, 2)
    key = await world.open("first-session")
    claim = await world.claim(key)
    one = await world.bind(key, claim)
    await world.hands.write(one, "notes.txt", b"kept")
    await world.hands.kill(one)

    async def hibernated() -> bool:
        return (await world.record(key)).state == "hibernated"

    await eventually(hibernated)
    assert not world.hands.alive(one)
    again = await world.claimed(key)
    assert again.epoch > claim.epoch and again.sandbox != claim.sandbox
    fresh = await world.bind(key, again)
    assert fresh.volume == one.volume and await world.hands.read(fresh, "notes.txt") == b"kept"


async def test_a_session_whose_sandbox_died_before_it_was_bound_starts_anew(world: World) -> None:
    await pool_of(world, 2)
    key = await world.open("first-session")
    claim = await world.claim(key)
    one = await world.descriptor(claim.sandbox)
    await world.hands.kill(one)

    async def new() -> bool:
        return (await world.record(key)).state == "new"

    await eventually(new)
    assert (await world.record(key)).volume == ""
    again = await world.claimed(key)
    assert again.sandbox != claim.sandbox
    assert (await world.bind(key, again)).volume != one.volume


async def test_a_hibernated_session_leaves_no_sandbox_and_wakes_with_its_files(world: World) -> None:
    await pool_of(world, 2)
    key = await world.open("first-session")
    claim = await world.claim(key)
    one = await world.bind(key, claim)
    await world.hands.write(one, "notes.txt", b"kept")
    await world.hibernate(key, claim)

    async def ended() -> bool:
        return claim.sandbox not in await world.ledger.doomed() and not world.hands.alive(one)

    await eventually(ended)
    assert (await world.record(key)).state == "hibernated"
    again = await world.claimed(key)
    fresh = await world.bind(key, again)
    assert await world.hands.read(fresh, "notes.txt") == b"kept"


async def test_an_archived_sessions_volume_goes_and_the_next_call_begins_on_a_fresh_one(world: World) -> None:
    await pool_of(world, 2)
    key = await world.open("first-session")
    claim = await world.claim(key)
    one = await world.bind(key, claim)
    await world.hibernate(key, claim)
    assert await world.sessions.archive(key, claim.epoch, SAVED) == "OK"
    machine = world.provider._machine

    async def let_go() -> bool:
        return not await world.ledger.archived() and not machine.has_volume("dev", AGENT, one.volume)

    await eventually(let_go)
    died = await world.claimed(key)
    one = await world.descriptor(died.sandbox)
    await world.ledger.doom(died.sandbox, "before its files came")

    async def archived_again() -> bool:
        record = await world.record(key)
        return (record.state, record.volume) == ("archived", "") and not machine.has_volume("dev", AGENT, one.volume)

    await eventually(archived_again)
    again = await world.claimed(key)
    assert (again.restore, again.kept) == (True, False)
    fresh = await world.bind(key, again)
    assert fresh.volume != one.volume
    await eventually(lambda: _gone(world, claim.sandbox))
    assert machine.has_volume("dev", AGENT, fresh.volume)


async def test_a_doomed_sandbox_ends_and_its_pool_is_refilled(world: World) -> None:
    before = await pool_of(world, 2)
    one = await world.descriptor(before[0])
    await world.ledger.doom(before[0], "a test asked")

    async def replaced() -> bool:
        now = await world.pool()
        return before[0] not in now and len(now) == 2 and not world.hands.alive(one)

    await eventually(replaced)
    assert await world.ledger.doomed() == {}


async def test_a_deleted_sessions_files_are_removed(world: World) -> None:
    await pool_of(world, 2)
    key = await world.open("first-session")
    one = await world.bind(key, await world.claim(key))
    assert await world.sessions.delete_session(key) == "OK"

    async def removed() -> bool:
        left = await world.ledger.deletes()
        return not left and not world.hands.alive(one)

    await eventually(removed)
    machine = world.provider._machine
    assert not machine.has_volume("dev", AGENT, one.volume)


async def test_a_sandbox_made_for_a_demand_that_is_gone_is_destroyed(world: World) -> None:
    await pool_of(world, 2)
    key = await world.open("first-session")
    claim = await world.claim(key)
    await world.bind(key, claim)
    await world.hibernate(key, claim)
    await eventually(lambda: _gone(world, claim.sandbox))
    assert (await world.claim(key)).word == "WAKING"
    assert await world.sessions.delete_session(key) == "OK"

    async def only_the_pool() -> bool:
        held = set(world.provider.fleet.sandboxes)
        return held == set(await world.pool()) and not await world.ledger.deletes()

    await eventually(only_the_pool)


async def _gone(world: World, sandbox: str) -> bool:
    return sandbox not in await world.ledger.doomed()


async def test_a_sandbox_over_its_disk_quota_is_ended_with_the_reason(world: World) -> None:
    await pool_of(world, 2)
    key = await world.open("first-session")
    one = await world.bind(key, await world.claim(key))
    world.hands.fill(one)

    async def ended() -> bool:
        return (await world.record(key)).state == "hibernated"

    await eventually(ended)
    assert "disk quota" in (await world.record(key)).reason


async def test_a_new_revision_gets_the_pool_and_running_sessions_stay_on_theirs(world: World) -> None:
    await pool_of(world, 2)
    key = await world.open("first-session")
    one = await world.bind(key, await world.claim(key))
    newer = await world.deploy(mode="second")
    assert newer != world.revision
    await pool_of(world, 2, newer)
    await pool_of(world, 0)
    assert world.hands.alive(one) and (await world.record(key)).revision == world.revision
    entry = next(e for e in await world.ledger.catalog() if e.agent == AGENT)
    assert [(r.revision, r.weight, r.ready) for r in entry.revisions] == [(newer, 100, True)]


async def test_a_broken_agent_shows_its_last_lines_and_harms_no_other(world: World) -> None:
    await pool_of(world, 2)
    world.hands.break_agent("broken")
    await world.deploy(agent="broken", broken=True)

    async def told() -> Any:
        return next((e for e in await world.ledger.catalog() if e.agent == "broken" and e.message), None)

    async def explained() -> Any:
        entry = await told()
        return entry if entry is not None and "parrot" in (entry.message or "") else None

    entry = await eventually(explained)
    ready = next(c for c in entry.conditions if c["type"] == "Ready")
    assert ready["status"] == "False" and "ImportError" in ready["message"]
    assert len(await world.pool()) >= 2


async def test_after_the_ledger_was_emptied_pools_and_workspaces_come_back(world: World) -> None:
    await pool_of(world, 2)
    key = await world.open("first-session")
    claim = await world.claim(key)
    one = await world.bind(key, claim)
    await world.hands.write(one, "notes.txt", b"kept")

    async def labelled() -> bool:
        return world.provider._machine.label("dev", AGENT, one.volume) is not None

    await eventually(labelled)
    await world.hibernate(key, claim)
    await eventually(lambda: _gone(world, claim.sandbox))
    await pool_of(world, 2)
    await world.client.read("FLUSHALL")
    await world.client.found()
    world.provider.wake()

    async def offered_again() -> bool:
        found = await world.pool()
        return 2 <= len(found) <= 3 and len(set(found)) == len(found)

    await eventually(offered_again)

    async def back() -> bool:
        record = await world.sessions.session(key)
        return record is not None and record.state == "hibernated" and record.volume == one.volume

    await eventually(back)
    assert await world.client.read("HGET", keys.PLATFORM, "token_key")


async def test_a_withdrawn_agent_leaves_nothing_running(world: World) -> None:
    held = [await world.descriptor(sandbox) for sandbox in await pool_of(world, 2)]
    await world.provider.withdraw("dev", AGENT)

    async def nothing() -> bool:
        return not world.provider.fleet.sandboxes and not any(world.hands.alive(one) for one in held)

    await eventually(nothing)
    assert await world.ledger.catalog() == []
