"""Keys of further tenants on a running platform.

The API makes keys of the caller's own tenant only, and that is the design: a tenant begins outside of it. So the product's own key
service is run here, on the same object store and the same Valkey as the platform.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Any

from redis.asyncio import Redis

from fakes.platform import Platform
from moorage_gateway.auth import SCOPES
from moorage_gateway.keys import KeyService
from moorage_gateway.store import FolderStore


class _Commands:
    def __init__(self, redis: Any) -> None:
        self._redis = redis

    async def read(self, *command: str | bytes | int) -> Any:
        return await self._redis.execute_command(*command)


def key_of(platform: Platform, tenant: str, user: str, scopes: Iterable[str] = SCOPES) -> str:
    """The text of a new key of that tenant and user."""

    async def make() -> str:
        redis = Redis.from_url(platform.redis_url())
        store = FolderStore(platform.objects(), deadline=10.0)
        try:
            keys = KeyService(store, _Commands(redis), now=time.time, monotonic=time.monotonic)
            _, text = await keys.create(tenant=tenant, user=user, scopes=scopes, name="test")
            return text
        finally:
            await store.aclose()
            await redis.aclose()

    return asyncio.run(make())
