"""What a provider's next look goes over, and when it is due."""

from __future__ import annotations

import asyncio

import pytest

from moorage_api.provider.looks import Looks

pytestmark = pytest.mark.unit

LONG = 600.0


async def due(looks: Looks) -> bool:
    """Whether a look is due at once."""
    task = asyncio.ensure_future(looks.due())
    for _ in range(5):
        await asyncio.sleep(0)
    found = task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return found


async def test_the_first_look_is_at_everything_and_the_next_is_not_due() -> None:
    looks = Looks(LONG)
    assert looks.take() is None
    assert not await due(looks)


async def test_what_single_agents_ask_for_is_gathered_and_taken_once() -> None:
    looks = Looks(LONG)
    looks.take()
    looks.at("dev", "a")
    looks.at("dev", "b")
    looks.at("dev", "a")
    assert await due(looks)
    assert looks.take() == {("dev", "a"), ("dev", "b")}
    assert not await due(looks)


async def test_whoever_asks_for_everything_gets_it_whatever_others_ask() -> None:
    looks = Looks(LONG)
    looks.take()
    looks.at("dev", "a")
    looks.at_all()
    looks.at("dev", "b")
    assert looks.take() is None
    assert not await due(looks)


async def test_what_is_asked_for_during_a_look_is_the_next_ones() -> None:
    looks = Looks(LONG)
    looks.at("dev", "a")
    looks.take()
    looks.at("dev", "b")
    assert await due(looks)
    assert looks.take() == {("dev", "b")}


async def test_single_agents_never_hold_off_the_look_at_everything() -> None:
    looks = Looks(0.0)
    looks.take()
    looks.at("dev", "a")
    assert looks.take() is None
    await asyncio.wait_for(looks.due(), 5)
