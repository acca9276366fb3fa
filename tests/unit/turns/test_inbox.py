"""Frames read ahead of the log: bounded, in order, and nobody waits for ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from fakes.frames import Scripted
from moorage_api.wire.shim import Acknowledged, End, Frame, Source
from moorage_gateway.turns.consuming import Inbox
from moorage_gateway.upstream import ShimLost

pytestmark = pytest.mark.unit


class Stream:
    """A source of `count` frames of `size` bytes; counts what was taken from it."""

    def __init__(self, count: int, size: int = 10, *, fault: Exception | None = None, end: bool = True) -> None:
        self.taken = 0
        self._count, self._size, self._fault, self._end = count, size, fault, end

    async def frames(self) -> AsyncGenerator[Frame, None]:
        yield Acknowledged(1)
        for number in range(1, self._count + 1):
            self.taken = number
            yield Source(number, b"x" * self._size)
        if self._fault is not None:
            raise self._fault
        if self._end:
            yield End("done")


async def drained(inbox: Inbox) -> list[Frame]:
    """Everything, to the end."""
    found: list[Frame] = []
    while (frames := await inbox.take()) is not None:
        found += frames
    return found


async def test_frames_arrive_in_order_and_the_end_last() -> None:
    inbox, source = Inbox(), Stream(50)
    pump = asyncio.ensure_future(inbox.pump(Scripted(source.frames())))
    found = await drained(inbox)
    await pump
    assert found == [Acknowledged(1), *(Source(n, b"x" * 10) for n in range(1, 51)), End("done")]


async def test_a_full_inbox_stops_reading_until_it_is_emptied() -> None:
    inbox, source = Inbox(limit=100), Stream(1_000)
    pump = asyncio.ensure_future(inbox.pump(Scripted(source.frames())))
    for _ in range(50):
        await asyncio.sleep(0)
    assert source.taken == 10  # a hundred bytes
    first = await inbox.take()
    assert first is not None
    assert len(first) == 11
    for _ in range(50):
        await asyncio.sleep(0)
    assert source.taken == 20
    assert len(await drained(inbox)) == 1_002 - 11
    await pump


async def test_what_arrives_together_is_taken_together() -> None:
    inbox, source = Inbox(), Stream(20)
    await inbox.pump(Scripted(source.frames()))
    assert len(await inbox.take() or []) == 22
    assert await inbox.take() is None


async def test_a_broken_source_is_told_after_the_frames_before_it() -> None:
    inbox = Inbox()
    await inbox.pump(Scripted(Stream(3, fault=ShimLost("the connection broke")).frames()))
    assert len(await inbox.take() or []) == 4
    with pytest.raises(ShimLost):
        await inbox.take()


async def test_a_source_without_an_end_ends_the_inbox() -> None:
    inbox = Inbox()
    await inbox.pump(Scripted(Stream(0, end=False).frames()))
    assert await inbox.take() == [Acknowledged(1)]
    assert await inbox.take() is None


async def test_a_wake_returns_a_waiting_take_with_nothing() -> None:
    inbox = Inbox()
    waiting = asyncio.ensure_future(inbox.take())
    await asyncio.sleep(0)
    assert not waiting.done()
    inbox.wake()
    assert await asyncio.wait_for(waiting, 1.0) == []
    again = asyncio.ensure_future(inbox.take())
    await asyncio.sleep(0)
    assert not again.done()
    again.cancel()
    await asyncio.gather(again, return_exceptions=True)


async def test_nothing_after_the_end_is_read() -> None:
    async def talkative() -> AsyncGenerator[Frame, None]:
        yield End("done")
        raise AssertionError("read past the end")

    inbox = Inbox()
    await inbox.pump(Scripted(talkative()))
    assert await inbox.take() == [End("done")]


class Slow:
    """A first choice that takes nothing until it is told to."""

    def __init__(self) -> None:
        self.open = False
        self.took: list[Frame] = []

    def offer(self, frames: list[Frame]) -> bool:
        if self.open:
            self.took += frames
        return self.open


async def waiting(inbox: Inbox, first: Slow, count: int) -> asyncio.Task[None]:
    """A pump that has brought `count` frames, which `first` did not take, and brings no more."""
    inbox.first = first.offer

    async def frames() -> AsyncGenerator[Frame, None]:
        for number in range(1, count + 1):
            yield Source(number, b"x")
        await asyncio.Event().wait()

    pump = asyncio.ensure_future(inbox.pump(Scripted(frames())))
    for _ in range(5):
        await asyncio.sleep(0)
    return pump


async def test_what_came_while_the_first_choice_was_shut_is_handed_over_to_it() -> None:
    inbox, first = Inbox(), Slow()
    pump = await waiting(inbox, first, 3)
    inbox.hand_over()
    assert first.took == []
    first.open = True
    inbox.hand_over()
    assert first.took == [Source(n, b"x") for n in (1, 2, 3)]
    taking = asyncio.ensure_future(inbox.take())
    for _ in range(5):
        await asyncio.sleep(0)
    assert not taking.done(), "nothing is left to take"
    pump.cancel()
    await asyncio.gather(pump, return_exceptions=True)
    assert await asyncio.wait_for(taking, 2) is None


async def test_a_wake_is_not_lost_in_handing_over() -> None:
    inbox, first = Inbox(), Slow()
    pump = await waiting(inbox, first, 1)
    first.open = True
    inbox.wake()
    inbox.hand_over()
    assert first.took == [Source(1, b"x")]
    assert await asyncio.wait_for(inbox.take(), 2) == []
    pump.cancel()
    await asyncio.gather(pump, return_exceptions=True)
