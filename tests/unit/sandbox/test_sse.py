"""The agent's events, however they are written and cut."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage_api.wire.frames import MAX_EVENT
from moorage_sandbox.sse import Event, SseParser, TooLarge, from_response

pytestmark = pytest.mark.unit


def events(*chunks: bytes) -> tuple[list[Event], list[str]]:
    said: list[str] = []
    parser = SseParser(said.append)
    return [event for chunk in chunks for event in parser.feed(chunk)], said


@pytest.mark.parametrize(
    ("raw", "data"),
    [
        (b'data: {"type":"a"}\n\n', b'{"type":"a"}'),
        (b'data:{"type":"a"}\r\n\r\n', b'{"type":"a"}'),
        (b'\xef\xbb\xbfevent: a\nid: 4\nretry: 1\ndata: {"type":"a"}\n\n', b'{"type":"a"}'),
        (b': comment\n\ndata: {"type":\ndata: "a"}\n\n', b'{"type":"a"}'),
        (b'event: a\ndata: {"x":1}\n\n', b'{"x":1,"type":"a"}'),
        (b'data: {"x":1}\n\n', b'{"x":1,"type":"message"}'),
    ],
)
def test_an_event_is_read_in_every_way_it_may_be_written(raw, data):
    found, said = events(raw)
    assert [event.data for event in found] == [data]
    assert said == []


@pytest.mark.parametrize(
    "raw", [b"data: [DONE]\n\n", b": ping\n\n", b"event: a\n\n", b"\n\n\n", b'data: {"type":"a"}\n']
)
def test_what_is_no_event_gives_none(raw):
    assert events(raw) == ([], [])


@pytest.mark.parametrize(
    "raw", [b"data: nonsense\n\n", b"data: 5\n\n", b"data: {\n\n", b'data: {"a":NaN}\n\n', b"data: \xff\n\n"]
)
def test_what_is_no_json_object_is_passed_over_and_told(raw):
    found, said = events(raw, b'data: {"type":"error"}\n\n')
    assert [event.terminal for event in found] == [True]
    assert len(said) == 1


@given(st.lists(st.integers(1, 30), min_size=1))
def test_the_cutting_of_the_stream_changes_nothing(cuts):
    raw = b"".join(b"event: t\r\ndata: " + json.dumps({"type": "t", "n": n}).encode() + b"\r\n\r\n" for n in range(12))
    chunks, at = [], 0
    for turn in range(len(raw)):
        if at >= len(raw):
            break
        size = cuts[turn % len(cuts)]
        chunks.append(raw[at : at + size])
        at += size
    found, said = events(*chunks)
    assert [json.loads(event.data)["n"] for event in found] == list(range(12))
    assert said == []


@pytest.mark.parametrize("line", [b"x", b"data: x", b"data: x\n"])
def test_an_endless_event_is_refused_before_it_fills_memory(line):
    parser = SseParser(lambda said: None)
    piece = line * (65536 // len(line))
    with pytest.raises(TooLarge):
        for _ in range(2 * MAX_EVENT // 65536 * len(line)):
            parser.feed(piece)


@pytest.mark.parametrize("body", [b"", b"[]", b"x", b'{"status":"queued"}'])
def test_an_answer_that_is_no_ended_response_gives_no_event(body):
    assert from_response(body) is None
