"""The operator's way to Redis: the floor's client, on what redis-py reads out of a URL. Layer: I/O rim."""

from __future__ import annotations

import hiredis
import redis.asyncio as aioredis
from redis.asyncio.connection import SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from moorage_api.ledger.client import Client
from moorage_api.ledger.wire import Address, Speech

CALL_SECONDS = 5.0
SPEECH = Speech(
    hiredis.pack_command,
    lambda not_yet: hiredis.Reader(notEnoughData=not_yet),
    hiredis.ProtocolError,
    hiredis.ReplyError,
)


class LedgerRunner(Client):
    """See `Client`; where `redis` would connect, which is closed with it."""

    def __init__(self, redis: aioredis.Redis, *, who: str) -> None:
        super().__init__(lambda: _address(redis), SPEECH, who=who, call_timeout=CALL_SECONDS)
        self._redis = redis

    @property
    def ledger(self) -> str:
        """Which ledger this process knows; empty before the first `found`."""
        return self.identity.ledger

    async def aclose(self) -> None:
        """See Client."""
        await super().aclose()
        await self._redis.aclose()


def at(url: str, who: str) -> LedgerRunner:
    """For `url`; `who` is this writer's name in the ledger."""
    return LedgerRunner(connect(url), who=who)


def connect(url: str) -> aioredis.Redis:
    """A client for `url` that asks once: whoever calls comes again."""
    return aioredis.Redis.from_url(
        url, socket_timeout=CALL_SECONDS, socket_connect_timeout=CALL_SECONDS, retry=Retry(NoBackoff(), 0)
    )


def _address(redis: aioredis.Redis) -> Address:
    pool = redis.connection_pool
    given, kind = pool.connection_kwargs, pool.connection_class
    return Address.of(given, kind(**given).ssl_context.get() if issubclass(kind, SSLConnection) else None)
