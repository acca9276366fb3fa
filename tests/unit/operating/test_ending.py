"""An operator that lost its lease stops, though a library under it swallowed the cancellation."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from moorage_api.ledger.script import Unreachable
from moorage_operator import compose, ledger
from moorage_operator.ledger import LedgerRunner

pytestmark = pytest.mark.unit


class Deaf:
    """A client whose command goes on when it is cancelled, as Python 3.11's `wait_for` may; `wait` seconds for its answer."""

    def __init__(self) -> None:
        self.swallowed = 0
        self.go = asyncio.Event()

    async def execute_command(self, *command: Any) -> bytes:
        while not self.go.is_set():
            try:
                await self.go.wait()
            except asyncio.CancelledError:
                self.swallowed += 1
        return b"PONG"


async def test_a_read_that_is_cancelled_is_cancelled_whatever_the_client_does() -> None:
    deaf: Any = Deaf()
    reading = asyncio.ensure_future(LedgerRunner(deaf, who="x").read("PING"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(5):
            await reading
    deaf.go.set()


async def test_a_client_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "CALL_SECONDS", 0.05)
    deaf: Any = Deaf()
    with pytest.raises(Unreachable):
        async with asyncio.timeout(5):
            await LedgerRunner(deaf, who="x").read("PING")
    deaf.go.set()


async def test_the_others_end_though_they_miss_the_first_cancellation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compose, "CANCEL_SECONDS", 0.02)
    missed = []

    async def stubborn() -> None:
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                missed.append(1)
                if len(missed) > 2:
                    raise

    async def lost() -> None:
        await asyncio.sleep(0)

    async with asyncio.timeout(10):
        await compose._first(asyncio.create_task(stubborn()), asyncio.create_task(lost()))
    assert len(missed) == 3


async def test_what_the_first_raised_is_raised() -> None:
    async def falls() -> None:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        await compose._first(asyncio.create_task(falls()), asyncio.create_task(asyncio.sleep(60)))


async def test_who_is_cancelled_while_it_ends_others_ends_them_first() -> None:
    ended = asyncio.Event()

    async def slow() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0.05)
            ended.set()
            raise

    owner = asyncio.create_task(compose._first(asyncio.create_task(slow()), asyncio.create_task(asyncio.sleep(60))))
    await asyncio.sleep(0)
    owner.cancel()
    await asyncio.sleep(0.01)
    owner.cancel()
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(5):
            await owner
    assert ended.is_set()
