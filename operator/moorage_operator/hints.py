"""Hints of gateways: something waits for a provider (a claim, a wake, an end), or a new sandbox serves somewhere. Layer: I/O rim.

A hint only saves waiting: whoever hears it also looks by itself twice a second. So none is kept, and a stream that broke is opened again.
Gateways have a stream of their own with more to it; the floor, which both may import, knows no Redis client.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

import redis.asyncio as aioredis
from redis.exceptions import RedisError

from moorage_api.ledger import keys

log = logging.getLogger(__name__)

READ_SECONDS = 1.0
RETRY_SECONDS = 1.0
PING_SECONDS = 5.0  # of silence, after which the server is asked whether it is there
QUIET_SECONDS = 12.0


async def listen(redis: aioredis.Redis, heard: Callable[[], None], served: Callable[[str, str], None]) -> None:
    """Calls `heard` for each hint, and whenever some may have been missed, and `served` with a sandbox and its URL, until cancelled.

    Closes the client.
    """
    try:
        while True:
            try:
                await _follow(redis, heard, served)
            except (RedisError, OSError, TimeoutError) as fault:
                _heed_cancellation()
                log.info("the hint stream broke (%s); it is opened again", type(fault).__name__)
            heard()
            await asyncio.sleep(RETRY_SECONDS)
    finally:
        await redis.aclose()


async def _follow(redis: aioredis.Redis, heard: Callable[[], None], served: Callable[[str, str], None]) -> None:
    async with redis.pubsub(ignore_subscribe_messages=True) as stream:
        await stream.subscribe(keys.HINT_PROVIDER, keys.HINT_SERVING)
        last = asked = time.monotonic()
        while True:
            _heed_cancellation()
            message = await stream.get_message(timeout=READ_SECONDS)
            now = time.monotonic()
            if message is not None:
                last = now
                if message["type"] == "message":
                    _take(message, heard, served)
            elif now - last > QUIET_SECONDS:
                raise TimeoutError("Redis is silent")
            elif now - max(last, asked) > PING_SECONDS:
                asked = now
                await stream.ping()


def _take(message: Mapping[str, Any], heard: Callable[[], None], served: Callable[[str, str], None]) -> None:
    if message["channel"] != keys.HINT_SERVING.encode():
        heard()
        return
    sandbox, _, endpoint = message["data"].decode(errors="replace").partition(" ")
    served(sandbox, endpoint)


def _heed_cancellation() -> None:
    """Ends this task if it was told to end. redis-py takes a cancellation that meets it while it connects for a lost connection."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
