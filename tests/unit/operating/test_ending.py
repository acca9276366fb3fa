"""An operator that lost its lease stops, though a library under it swallowed the cancellation."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from moorage_api.ledger.script import Unreachable
from moorage_operator import compose, ledger
from moorage_operator.ledger import LedgerRunner

pytestmark = pytest.mark.unit


@contextlib.asynccontextmanager
async def deaf(folder: Path) -> AsyncIterator[tuple[LedgerRunner, asyncio.Event]]:
    """The ledger at a server that hears commands and never answers; set once it heard one."""
    heard, tasks = asyncio.Event(), set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        while await reader.read(4096):
            heard.set()
        writer.close()

    server = await asyncio.start_unix_server(serve, folder / "deaf")
    runner = ledger.at(f"unix://{folder / 'deaf'}", "x")
    try:
        async with asyncio.timeout(20):
            yield runner, heard
            await runner.aclose()
    finally:
        server.close()
        await asyncio.gather(*tasks)


async def test_a_read_that_is_cancelled_ends_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "CALL_SECONDS", 1.0)  # for the close, which waits for what is in flight
    async with deaf(tmp_path) as (runner, heard):
        reading = asyncio.ensure_future(runner.read("PING"))
        await heard.wait()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading


async def test_a_server_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "CALL_SECONDS", 0.05)
    async with deaf(tmp_path) as (runner, _):
        with pytest.raises(Unreachable):
            await runner.read("PING")


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
