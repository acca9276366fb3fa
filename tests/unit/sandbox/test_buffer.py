"""What a new owner can still get, and when the agent has to wait."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage_sandbox.buffer import FrameBuffer
from moorage_sandbox.config import Limits

pytestmark = pytest.mark.unit
LIMITS = Limits(buffer=1000, window=300, undelivered=200)


def filled(count: int, *, size: int = 100, owned: bool = True) -> FrameBuffer:
    buffer = FrameBuffer(LIMITS)
    if owned:
        buffer.rewind(0)
    for _ in range(count):
        buffer.append(b"x" * size)
        if owned:
            buffer.next()
    return buffer


def test_an_owner_that_keeps_up_never_makes_the_agent_wait_and_memory_stays_bounded():
    buffer = filled(500)
    assert not buffer.full
    assert buffer.held <= 1000


def test_an_owner_that_does_not_take_makes_the_agent_wait():
    buffer = FrameBuffer(LIMITS)
    buffer.rewind(0)
    for _ in range(2):
        assert not buffer.full
        buffer.append(b"x" * 100)
    assert buffer.full
    buffer.next()
    assert not buffer.full


def test_without_owner_nothing_undelivered_is_dropped():
    buffer = FrameBuffer(LIMITS)
    while not buffer.full:
        buffer.append(b"x" * 100)
    assert buffer.last == 10
    assert buffer.rewind(0)


def test_what_a_lost_owner_was_sent_last_is_still_there():
    buffer = filled(10)
    buffer.owned = False
    while not buffer.full:
        buffer.append(b"x" * 100)
    assert not buffer.rewind(0)
    assert buffer.rewind(7)  # the last 300 bytes it was sent
    assert [len(buffer.next() or b"") for _ in range(3)] == [100] * 3


def test_an_owner_beyond_the_end_gets_nothing():
    assert not filled(3).rewind(4)


def test_a_cleared_buffer_still_gives_its_end():
    buffer = filled(3)
    buffer.clear()
    assert not buffer.rewind(2)
    assert buffer.rewind(3)
    assert buffer.next() is None


@given(st.lists(st.tuples(st.sampled_from("atlr"), st.integers(1, 400)), max_size=80))
def test_whatever_happens_frames_come_in_order_without_gap_or_copy(steps):
    buffer = FrameBuffer(LIMITS)
    at = 0
    for step, number in steps:
        if step == "a" and not buffer.full:
            buffer.append(b"%d " % (buffer.last + 1) + b"x" * number)
        elif step == "t" and buffer.owned and (line := buffer.next()) is not None:
            at += 1
            assert line.startswith(b"%d " % at)
        elif step == "l":
            buffer.owned = False
        elif step == "r" and buffer.rewind(max(0, at - number % 3)):
            at = buffer.sent
        assert buffer.held <= LIMITS.buffer + 500
        assert buffer.held == sum(len(line) for line in buffer._lines)
