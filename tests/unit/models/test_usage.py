"""Tokens and names are read off whichever protocol's answer, whole, streamed or broken off; never its words."""

from __future__ import annotations

import json
from typing import Any

import pytest

from moorage_gateway.models.streams import WithoutCounts
from moorage_gateway.models.usage import FIRST, LAST, Usage, told

pytestmark = pytest.mark.unit

CHAT = {"prompt_tokens": 11, "completion_tokens": 4, "total_tokens": 15, "prompt_tokens_details": {"cached_tokens": 3}}
ANTHROPIC = {"input_tokens": 6, "cache_read_input_tokens": 3, "cache_creation_input_tokens": 2, "output_tokens": 1}
WANTED = Usage(11, 4, 3)


def event(value: Any, name: str = "") -> bytes:
    data = value if isinstance(value, str) else json.dumps(value)
    return (f"event: {name}\n" if name else "").encode() + f"data: {data}\n\n".encode()


def chunk(text: str, *, finish: str | None = None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return {"id": "chatcmpl-1", "model": "gpt-5-2026", "choices": [choice], **more}


def chat_stream(*, counts: bool = True, texts: int = 20) -> bytes:
    parts = [event(chunk(f"w{n} ", usage=None)) for n in range(texts)]
    parts.append(event(chunk("", finish="stop")))
    if counts:
        parts.append(event({"id": "chatcmpl-1", "model": "gpt-5-2026", "choices": [], "usage": CHAT}))
    return b"".join(parts) + event("[DONE]")


def messages_stream(*, upto: int = 10_000) -> bytes:
    message = {"id": "msg_1", "type": "message", "model": "claude-x", "stop_reason": None, "usage": ANTHROPIC}
    delta = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 4}}
    parts = [event({"type": "message_start", "message": message}, "message_start")]
    texts = [{"type": "content_block_delta", "delta": {"type": "text_delta", "text": f"w{n}"}} for n in range(30)]
    parts += [event(each, "content_block_delta") for each in texts]
    parts += [event(delta, "message_delta"), event({"type": "message_stop"}, "message_stop")]
    return b"".join(parts[:upto])


def responses(status: str = "completed") -> dict[str, Any]:
    usage = {"input_tokens": 11, "output_tokens": 4, "input_tokens_details": {"cached_tokens": 3}}
    return {"object": "response", "id": "resp_1", "model": "gpt-5-2026", "status": status, "usage": usage}


@pytest.mark.parametrize(
    ("body", "streams", "who", "finish"),
    [
        (json.dumps({"id": "c", "model": "m", "choices": [{"finish_reason": "length"}], "usage": CHAT}).encode(), False, "m", "length"),
        (json.dumps({"model": "m", "stop_reason": "end_turn", "usage": ANTHROPIC | {"output_tokens": 4}}).encode(), False, "m", "end_turn"),
        (json.dumps(responses()).encode(), False, "gpt-5-2026", "completed"),
        (chat_stream(), True, "gpt-5-2026", "stop"),
        (chat_stream().replace(b"\n", b"\r\n"), True, "gpt-5-2026", "stop"),
        (messages_stream(), True, "claude-x", "end_turn"),
        (
            event({"type": "response.created", "response": responses("in_progress") | {"usage": None}})
            + b"".join(event({"type": "response.output_text.delta", "delta": "w"}) for _ in range(9))
            + event({"type": "response.completed", "response": responses()}, "response.completed"),
            True, "gpt-5-2026", "completed",
        ),
    ],
)  # fmt: skip
def test_every_protocol_tells_the_same(body: bytes, streams: bool, who: str, finish: str) -> None:
    found = told(body, streams=streams)
    assert (found.usage, found.model, found.finish) == (WANTED, who, [finish])
    assert found.sums == {"input_tokens": 11, "output_tokens": 4, "cached_tokens": 3}


def test_what_broke_off_tells_what_came() -> None:
    assert told(messages_stream(upto=9), streams=True).usage == Usage(11, 1, 3)
    assert told(messages_stream()[:40], streams=True).usage is None
    assert told(chat_stream(counts=False), streams=True).usage is None
    assert told(chat_stream(texts=1), streams=True).usage == WANTED, "both ends may meet"


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"data: {", b"data: [1]\n\n", b'{"usage": 3, "id": 4, "model": [], "choices": 3}', b"\xff" * 99,
     b'{"usage": {"prompt_tokens": -1, "completion_tokens": true}}', b'{"choices": [3, {"finish_reason": 4}]}'],
)  # fmt: skip
def test_what_is_nothing_tells_nothing(body: bytes) -> None:
    for streams in (True, False):
        found = told(body, streams=streams)
        assert (found.usage, found.what) == (None, {})


def test_words_of_an_answer_are_not_told() -> None:
    secret = "sk-secret words"
    body = json.dumps(
        {"id": secret, "model": secret, "choices": [{"finish_reason": secret, "message": {"content": secret}}]}
    )
    assert told(body.encode(), streams=False).what == {}
    forged = json.dumps(
        {"content": [{"type": "tool_use", "input": {"usage": {"input_tokens": 9}}}], "usage": ANTHROPIC}
    )
    assert told(forged.encode(), streams=False).usage == Usage(11, 1, 3)


def test_only_the_ends_of_a_stream_are_read() -> None:
    many = chat_stream(texts=5_000)
    assert FIRST + LAST < 5_000 and told(many, streams=True).usage == WANTED


@pytest.mark.parametrize("size", [1, 7, 50, 100_000])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_the_event_that_was_not_asked_for_is_left_out_and_nothing_else(size: int, end: bytes) -> None:
    whole, wanted = (chat_stream(counts=each).replace(b"\n", end) for each in (True, False))
    hides, got = WithoutCounts(), b""
    for at in range(0, len(whole), size):
        got += hides.feed(whole[at : at + size])
    assert got + hides.end() == wanted


def test_pieces_pass_as_they_came() -> None:
    hides = WithoutCounts()
    pieces = [event(chunk(f"w{n}")) for n in range(5)]
    assert [hides.feed(each) for each in pieces] == pieces
    assert hides.feed(b"data: half") == b"" and hides.end() == b"data: half"
