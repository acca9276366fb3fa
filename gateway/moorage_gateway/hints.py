"""The pub/sub stream of hints: routes, due turns, logs, catalog. Hints only save waiting; everything also polls.

Routes count only while this stream beats (turns.md §5), so it publishes a beat of its own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import redis.asyncio as aioredis
from redis.exceptions import RedisError

from moorage_api.ledger import keys
from moorage_api.ledger.script import LedgerError, Runner
from moorage_gateway.clock import Clock

BEAT_S = 1.5
READ_S = 0.5
RETRY_S = 0.5
QUIET_S = 4.0

log = logging.getLogger(__name__)


class Hints:
    """One subscription a process. `on` registers who hears a channel; `silent` is called when the stream breaks."""

    def __init__(self, redis: aioredis.Redis, ledger: Runner, clock: Clock) -> None:
        self._redis = redis
        self._ledger = ledger
        self._clock = clock
        self._heard: dict[str, list[Callable[[str], None]]] = {}
        self._silent: list[Callable[[], None]] = []

    def on(self, channel: str, listener: Callable[[str], None]) -> None:
        """`listener` gets the payload of every hint on a channel."""
        self._heard.setdefault(channel, []).append(listener)

    def on_silence(self, listener: Callable[[], None]) -> None:
        """Called when hints may have been missed."""
        self._silent.append(listener)

    async def run(self) -> None:
        """Listens until cancelled; reconnects for ever."""
        while True:
            try:
                await self._listen()
            except (RedisError, LedgerError, OSError, TimeoutError) as fault:
                _heed_cancellation()
                log.info("the hint stream broke (%s); it is opened again", type(fault).__name__)
            for listener in self._silent:
                listener()
            await self._clock.sleep(RETRY_S)

    async def _listen(self) -> None:
        async with self._redis.pubsub(ignore_subscribe_messages=True) as stream:
            await stream.subscribe(*{keys.HINT_ROUTES, *self._heard})  # the beat's own, whoever listens to it
            beat = asyncio.ensure_future(self._beat())
            last = self._clock.monotonic()
            try:
                while not beat.done():
                    _heed_cancellation()
                    message = await stream.get_message(timeout=READ_S)
                    now = self._clock.monotonic()
                    if message is None:
                        if now - last > QUIET_S:
                            raise TimeoutError("no beat came back")
                        continue
                    last = now
                    channel, data = message["channel"].decode(), message["data"].decode()
                    for listener in self._heard.get(channel, ()):
                        listener(data)
                await beat
            finally:
                beat.cancel()
                await asyncio.gather(beat, return_exceptions=True)

    async def _beat(self) -> None:
        while True:
            await self._ledger.read("PUBLISH", keys.HINT_ROUTES, "")
            await self._clock.sleep(BEAT_S)


def _heed_cancellation() -> None:
    """Ends this task if it was told to end. redis-py takes a cancellation that meets it while it connects for a lost connection."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
