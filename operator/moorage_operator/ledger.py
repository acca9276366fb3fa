"""The operator's way to Redis: scripts and reads, one at a time. Layer: I/O rim; implements `moorage_api.ledger.script.Runner`.

The gateways have a quicker one; the operator asks some commands a second.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import redis.asyncio as aioredis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError, ResponseError

from moorage_api import names
from moorage_api.ledger.records import text
from moorage_api.ledger.script import FOUND, REDIS_CLOCK, SETTLE_MS, Lost, Script, Unreachable

CALL_SECONDS = 5.0
# Replies that say "not now" rather than "no": the server is loading, may not write, or is out of memory or disk.
_NOT_NOW = ("LOADING", "MISCONF", "READONLY", "OOM", "BUSY", "MASTERDOWN", "NOREPLICAS", "CLUSTERDOWN")


class LedgerRunner:
    """Runs ledger scripts on one Redis primary. `found` comes before the first script and after each `Lost`."""

    def __init__(self, redis: aioredis.Redis, *, who: str) -> None:
        self._redis = redis
        self._who = who
        self._ledger = ""
        self._generation = 0
        self._told = 0
        self._texts: dict[str, tuple[str, str]] = {}  # by a script's name: SHA-1, text

    @property
    def ledger(self) -> str:
        """Which ledger this process knows; empty before the first `found`."""
        return self._ledger

    async def found(self) -> bool:
        """Adopts the ledger, or makes the next generation after a loss. True when this call made one. Raises Unreachable."""
        fresh = names.new_secret()[:16]
        out = await self.read(
            "EVAL",
            FOUND.text(REDIS_CLOCK),
            0,
            self._who,
            fresh,
            self._ledger,
            self._generation,
            self._told,
            0,
            SETTLE_MS,
        )
        self._ledger, self._generation, self._told = text(out[0]), int(out[1]), int(out[2])
        return bool(out[4])

    async def run(self, script: Script, *args: str | bytes | int) -> list[Any]:
        """See Runner."""
        sha, body = self._text(script)
        sent_to = self._ledger
        guard = (sent_to, self._generation, self._who, self._told)
        try:
            out = await self._ask("EVALSHA", sha, 0, *guard, *args)
        except NoScriptError:
            out = await self.read("EVAL", body, 0, *guard, *args)
        witness = int(out[0])
        if witness < 0:
            raise Lost(f"{script.name}: the ledger is not the one this process wrote to")
        if self._ledger == sent_to and witness > self._told:
            self._told = witness
        return list(out[1:])

    def _text(self, script: Script) -> tuple[str, str]:
        known = self._texts.get(script.name)
        if known is None:
            body = script.text(REDIS_CLOCK)
            known = hashlib.sha1(body.encode(), usedforsecurity=False).hexdigest(), body
            self._texts[script.name] = known
        return known

    async def read(self, *command: str | bytes | int) -> Any:
        """See Runner."""
        try:
            return await self._ask(*command)
        except NoScriptError as fault:
            raise Unreachable(str(fault)) from fault

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._redis.aclose()

    async def _ask(self, *command: str | bytes | int) -> Any:
        """One command, in a task of its own: Python 3.11's `wait_for`, which the client uses, may swallow a cancellation, and an operator
        that lost its lease must not go on."""
        ask: Any = self._redis.execute_command
        asked = asyncio.ensure_future(ask(*command))
        try:
            await asyncio.wait({asked}, timeout=CALL_SECONDS)
        finally:
            asked.cancel()
        if not asked.done():
            asked.add_done_callback(_heard)
            raise Unreachable(f"no answer from Redis within {CALL_SECONDS:g} s")
        try:
            return asked.result()
        except NoScriptError:
            raise
        except ResponseError as fault:
            if str(fault).startswith(_NOT_NOW):
                raise Unreachable(str(fault)) from fault
            raise
        except (RedisError, OSError, TimeoutError) as fault:
            raise Unreachable(f"no answer from Redis: {type(fault).__name__}") from fault


def _heard(late: asyncio.Future[Any]) -> None:
    """Nobody waits for it any more: what it raised is no news."""
    if not late.cancelled():
        late.exception()


def connect(url: str) -> aioredis.Redis:
    """A client for `url` that asks once: whoever calls comes again."""
    return aioredis.Redis.from_url(
        url, socket_timeout=CALL_SECONDS, socket_connect_timeout=CALL_SECONDS, retry=Retry(NoBackoff(), 0)
    )
