"""The audit chain: what is written, that every kind of damage shows, that nothing is lost while the store is away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis.asyncio as aioredis

from fakes.control_worlds import ANN, RIVAL
from moorage_api.errors import ApiError, Kind
from moorage_api.ledger.script import Unreachable
from moorage_gateway import audit, audit_reading
from moorage_gateway.clock import SystemClock
from moorage_gateway.ledger_client import LedgerClient
from moorage_gateway.store import MemoryStore, StoreUnavailable

pytestmark = pytest.mark.component


class Store(MemoryStore):
    down = False

    async def put(self, key: str, data: bytes) -> None:
        if self.down:
            raise StoreUnavailable("down")
        await super().put(key, data)


class World:
    def __init__(self, ledger: LedgerClient) -> None:
        self.ledger, self.store = ledger, Store()
        self.log = self.chain("gw-1-aaaa")

    def chain(self, writer: str, **more: Any) -> audit.AuditLog:
        return audit.AuditLog(self.store, self.ledger, SystemClock(), writer=writer, **more)

    async def write(self, groups: int = 3, each: int = 4) -> None:
        for group in range(groups):
            for n in range(each):
                self.log.record(ANN, "session.delete", f"session/{group}-{n}", "ok", audit.Origin("req", "trace"))
            await self.log.flush()

    async def verdict(self, writer: str = "gw-1-aaaa") -> audit_reading.Verification:
        return await audit_reading.verify(self.store, self.ledger, writer)

    async def rewrite(self, key: str, change: Any) -> None:
        lines = (await self.store.get(key) or b"").splitlines()
        await self.store.put(key, b"\n".join(change(lines)) + b"\n")


@pytest.fixture
async def world(ledger: LedgerClient) -> AsyncIterator[World]:
    yield World(ledger)


SECOND = "audit/gw-1-aaaa/00000002.jsonl"
LAST = "audit/gw-1-aaaa/00000003.jsonl"


def altered(line: bytes, **fields: Any) -> bytes:
    return json.dumps({**json.loads(line), **fields}, sort_keys=True, separators=(",", ":")).encode()


async def test_an_untouched_chain_verifies_against_its_head(world: World) -> None:
    await world.write()
    assert await world.verdict() == audit_reading.Verification("gw-1-aaaa", True, 12, True)


@pytest.mark.parametrize("field", ["user", "tenant", "action", "outcome", "time", "object", "key", "request_id"])
async def test_one_altered_field_of_one_record_is_found(world: World, field: str) -> None:
    await world.write()
    await world.rewrite(SECOND, lambda lines: [lines[0], altered(lines[1], **{field: 7}), *lines[2:]])
    verdict = await world.verdict()
    assert not verdict.ok and verdict.sequence == 6 and "altered" in str(verdict.problem)


async def test_an_altered_record_with_a_new_hash_is_found_at_the_next_one(world: World) -> None:
    await world.write()

    def forge(lines: list[bytes]) -> list[bytes]:
        record = {k: v for k, v in json.loads(lines[1]).items() if k not in ("hash", "previous")}
        sealed = audit.seal({**record, "user": "eve"}, json.loads(lines[1])["previous"])
        return [lines[0], json.dumps(sealed).encode(), *lines[2:]]

    await world.rewrite(SECOND, forge)
    verdict = await world.verdict()
    assert not verdict.ok and verdict.sequence == 7


async def test_a_tail_forged_whole_is_found_by_the_head(world: World) -> None:
    await world.write()

    def forge(lines: list[bytes]) -> list[bytes]:
        previous, out = json.loads(lines[0])["previous"], []
        for line in lines:
            bare = {k: v for k, v in json.loads(line).items() if k not in ("hash", "previous")}
            sealed = audit.seal({**bare, "user": "eve"}, previous)
            previous = sealed["hash"]
            out.append(json.dumps(sealed).encode())
        return out

    await world.rewrite(LAST, forge)
    verdict = await world.verdict()
    assert not verdict.ok and "Redis" in str(verdict.problem)


@pytest.mark.parametrize(
    "damage",
    [
        lambda lines: lines[:-1],
        lambda lines: lines[1:],
        lambda lines: [lines[1], lines[0], *lines[2:]],
        lambda lines: [lines[0], *lines],
        lambda lines: [b"{half a rec", *lines[1:]],
        lambda lines: [],
    ],
)
async def test_missing_doubled_swapped_or_broken_records_are_found(world: World, damage: Any) -> None:
    await world.write()
    await world.rewrite(SECOND, damage)
    assert not (await world.verdict()).ok


async def test_a_cut_tail_is_found_however_it_was_cut(world: World) -> None:
    await world.write()
    await world.rewrite(LAST, lambda lines: lines[:2])
    assert "tail is cut" in str((await world.verdict()).problem)
    await world.store.delete(LAST)
    verdict = await world.verdict()
    assert not verdict.ok and verdict.records == 8 and "tail is cut" in str(verdict.problem)


async def test_a_missing_segment_in_the_middle_is_found(world: World) -> None:
    await world.write()
    await world.store.delete(SECOND)
    assert "segment 2 is missing" in str((await world.verdict()).problem)


async def test_a_chain_removed_whole_is_still_listed_and_found_cut(world: World) -> None:
    await world.write()
    await world.store.delete_prefix("audit/")
    assert await audit_reading.writers(world.store, world.ledger) == ["gw-1-aaaa"]
    assert not (await world.verdict()).ok


async def test_without_a_head_in_redis_the_chain_verifies_but_is_not_vouched_for(
    world: World, redis_client: aioredis.Redis
) -> None:
    await world.write()
    await redis_client.delete("audit:head:gw-1-aaaa", "audit:writers")
    verdict = await world.verdict()
    assert verdict.ok and not verdict.anchored
    assert await audit_reading.writers(world.store, world.ledger) == ["gw-1-aaaa"]


async def test_a_crash_between_segment_and_head_is_no_false_alarm(world: World, redis_client: aioredis.Redis) -> None:
    await world.write(groups=2)
    head = await redis_client.hgetall("audit:head:gw-1-aaaa")
    await world.write(groups=1)
    await redis_client.hset("audit:head:gw-1-aaaa", mapping=head)
    verdict = await world.verdict()
    assert verdict.ok and verdict.records == 12


async def test_records_wait_while_the_store_is_away_and_are_all_written_in_order(world: World) -> None:
    running = asyncio.create_task(world.log.run())
    world.store.down = True
    for n in range(1200):
        world.log.record(ANN, "turn.cancel", f"response/{n}", "ok")
    await asyncio.sleep(0.8)
    assert await world.store.list("audit/") == []
    world.store.down = False
    async with asyncio.timeout(10):
        while (await world.verdict()).records < 1200:
            await asyncio.sleep(0.05)
    running.cancel()
    await asyncio.wait({running})
    records, _ = await audit_reading.since(world.store, world.ledger, "acme", 0, limit=5000)
    assert [record["object"] for record in records] == [f"response/{n}" for n in range(1200)]
    assert (await world.verdict()).ok


async def test_a_flush_repeated_after_redis_failed_writes_the_same_segment_again(world: World) -> None:
    class NoHead:
        failing = True

        async def read(self, *command: Any) -> Any:
            if self.failing and command[0] == "HSET":
                raise Unreachable("lost reply")
            return await world.ledger.read(*command)

    door = NoHead()
    log = audit.AuditLog(world.store, door, SystemClock(), writer="gw-2-bbbb")
    log.record(ANN, "key.create", "key/1", "ok")
    with pytest.raises(Unreachable):
        await log.flush()
    first = await world.store.get("audit/gw-2-bbbb/00000001.jsonl")
    log.record(ANN, "key.create", "key/2", "ok")
    door.failing = False
    await log.flush()
    assert await world.store.get("audit/gw-2-bbbb/00000001.jsonl") == first
    assert (await world.verdict("gw-2-bbbb")) == audit_reading.Verification("gw-2-bbbb", True, 2, True)


async def test_when_there_is_no_room_for_a_record_the_action_is_not_done(world: World) -> None:
    log = world.chain("gw-3-cccc", room=2)
    for _ in range(2):
        async with log.recording(ANN, "key.create", "key"):
            pass
    done = False
    with pytest.raises(ApiError) as caught:
        async with log.recording(ANN, "key.create", "key"):
            done = True
    assert caught.value.kind is Kind.UNAVAILABLE and not done
    await log.flush()
    async with log.recording(ANN, "key.create", "key"):
        done = True
    assert done


async def test_a_failed_and_a_cancelled_action_are_recorded_as_such(world: World) -> None:
    for error in (ApiError(Kind.NOT_FOUND, "no"), RuntimeError("bug"), asyncio.CancelledError()):
        with pytest.raises(type(error)):
            async with world.log.recording(ANN, "session.stop", "session/x"):
                raise error
    async with world.log.recording(ANN, "key.create", "key/?") as entry:
        entry.object = "key/made"
    await world.log.flush()
    records, _ = await audit_reading.since(world.store, world.ledger, "acme", 0)
    assert [r["outcome"] for r in records] == ["not_found", "failed", "cancelled", "ok"]
    assert records[-1]["object"] == "key/made"


async def test_what_is_left_at_the_end_is_written(world: World) -> None:
    world.log.record(ANN, "agent.deploy", "agent/hello", "ok")
    assert await world.log.aclose() == 0
    assert (await world.verdict()).records == 1


async def test_an_end_without_a_store_counts_what_was_not_written(world: World) -> None:
    world.store.down = True
    world.log.record(ANN, "agent.deploy", "agent/hello", "ok")
    assert await world.log.aclose(within=0.3) == 1


async def test_a_listing_is_of_one_tenant_from_a_time_on_over_all_chains(world: World) -> None:
    other = world.chain("gw-4-dddd")
    await world.write(groups=1, each=2)
    other.record(RIVAL, "key.create", "key/theirs", "ok")
    other.record(ANN, "key.create", "key/mine", "ok")
    await other.flush()
    records, more = await audit_reading.since(world.store, world.ledger, "acme", 0)
    assert [r["object"] for r in records] == ["session/0-0", "session/0-1", "key/mine"] and not more
    newest = records[-1]["time"]
    later, _ = await audit_reading.since(world.store, world.ledger, "acme", newest + 1)
    assert later == []
    cut, more = await audit_reading.since(world.store, world.ledger, "acme", 0, limit=2)
    assert len(cut) == 2 and more


async def test_no_field_can_start_a_new_line_or_grow_without_bound(world: World) -> None:
    forged = 'x"}\n{"sequence":2,"user":"root"}\r\x1b[31m\u2028'
    world.log.record(ANN, "session.delete", forged + "y" * 10_000, "ok", audit.Origin(forged, forged))
    await world.log.flush()
    body = await world.store.get("audit/gw-1-aaaa/00000001.jsonl") or b""
    assert body.count(b"\n") == 1 and len(body) < 2_000 and b"\\u001b" not in body
    assert (await world.verdict()).ok


def test_no_two_processes_write_one_chain() -> None:
    names = {audit.new_writer("Pod_1.example") for _ in range(100)}
    assert len(names) == 100 and all(name.startswith("pod-1-example-") for name in names)
