"""A gateway's half of a session's start, as load: a process that brings sessions to sandboxes by the product's own `Activation`.

Run: `claimer.py REDIS_URL`. A job is a line of JSON: {"tenant", "agent", "revision", "sessions": [names], "rate": a second, 0 for all at
once, "within": seconds a session}. The answer: {"claims": [{"session", "sandbox", "accepted_ms", "bound_ms", "commands"}], "failed":
[reasons], "refused": [words of shims], "commands": Redis requests of the whole job}. `accepted_ms`: from the call until the shim has
accepted session and epoch, `commands` the Redis requests until then; `bound_ms`: until the ledger knows that too. The records of sessions
are made before. Nothing of it is HTTP of callers: what a gateway adds to a call is measured by other benches.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import sys
import time
from collections.abc import AsyncIterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis.asyncio as aioredis
import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.load_client import say
from moorage_api import names
from moorage_api.errors import ApiError
from moorage_api.ledger import keys
from moorage_api.ledger.records import SessionIdentity
from moorage_api.ledger.script import Script
from moorage_api.ledger.sessions import SessionLedger
from moorage_api.wire.hop import HopPool
from moorage_api.wire.shim import Bind
from moorage_gateway.activation import Activation, Wanted
from moorage_gateway.clock import SystemClock
from moorage_gateway.hints import Hints
from moorage_gateway.ledger_client import LedgerClient
from moorage_gateway.recovery import Recovery
from moorage_gateway.routing import RouteTable
from moorage_gateway.upstream import HttpShims, Route, ShimRefused

USER = "ann"
GATEWAY = "http://192.0.2.2:8081"  # of the range for examples: what shims are told, and nobody asks


@dataclass
class Noted:
    """One session's way so far. `commands`: Redis requests made for it; `accepted`: when its shim did, and how many there were then."""

    commands: int = 0
    accepted: float = 0.0
    before: int = 0


NOTED: ContextVar[Noted] = ContextVar("NOTED")


class Counting:
    """The ledger's client, which says who asked."""

    def __init__(self, client: LedgerClient) -> None:
        self._client = client

    async def run(self, script: Script, *args: str | bytes | int) -> list[Any]:
        """See Runner."""
        NOTED.get().commands += 1
        return await self._client.run(script, *args)

    async def read(self, *command: str | bytes | int) -> Any:
        """See Runner."""
        NOTED.get().commands += 1
        return await self._client.read(*command)


class Shims(HttpShims):
    """The real ones, with the time at which a binding was accepted."""

    def __init__(self, pool: HopPool) -> None:
        super().__init__(pool)
        self.refused: list[str] = []

    async def bind(self, route: Route, call: Bind) -> None:
        """See HttpShims."""
        try:
            await super().bind(route, call)
        except ShimRefused as refusal:
            self.refused.append(refusal.word)
            raise
        noted = NOTED.get()
        noted.accepted, noted.before = time.perf_counter(), noted.commands


class NoFiles:
    """New sessions begin from nothing."""

    async def source(self, *_: object) -> str:
        """Never asked for a session that nobody named."""
        raise AssertionError("a new session has no checkpoint")


class Gateway:
    """The parts of a gateway that bring a session to its sandbox, on one Redis."""

    def __init__(self, client: LedgerClient, redis: aioredis.Redis) -> None:
        clock = SystemClock()
        ledger = SessionLedger(Counting(client))
        recovery = Recovery(client, stored_generation=_none_stored)
        recovery.adopted()
        table = RouteTable(clock)
        self._client, self._ledger, self._hop = client, SessionLedger(client), HopPool()
        self._shims = Shims(self._hop)
        self._activation = Activation(ledger, self._shims, table, clock, recovery, lambda: [GATEWAY], NoFiles())
        self._hints = Hints(redis, client, clock)
        self._hints.on(keys.HINT_ROUTES, table.hint)
        self._hints.on_silence(table.silent)

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Meanwhile hints wake who waits."""
        task = asyncio.ensure_future(self._hints.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await self._activation.aclose()
            await self._hop.close()

    async def do(self, job: dict[str, Any]) -> dict[str, Any]:
        """One job."""
        wanted = [_wanted(job, session) for session in job["sessions"]]
        for one in wanted:
            await self._ledger.open_session(one.key, one.identity)
        self._shims.refused, before = [], self._client.commands
        gc.collect()
        began, every = time.perf_counter(), 1 / job["rate"] if job["rate"] else 0.0
        answers = await asyncio.gather(
            *(self._one(one, began + number * every, job["within"]) for number, one in enumerate(wanted))
        )
        return {
            "claims": [one for one in answers if isinstance(one, dict)],
            "failed": [one for one in answers if isinstance(one, str)],
            "refused": self._shims.refused,
            "commands": self._client.commands - before,
            "seconds": time.perf_counter() - began,
        }

    async def _one(self, wanted: Wanted, due: float, within: float) -> dict[str, Any] | str:
        """The figures of one session; the reason when it got no sandbox."""
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        noted = Noted()
        NOTED.set(noted)
        began = time.perf_counter()
        try:
            route = await self._activation.acquire(wanted, deadline=time.monotonic() + within)
        except ApiError as fault:
            return str(fault)
        return {
            "session": wanted.identity.session,
            "sandbox": route.sandbox,
            "accepted_ms": (noted.accepted - began) * 1000,
            "bound_ms": (time.perf_counter() - began) * 1000,
            "commands": noted.before,
        }


def _wanted(job: dict[str, Any], session: str) -> Wanted:
    partition = names.partition(job["tenant"], job["agent"], USER, session)
    identity = SessionIdentity(job["tenant"], job["agent"], USER, session, partition, job["revision"])
    return Wanted(names.session_key(job["tenant"], partition), identity, named=False)


async def _none_stored() -> int:
    return 0


async def main(url: str) -> None:
    """Jobs until the input ends."""
    redis = aioredis.Redis.from_url(url)
    client = LedgerClient(aioredis.Redis.from_url(url), who="bench-gateway")
    await client.found()
    gateway, loop = Gateway(client, redis), asyncio.get_running_loop()
    async with gateway.listening():
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            try:
                say(await gateway.do(json.loads(line)))
            except Exception as error:
                say({"broken": f"{type(error).__name__}: {error}"})
    await client.aclose()
    await redis.aclose()


if __name__ == "__main__":
    gc.disable()
    uvloop.run(main(sys.argv[1]))
