"""A call while Redis is away, on a server of the test's own: it is killed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from component.journal.conftest import Desk
from component.journal.test_calls import until
from fakes.valkey import Valkey

pytestmark = pytest.mark.component


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    """In place of the run's."""
    server = Valkey()
    try:
        yield server
    finally:
        server.close()


async def test_redis_away_makes_a_call_wait_and_nothing_is_asked_twice(desk: Desk) -> None:
    asking = asyncio.ensure_future(desk.chat("pause redis"))
    await until(lambda: desk.models.times("pause redis"))
    desk.valkey.stop(kill=True)
    desk.models.release("redis")
    desk.valkey.start()
    assert (await asking).text == "answer 1 to pause redis"
    await desk.attempt()
    assert (await desk.chat("pause redis")).replayed
    assert desk.models.times("pause redis") == 1
