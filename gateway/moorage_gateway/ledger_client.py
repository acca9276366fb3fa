"""The gateway's ledger client: the floor's, on what redis-py reads out of a URL, and what a server must promise. Layer: I/O rim.

The local provider uses it too.
"""

from __future__ import annotations

import hiredis
import redis.asyncio as aioredis
from redis.asyncio.connection import SSLConnection

from moorage_api.ledger.client import PATIENCE_S, Client, Identity, RedisRefused
from moorage_api.ledger.records import fields
from moorage_api.ledger.script import REDIS_CLOCK
from moorage_api.ledger.wire import Address, Speech

__all__ = ["PATIENCE_S", "Identity", "LedgerClient", "RedisRefused", "UnsafePolicy"]

SPEECH = Speech(
    hiredis.pack_command,
    lambda not_yet: hiredis.Reader(notEnoughData=not_yet),
    hiredis.ProtocolError,
    hiredis.ReplyError,
)


class UnsafePolicy(Exception):
    """Redis may lose acknowledged writes (`appendfsync` is not `always`) and `relaxed` was not set."""


class LedgerClient(Client):
    """See `Client`; where `redis` would connect, which is closed with it."""

    def __init__(
        self, redis: aioredis.Redis, *, who: str, replicas: int = 0, call_timeout: float = 5.0, clock: str = REDIS_CLOCK
    ) -> None:
        super().__init__(
            lambda: _address(redis), SPEECH, who=who, replicas=replicas, call_timeout=call_timeout, clock=clock
        )
        self._redis = redis

    async def check_policy(self, *, relaxed: bool) -> str:
        """The server's fsync policy; raises UnsafePolicy unless it is `always` or `relaxed` was set (turns.md §1)."""
        try:
            raw = await self.send(("CONFIG", "GET", "append*"))
        except RedisRefused:
            return "unknown"  # a managed Redis forbids CONFIG: the operator of the platform vouches for it
        found = fields(raw)
        policy = found.get("appendfsync", "no") if found.get("appendonly") == "yes" else "no"
        if policy != "always" and not relaxed:
            raise UnsafePolicy(
                f"Redis runs with appendonly/appendfsync = {policy}; set 'appendonly yes' and 'appendfsync always', or set "
                "MOORAGE_DURABILITY=relaxed to accept that the last second may be lost"
            )
        return policy

    async def aclose(self) -> None:
        """See Client."""
        await super().aclose()
        await self._redis.aclose()


def _address(redis: aioredis.Redis) -> Address:
    pool = redis.connection_pool
    given, kind = pool.connection_kwargs, pool.connection_class
    return Address.of(given, kind(**given).ssl_context.get() if issubclass(kind, SSLConnection) else None)
