"""API keys: what is stored, what is recognised, how fast a revocation is everywhere."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from moorage_api.errors import ApiError, Kind
from moorage_api.ledger.script import Unreachable
from moorage_gateway import keys
from moorage_gateway.store import MemoryStore, StoreUnavailable

pytestmark = pytest.mark.unit


class Redis:
    """GET and SET of one process, with a switch."""

    def __init__(self) -> None:
        self.values: dict[Any, Any] = {}
        self.down = False

    async def read(self, *command: str | bytes | int) -> Any:
        if self.down:
            raise Unreachable("down")
        if command[0] == "SET":
            self.values[command[1]] = str(command[2]).encode()
            return b"OK"
        assert command[0] == "GET"
        return self.values.get(command[1])


class CountingStore(MemoryStore):
    def __init__(self) -> None:
        super().__init__()
        self.reads = 0
        self.down = False

    async def get(self, key: str) -> bytes | None:
        self.reads += 1
        await asyncio.sleep(0)
        return await super().get(key)

    async def list(self, prefix: str, after: str = "", limit: int = 1000) -> list[str]:
        if self.down:
            raise StoreUnavailable("down")
        self.reads += 1
        return await super().list(prefix, after, limit)


class World:
    def __init__(self) -> None:
        self.store, self.redis, self.time = CountingStore(), Redis(), 1000.0

    def replica(self) -> keys.KeyService:
        return keys.KeyService(self.store, self.redis, now=lambda: 1_700_000_000.0, monotonic=lambda: self.time)


@pytest.fixture
def world() -> World:
    return World()


async def made(service: keys.KeyService, **fields: Any) -> tuple[keys.KeyRecord, str]:
    return await service.create(**{"tenant": "acme", "user": "ann", "scopes": ["invoke"], **fields})


async def test_a_new_key_is_recognised_with_its_tenant_user_agents_and_scopes(world: World) -> None:
    service = world.replica()
    record, text = await made(service, agents=["hello"], scopes=["invoke", "deploy"])
    principal = await world.replica().identify(text)
    assert principal is not None
    assert (principal.tenant, principal.user, principal.key_id) == ("acme", "ann", record.id)
    assert principal.agents == {"hello"} and principal.scopes == {"invoke", "deploy"}


async def test_the_secret_is_stored_nowhere(world: World) -> None:
    _, text = await made(world.replica())
    secret = text.split("_")[2]
    stored = b"".join([key.encode() + (await world.store.get(key) or b"") for key in await world.store.list("")])
    assert secret.encode() not in stored and text.encode() not in stored
    assert secret not in str(world.redis.values)


async def test_any_change_of_the_text_makes_it_unknown(world: World) -> None:
    service = world.replica()
    _, text = await made(service)
    other = (await made(service))[1]
    mixed = "_".join([*text.split("_")[:2], other.split("_")[2]])
    flipped = text[:-1] + ("0" if text[-1] != "0" else "1")
    for wrong in (
        mixed,
        flipped,
        text + "0",
        text[:-1],
        text.upper(),
        " " + text,
        text + "\n",
        "",
        "mk_",
        "mk__",
        "x" * 90,
    ):
        assert await service.identify(wrong) is None, wrong


async def test_a_known_key_costs_no_store_read_and_no_redis_command(world: World) -> None:
    service = world.replica()
    _, text = await made(service)
    await service.refresh()
    await service.identify(text)
    before, world.redis.down = world.store.reads, True
    for _ in range(100):
        assert await service.identify(text)
    assert world.store.reads == before


async def test_a_revoked_key_is_dead_at_once_here_and_at_the_next_look_elsewhere(world: World) -> None:
    here, there = world.replica(), world.replica()
    record, text = await made(here)
    await there.refresh()
    assert await there.identify(text) and await here.identify(text)
    assert await here.revoke("acme", record.id)
    assert await here.identify(text) is None
    await there.refresh()
    assert await there.identify(text) is None


async def test_a_replica_without_redis_learns_of_a_revocation_in_less_than_five_seconds(world: World) -> None:
    here, there = world.replica(), world.replica()
    record, text = await made(here)
    await there.refresh()
    assert await there.identify(text)
    await here.revoke("acme", record.id)
    world.time += 4.9
    assert await there.identify(text) is None


async def test_a_record_that_was_read_during_a_revocation_is_not_kept(world: World) -> None:
    here, there = world.replica(), world.replica()
    record, text = await made(here)
    await there.refresh()
    reading = asyncio.create_task(there.identify(text))
    await asyncio.sleep(0)
    await here.revoke("acme", record.id)
    await there.refresh()
    await reading
    assert await there.identify(text) is None


async def test_a_revocation_that_could_not_be_announced_says_so_and_can_be_repeated(world: World) -> None:
    here, there = world.replica(), world.replica()
    record, text = await made(here)
    await there.refresh()
    assert await there.identify(text)
    world.redis.down = True
    with pytest.raises(ApiError) as caught:
        await here.revoke("acme", record.id)
    assert caught.value.kind is Kind.UNAVAILABLE
    world.redis.down = False
    assert (await here.revoke("acme", record.id)) is not None
    await there.refresh()
    assert await there.identify(text) is None


async def test_the_look_at_the_mark_goes_on_after_a_failure(world: World) -> None:
    here, there = world.replica(), world.replica()
    record, text = await made(here)
    world.redis.down = True
    looking = asyncio.create_task(there.run())
    await asyncio.sleep(0)
    world.redis.down = False
    assert await there.identify(text)
    await here.revoke("acme", record.id)
    async with asyncio.timeout(5):
        while await there.identify(text):
            await asyncio.sleep(0.05)
    looking.cancel()
    await asyncio.wait({looking})


async def test_a_store_that_is_down_is_503_and_never_a_wrong_answer(world: World) -> None:
    service = world.replica()
    _, text = await made(service)
    world.store.down = True
    with pytest.raises(ApiError) as caught:
        await world.replica().identify(text)
    assert caught.value.kind is Kind.UNAVAILABLE


async def test_many_requests_with_one_unknown_key_read_the_store_once(world: World) -> None:
    service = world.replica()
    text = keys.new_text()
    before = world.store.reads
    assert set(await asyncio.gather(*(service.identify(text) for _ in range(50)))) == {None}
    assert world.store.reads - before <= 2


async def test_a_tenant_sees_and_revokes_its_own_keys_only(world: World) -> None:
    service = world.replica()
    mine, text = await made(service)
    other, _ = await made(service, tenant="rival")
    assert [record.id for record in await service.list("acme")] == [mine.id]
    assert await service.get("rival", mine.id) is None
    assert await service.revoke("rival", mine.id) is None
    assert await service.identify(text) is not None
    for nonsense in ("", "..", "../x", other.id.upper(), "g" * 16, other.id + "/v000001.json"):
        assert await service.get("rival", nonsense) is None


async def test_ensure_makes_the_key_once_and_never_again_after_its_revocation(world: World) -> None:
    service, text = world.replica(), keys.new_text()
    made_by_text = {"tenant": "dev", "user": "dev", "scopes": ["admin"]}
    first = await service.ensure(text, **made_by_text)
    assert first is not None and await service.ensure(text, **made_by_text) == first
    assert len(await service.list("dev")) == 1
    await service.revoke("dev", first.id)
    assert await service.ensure(text, **made_by_text) is None
    assert await service.ensure("no key", **made_by_text) is None
    assert await service.ensure(f"mk_{first.id}_{'0' * 64}", **made_by_text) is None


@pytest.mark.parametrize(
    ("field", "value"),
    [("tenant", "A B"), ("user", ""), ("user", "a/b"), ("user", "x" * 129), ("scopes", []), ("scopes", ["root"]),
     ("agents", []), ("agents", ["../x"]), ("agents", [f"a{n}" for n in range(101)]), ("name", "a\nb"), ("name", "x" * 101)],
)  # fmt: skip
async def test_a_wrong_field_of_a_new_key_is_named(world: World, field: str, value: Any) -> None:
    with pytest.raises(ApiError) as caught:
        await made(world.replica(), **{field: value})
    assert caught.value.kind is Kind.INVALID_PARAMETERS and caught.value.param == field
    assert await world.store.list("") == []


async def test_a_damaged_record_makes_its_key_unknown_and_the_listing_whole(world: World) -> None:
    service = world.replica()
    record, text = await made(service)
    await made(service, name="other")
    await world.store.put(f"keys/{record.id}/v000002.json", b"{broken")
    assert await world.replica().identify(text) is None
    assert [found.name for found in await world.replica().list("acme")] == ["other"]
