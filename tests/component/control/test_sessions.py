"""Which session a request belongs to, who owns it, how it ends. Real Valkey and the product's scripts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis.asyncio as aioredis

from fakes.control_worlds import ANN, BOB, OPERATOR, RIVAL, World, entry
from moorage_api import names
from moorage_api.catalog import AgentEntry, RevisionEntry
from moorage_api.errors import ApiError, Kind
from moorage_api.ledger.records import Descriptor
from moorage_gateway import sessions
from moorage_gateway.auth import Principal
from moorage_gateway.ledger_client import LedgerClient
from moorage_gateway.session_records import SessionRecords, StoredSession
from moorage_gateway.store import MemoryStore, StoreUnavailable

pytestmark = [pytest.mark.component, pytest.mark.tenancy]


@pytest.fixture
async def world(ledger: LedgerClient) -> AsyncIterator[World]:
    made = World(ledger, MemoryStore())
    yield made
    await made.records.aclose()


async def refused(call: Any, kind: Kind) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await call
    assert caught.value.kind is kind, caught.value.message
    return caught.value


async def opened(world: World, caller: Principal = ANN, session_id: str = "my-session", agent: str = "hello") -> Any:
    return await world.control.create(caller, agent, session_id)


@contextlib.asynccontextmanager
async def deleting(world: World, redis_client: aioredis.Redis, agent: str | None = None) -> AsyncIterator[None]:
    """A deletion whose files the provider was asked for, and has removed at the end: without one, a caller waits five seconds."""
    key, _ = await world.control.find(ANN, "my-session", agent=agent)
    deletion = asyncio.create_task(world.control.delete(ANN, "my-session", agent=agent))
    async with asyncio.timeout(5):
        while not await redis_client.zscore("deletes", key):
            await asyncio.sleep(0.01)
    yield
    await world.provider.removed(key)
    await deletion


async def test_a_request_that_names_nothing_gets_a_fresh_session_each_time(world: World) -> None:
    first, second = await world.resolve(ANN), await world.resolve(ANN)
    assert first.is_new and second.is_new and first.session_key != second.session_key
    assert names.SESSION.match(first.session_id)


async def test_a_named_session_is_new_once_and_the_same_for_ever(world: World) -> None:
    first = await world.resolve(ANN, session_id="my-session")
    await world.ledger.open_session(first.session_key, first.identity)
    again = await world.resolve(ANN, session_id="my-session")
    assert first.is_new and not again.is_new
    assert (again.session_key, again.revision) == (first.session_key, "rev1")


async def test_a_conversation_names_its_own_session_and_meets_no_chosen_id(world: World) -> None:
    first, again = await world.resolve(ANN, conversation="conv_1"), await world.resolve(ANN, conversation="conv_1")
    assert first.session_key == again.session_key
    assert (await world.resolve(ANN, conversation="conv_2")).session_key != first.session_key
    for odd in ("", "x" * 10_000, "\ud800", "ü/..\x00"):
        assert names.SESSION.match((await world.resolve(ANN, conversation=odd)).session_id)


async def test_a_previous_response_leads_to_its_session(world: World) -> None:
    place = await world.resolve(ANN)
    await world.ledger.open_session(place.session_key, place.identity)
    response = names.new_response_id(place.partition)
    following = await world.resolve(ANN, previous_response_id=response)
    assert following.session_id == place.session_id and not following.is_new
    both = await world.resolve(ANN, session_id=place.session_id, previous_response_id=response)
    assert both.session_key == place.session_key


async def test_a_previous_response_of_anyone_or_anything_else_is_not_found(world: World) -> None:
    place = await world.resolve(ANN)
    await world.ledger.open_session(place.session_key, place.identity)
    response = names.new_response_id(place.partition)
    for caller, agent in ((BOB, "hello"), (RIVAL, "hello"), (ANN, "review-agent")):
        await refused(world.resolve(caller, agent, previous_response_id=response), Kind.PREVIOUS_NOT_FOUND)
    await refused(world.resolve(ANN, previous_response_id=names.new_response_id("0" * 16)), Kind.PREVIOUS_NOT_FOUND)
    # The other way round: after the owner was looked up, the answer to others stays the same.
    await world.resolve(ANN, previous_response_id=response)
    await refused(world.resolve(BOB, previous_response_id=response), Kind.PREVIOUS_NOT_FOUND)
    await refused(world.resolve(ANN, "review-agent", previous_response_id=response), Kind.PREVIOUS_NOT_FOUND)


@pytest.mark.parametrize("wrong", ["", "resp_1", "caresp_" + "0" * 49, "caresp_" + "0" * 16 + "00" + "x" * 31, "../x"])
async def test_a_malformed_identifier_is_400_and_names_its_field(world: World, wrong: str) -> None:
    error = await refused(world.resolve(ANN, previous_response_id=wrong), Kind.INVALID_PARAMETERS)
    assert error.param == "previous_response_id"
    if not names.SESSION.match(wrong):
        error = await refused(world.resolve(ANN, session_id=wrong), Kind.INVALID_PARAMETERS)
        assert error.param == "agent_session_id"


async def test_a_previous_response_of_another_session_than_the_named_one_is_400(world: World) -> None:
    response = names.new_response_id((await world.resolve(ANN)).partition)
    await refused(
        world.resolve(ANN, session_id="another-session", previous_response_id=response), Kind.INVALID_PARAMETERS
    )


async def test_the_same_session_id_of_two_users_is_two_sessions(world: World) -> None:
    places = [await world.resolve(caller, session_id="shared-name") for caller in (ANN, BOB, RIVAL)]
    places.append(await world.resolve(ANN, "review-agent", session_id="shared-name"))
    assert len({place.session_key for place in places}) == 4


async def test_a_session_is_not_found_by_anyone_but_its_owner(world: World) -> None:
    await opened(world)
    for caller in (BOB, RIVAL):
        for agent in (None, "hello", "review-agent"):
            await refused(world.control.get(caller, "my-session", agent=agent), Kind.NOT_FOUND)
            await refused(world.control.stop(caller, "my-session", agent=agent), Kind.NOT_FOUND)
            await refused(world.control.delete(caller, "my-session", agent=agent), Kind.NOT_FOUND)
            await refused(world.control.find(caller, "my-session", agent=agent), Kind.NOT_FOUND)
        assert (await world.control.list(caller)).data == ()
    assert (await world.control.get(ANN, "my-session"))["status"] == "new"


async def test_a_key_for_some_agents_finds_no_session_of_another(world: World) -> None:
    await opened(world)
    some = Principal("acme", "ann", "e" * 16, frozenset({"review-agent"}), ANN.scopes)
    await refused(world.control.get(some, "my-session"), Kind.NOT_FOUND)
    await refused(world.resolve(some, session_id="my-session"), Kind.NOT_FOUND)
    assert (await world.control.list(some)).data == ()


async def test_an_unknown_agent_or_scope_or_user_is_refused(world: World) -> None:
    for agent in ("nope", "", "../hello", "HELLO", "hello\n", "x" * 500):
        await refused(world.resolve(ANN, agent), Kind.NOT_FOUND)
    await refused(world.resolve(Principal("acme", "ann")), Kind.FORBIDDEN)
    world.catalog.entries["acme", "hello"] = entry("acme", "hello", access={"users": ["bob"], "scopes": []})
    await refused(world.resolve(ANN), Kind.FORBIDDEN)
    assert (await world.resolve(BOB)).is_new
    world.catalog.entries["acme", "hello"] = entry("acme", "hello", access={"users": [], "scopes": ["operator"]})
    await refused(world.resolve(BOB), Kind.FORBIDDEN)
    assert (await world.resolve(OPERATOR)).is_new


async def test_sandbox_details_are_for_operators_only(world: World) -> None:
    await opened(world)
    key = (await world.resolve(ANN, session_id="my-session")).session_key
    await world.provider.offer(
        Descriptor("sb-1", "acme", "hello", "rev1", "unix:/s", "canary-secret", "vol-1", (41, 42))
    )
    claim = await world.ledger.claim(key, "rev1", named=False)
    seen = await world.control.get(OPERATOR, "my-session")
    assert seen["sandbox"] == {"id": "sb-1", "epoch": claim.epoch, "pids": [41, 42]} and seen["status"] == "idle"
    assert (await world.control.get(ANN, "my-session"))["sandbox"] is None
    assert "canary" not in str(seen) and "unix:" not in str(seen)
    listed = await world.control.list(OPERATOR, agent="hello", status="idle")
    assert [one["sandbox"]["id"] for one in listed.data] == ["sb-1"]


async def test_listing_filters_and_pages_without_loss_or_repetition(world: World) -> None:
    for n in range(7):
        await opened(world, session_id=f"session-{n}", agent="hello" if n % 2 else "review-agent")
        await opened(world, BOB, f"session-{n}")
    assert len((await world.control.list(ANN, agent="hello")).data) == 3
    assert (await world.control.list(ANN, status="hibernated")).data == ()
    seen: list[str] = []
    while True:
        page = await world.control.list(ANN, limit=3, after=seen[-1] if seen else None)
        seen += [one["id"] for one in page.data]
        if not page.has_more:
            break
    assert sorted(seen) == [f"session-{n}" for n in range(7)]


async def test_one_id_under_two_agents_asks_which(world: World) -> None:
    await opened(world)
    await opened(world, agent="review-agent")
    assert (await refused(world.control.get(ANN, "my-session"), Kind.INVALID_PARAMETERS)).param == "agent"
    assert (await world.control.get(ANN, "my-session", agent="hello"))["agent"] == "hello"


async def test_stopping_is_refused_while_a_turn_runs(world: World, redis_client: aioredis.Redis) -> None:
    await opened(world)
    key, _ = await world.control.find(ANN, "my-session")
    await redis_client.hset(f"s:{key}", "running", "caresp_x")
    assert (await world.control.get(ANN, "my-session"))["status"] == "active"
    await refused(world.control.stop(ANN, "my-session"), Kind.SESSION_BUSY)
    await redis_client.hset(f"s:{key}", "running", "")
    assert (await world.control.stop(ANN, "my-session"))["id"] == "my-session"


async def test_after_redis_was_emptied_the_store_says_which_sessions_are_not_new(
    world: World, redis_client: aioredis.Redis
) -> None:
    await opened(world)
    place = await world.resolve(ANN, session_id="my-session")
    await redis_client.flushall()
    after = world.replica()
    named = {"previous_response_id": None, "conversation": None}
    again = await after.resolve(ANN, "hello", session_id="my-session", **named)
    assert not again.is_new and again.session_key == place.session_key
    for caller in (BOB, RIVAL):
        await refused(
            after.resolve(caller, "hello", session_id=None, conversation=None,
                          previous_response_id=names.new_response_id(place.partition)),
            Kind.PREVIOUS_NOT_FOUND,
        )  # fmt: skip
    assert [(one["id"], one["status"]) for one in (await world.control.list(ANN)).data] == [
        ("my-session", "hibernated")
    ]
    assert (await world.control.list(BOB)).data == ()
    assert (await after.resolve(ANN, "hello", session_id="never-seen", **named)).is_new


async def test_a_script_refused_by_an_emptied_redis_is_repeated_after_the_loss_was_mended(
    world: World, redis_client: aioredis.Redis
) -> None:
    await opened(world)
    await redis_client.flushall()
    assert (await opened(world, session_id="after-loss"))["status"] == "new"
    async with deleting(world, redis_client):
        await refused(world.resolve(ANN, session_id="my-session"), Kind.NOT_FOUND)


async def test_a_store_that_is_down_stops_no_known_or_fresh_session_and_the_record_follows(
    ledger: LedgerClient,
) -> None:
    class Flaky(MemoryStore):
        down = False

        async def put(self, key: str, data: bytes) -> None:
            if self.down:
                raise StoreUnavailable("down")
            await super().put(key, data)

        async def list(self, prefix: str, after: str = "", limit: int = 1000) -> list[str]:
            if self.down:
                raise StoreUnavailable("down")
            return await super().list(prefix, after, limit)

    store = Flaky()
    world = World(ledger, store)
    await opened(world)
    store.down = True
    fresh = await world.resolve(ANN)
    assert fresh.is_new and not (await world.resolve(ANN, session_id="my-session")).is_new
    await refused(world.replica().resolve(ANN, "hello", session_id="unheard-of", previous_response_id=None,
                                          conversation=None), Kind.UNAVAILABLE)  # fmt: skip
    assert await MemoryStore.get(store, f"t/acme/sessions/{fresh.partition}/v000001.json") is None
    store.down = False
    await asyncio.wait_for(world.sessions.durable(fresh), 5)
    assert await store.get(f"t/acme/sessions/{fresh.partition}/v000001.json") is not None
    await world.records.aclose()


async def test_a_known_session_costs_no_redis_command(world: World) -> None:
    await opened(world)
    await world.resolve(ANN, session_id="my-session")
    before = world.client.commands
    for _ in range(50):
        await world.resolve(ANN, session_id="my-session")
    assert world.client.commands == before


async def test_a_thousand_races_for_one_name_make_one_session(world: World, redis_client: aioredis.Redis) -> None:
    async def enter() -> str:
        place = await world.resolve(ANN, session_id="contested")
        await world.ledger.open_session(place.session_key, place.identity)
        return str(place.session_key)

    assert len(set(await asyncio.gather(*(enter() for _ in range(1000))))) == 1
    assert len(await redis_client.keys("s:*")) == 1


async def test_a_record_under_the_same_partition_that_is_not_exactly_this_session_is_not_found(world: World) -> None:
    partition = names.partition("acme", "hello", "ann", "my-session")
    await world.store.put(
        f"t/acme/sessions/{partition}/v000001.json",
        StoredSession("acme", "hello", "bob", "his-session", partition, "rev1", 1).to_bytes(),
    )
    await refused(world.resolve(ANN, session_id="my-session"), Kind.NOT_FOUND)
    await refused(world.resolve(ANN, previous_response_id=names.new_response_id(partition)), Kind.PREVIOUS_NOT_FOUND)


def test_new_sessions_follow_the_weights_of_ready_revisions() -> None:
    def pick(share: float, *revisions: RevisionEntry) -> str:
        return sessions.choose_revision(AgentEntry("t", "a", revisions, frozenset(), "moorage", {}), share)

    new, old = RevisionEntry("new", weight=10), RevisionEntry("old", weight=100)
    assert [pick(share, new, old) for share in (0.0, 0.09, 0.11, 0.99)] == ["new", "new", "old", "old"]
    assert pick(0.0, RevisionEntry("new", ready=False), old) == "old"
    assert pick(0.5, RevisionEntry("only", weight=10)) == "only"
    assert pick(0.5, RevisionEntry("broken", ready=False)) == "broken"
    assert pick(0.5) == ""


async def test_records_on_their_way_are_stored_before_the_end() -> None:
    store = MemoryStore()
    records = SessionRecords(store, _Clock())
    await records.remember(StoredSession("acme", "hello", "ann", "s", "0" * 16, "rev1", 1))
    await records.aclose()
    assert len(await store.list("t/acme/sessions/")) == 1


class _Clock:
    def now_ms(self) -> int:
        return 0

    def monotonic(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)
