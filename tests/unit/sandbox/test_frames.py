"""The frame stream survives any cutting of its bytes, and nothing else passes for it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage_api.wire import frames
from moorage_api.wire.shim import Acknowledged, End, Source

pytestmark = pytest.mark.unit

STREAM = [
    (frames.acknowledged(7), Acknowledged(7)),
    (frames.source(1, b'{"type":"response.created"}'), Source(1, b'{"type":"response.created"}')),
    (frames.KEEPALIVE, None),
    (frames.source(2, '{"t":"é \u2028"}'.encode()), Source(2, '{"t":"é \u2028"}'.encode())),
    (
        frames.end(End("exit", "agent process ended", ["a\nb"], status=3)),
        End("exit", "agent process ended", ["a\nb"], status=3),
    ),
]


@given(st.integers(1, 60))
def test_frames_come_through_however_they_are_cut(size):
    wire = b"".join(line for line, _ in STREAM)
    parser, found = frames.FrameParser(), []
    for at in range(0, len(wire), size):
        found += parser.feed(wire[at : at + size])
    assert found == [frame for _, frame in STREAM if frame is not None]


@pytest.mark.parametrize(
    "line",
    [b"\n", b"x\n", b"1\n", b"-1 {}\n", b"ok {}\n", b"ok 5\n", b"end {\n", b'end {"k":1}\n', b"9" * 5000 + b" {}\n"],
)
def test_a_line_that_is_no_frame_is_refused(line):
    with pytest.raises(frames.FrameError):
        frames.FrameParser().feed(line)


def test_a_line_without_end_is_refused_before_it_fills_memory():
    parser = frames.FrameParser()
    with pytest.raises(frames.FrameError):
        for _ in range(frames.MAX_LINE // 65536 + 2):
            parser.feed(b"1" * 65536)
