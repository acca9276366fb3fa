"""The scripted sandbox says what a shim says: its frames are read by the gateway's own parser, its answers have the stated size."""

from __future__ import annotations

import json

import pytest

from bench import scripted_sandbox
from moorage_api.wire.frames import FrameParser
from moorage_api.wire.shim import Acknowledged, End, Source

pytestmark = pytest.mark.unit


def test_a_turn_is_acknowledged_has_its_deltas_in_pieces_of_their_own_and_ends_done() -> None:
    pieces = list(scripted_sandbox.turn(fence=7, deltas=3))
    frames = [frame for piece in pieces for frame in FrameParser().feed(piece)]
    assert frames[0] == Acknowledged(7) and isinstance(frames[-1], End) and frames[-1].kind == "done"
    sources = [frame for frame in frames if isinstance(frame, Source)]
    assert [source.src for source in sources] == list(range(1, len(sources) + 1))
    events = [json.loads(source.data) for source in sources]
    deltas = [event["delta"] for event in events if event["type"] == "response.output_text.delta"]
    assert len(deltas) == 3 and len(pieces) == 5
    assert events[-1]["response"]["output"][0]["content"][0]["text"] == "".join(deltas)


def test_the_short_answer_has_270_bytes_of_json() -> None:
    head, _, body = scripted_sandbox.json_answer().partition(b"\r\n\r\n")
    assert len(body) == scripted_sandbox.ANSWER_BYTES == 270
    assert b"content-length: 270" in head and json.loads(body)["id"] == "r"


def test_ticks_carry_the_time_at_which_they_were_made() -> None:
    made = [json.loads(tick.removeprefix(b"data: ")) for tick in scripted_sandbox.ticks(3)]
    times = [int(tick["at"].strip("@")) for tick in made]
    assert [tick["tick"] for tick in made] == [0, 1, 2] and times == sorted(times)
