"""Several writers on one real Valkey, whose scripts run by a clock the test sets. Used by the tests of this folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import redis.asyncio as aioredis

from moorage_api.ledger import keys
from moorage_api.ledger.journal import Asking, Binding, JournalLedger
from moorage_api.ledger.provider import ProviderLedger
from moorage_api.ledger.records import Descriptor, Entry, SessionIdentity
from moorage_api.ledger.script import Script
from moorage_api.ledger.sessions import SessionLedger
from moorage_api.ledger.turns import Acceptance, TurnLedger
from moorage_gateway.ledger_client import LedgerClient

CLOCK_KEY = "test:clock"  # microseconds
CLOCK = f"{{math.floor(tonumber(redis.call('GET', '{CLOCK_KEY}')) / 1e6), tonumber(redis.call('GET', '{CLOCK_KEY}')) % 1e6}}"
START_US = 1_800_000_000_000_000
SESSION = "dev:p1"
WHO = SessionIdentity("dev", "a", "u", "s1", "p1", "r1")
META = {"tenant": "dev", "background": True}
CREATED = ['{"type":"response.created"}']
QUEUED = ['{"type":"response.created"}', '{"type":"response.queued"}']


@dataclass(frozen=True)
class Writer:
    """One process' doors to the ledger."""

    client: LedgerClient
    turns: TurnLedger
    sessions: SessionLedger
    provider: ProviderLedger
    journal: JournalLedger

    async def run(self, script: Script, *args: Any) -> list[Any]:
        """A script by itself."""
        return await self.client.run(script, *args)


class Desk:
    """Writers by name, the clock, and everything Redis holds."""

    def __init__(self, url: str, redis: aioredis.Redis) -> None:
        self._url = url
        self.redis = redis
        self._writers: dict[str, Writer] = {}

    async def writer(self, who: str, *, stored_generation: int = 0) -> Writer:
        """A writer that has adopted the ledger, or founded one if the store knows a later generation."""
        if who not in self._writers:
            client = LedgerClient(aioredis.Redis.from_url(self._url), who=who, clock=CLOCK, call_timeout=60)
            await client.found(stored_generation=stored_generation)
            self._writers[who] = Writer(
                client, TurnLedger(client), SessionLedger(client), ProviderLedger(client), JournalLedger(client)
            )
        return self._writers[who]

    async def set_clock(self, us: int) -> None:
        """Redis' clock, in microseconds."""
        await self.redis.set(CLOCK_KEY, us)

    async def tick(self, seconds: float) -> None:
        """Moves Redis' clock, backwards too."""
        await self.set_clock(int(await self.redis.get(CLOCK_KEY)) + int(seconds * 1e6))

    async def flush(self) -> None:
        """Everything is lost, but the test's clock."""
        now = await self.redis.get(CLOCK_KEY)
        await self.redis.flushdb()
        await self.redis.set(CLOCK_KEY, now)

    async def keep(self) -> dict[str, bytes]:
        """A copy for `roll_back`."""
        names = [k.decode() for k in await self.redis.keys("*")]
        return {k: await self.redis.dump(k) for k in sorted(names) if k != CLOCK_KEY}

    async def roll_back(self, copy: dict[str, bytes]) -> None:
        """Redis is as it was when the copy was made."""
        await self.flush()
        for name, data in copy.items():
            await self.redis.restore(name, 0, data)

    async def state(self) -> dict[str, Any]:
        """Everything but witnesses and clock: equal before and after what wrote nothing."""
        found: dict[str, Any] = {}
        for raw in sorted(await self.redis.keys("*")):
            name = raw.decode()
            if name.startswith("wit:") or name == CLOCK_KEY:
                continue
            match (await self.redis.type(raw)).decode():
                case "hash":
                    found[name] = await self.redis.hgetall(raw)
                case "list":
                    found[name] = await self.redis.lrange(raw, 0, -1)
                case "set":
                    found[name] = sorted(await self.redis.smembers(raw))
                case "zset":
                    found[name] = await self.redis.zrange(raw, 0, -1, withscores=True)
                case "stream":
                    found[name] = await self.redis.xlen(raw)
                case _:
                    found[name] = await self.redis.get(raw)
        return found

    async def turn(self, response: str, *names: str) -> list[str]:
        """Fields of a turn, as text."""
        return [(v or b"").decode() for v in await self.redis.hmget(keys.turn(response), *names)]

    async def session(self, *names: str, key: str = SESSION) -> list[str]:
        """Fields of a session, as text."""
        return [(v or b"").decode() for v in await self.redis.hmget(keys.session(key), *names)]

    async def aclose(self) -> None:
        """Ends every writer."""
        for writer in self._writers.values():
            await writer.client.aclose()


def acceptance(response: str, session: str = SESSION, **over: Any) -> Acceptance:
    """An acceptance with everything it needs; `over` replaces fields."""
    given: dict[str, Any] = {
        "response": response, "session": session, "identity": WHO, "queue_limit": 2, "deadline_ms": START_US // 1000 + 600_000,
        "meta": json.dumps(META), "input": "[]", "running_events": CREATED, "queued_events": QUEUED,
    }  # fmt: skip
    return Acceptance(**(given | over))


def descriptor(sandbox: str, volume: str = "") -> Descriptor:
    """A ready sandbox."""
    return Descriptor(sandbox, "dev", "a", "r1", f"unix:/{sandbox}", "secret", volume or f"vol-{sandbox}", (7,))


def entry(text: str, begun: int = 1, src: int = 1) -> Entry:
    """A log entry."""
    return Entry(begun, src, json.dumps({"t": text}).encode())


async def claimed(desk: Desk, writer: Writer, sandbox: str = "sb-1") -> int:
    """The session has a bound sandbox; returns the epoch."""
    await writer.provider.offer(descriptor(sandbox))
    claim = await writer.sessions.claim(SESSION, "r1", named=False)
    assert claim.word in ("CLAIMED", "ROUTE")
    await writer.sessions.bound(SESSION, claim.epoch)
    return claim.epoch


async def begun(desk: Desk, writer: Writer, response: str = "r-1") -> tuple[int, int]:
    """A turn of its own, running, with one attempt; returns (fence, epoch)."""
    accepted = await writer.turns.accept(acceptance(response))
    epoch = await claimed(desk, writer)
    word, fence, _ = await writer.turns.begin(response, accepted.fence, epoch=epoch, attempt={"n": 1})
    assert word == "OK"
    return fence, epoch


def binding(epoch: int, **over: Any) -> Binding:
    """The session's sandbox as it shows itself."""
    return Binding(**({"sandbox": "sb-1", "session": SESSION, "epoch": epoch, "tenant": "dev", "agent": "a"} | over))


def asking(begun_as: int, number: int = 1, fingerprint: str = "fp", **over: Any) -> Asking:
    """One call of the attempt `begun_as`: a model's, unless `permits` says otherwise."""
    given: dict[str, Any] = {
        "response": "r-1", "begun": begun_as, "number": number, "fingerprint": fingerprint, "permits": "again", "resent": False,
        "what": {"kind": "model"},
    }  # fmt: skip
    return Asking(**(given | over))
