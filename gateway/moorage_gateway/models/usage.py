"""What an answer of a model tells of itself: tokens, the model that answered, how it ended. Layer: pure; never its words.

Read once the answer is there, streamed or not: no piece waits for it. Where it stands:

    Responses          `usage` of the object; streamed, of the one in `response.completed`
    chat completions   `usage`; streamed, of the last chunk, where the server was asked for it (`stream_options.include_usage`)
    Anthropic          `usage`; streamed, of `message_start` and again, cumulated, of `message_delta`

`input` counts every token that went in, those read from or written to a cache too: OpenAI counts so, Anthropic counts them apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

FIRST, LAST = 2, 6
"""Events at either end of a stream that are read: names stand in the first, counts and ends in the last."""
LARGE = 4 * 2**20
"""Bytes of one JSON text; a larger one is not read, as it would hold up everyone else."""
MOST = 2**53
_LINE = re.compile(rb"^data: ?(\{[^\n]*\})\r?$", re.MULTILINE)
_SHORT = re.compile(r"[\x21-\x7e]{1,128}\Z")
_PARTS = ("response", "message")


@dataclass(frozen=True)
class Usage:
    """Tokens. `cached` of the `input` were read from the provider's cache."""

    input: int
    output: int
    cached: int = 0

    @property
    def total(self) -> int:
        """What is paid for."""
        return self.input + self.output


@dataclass
class Told:
    """What an answer tells; empty and None where it does not."""

    usage: Usage | None = None
    model: str = ""
    id: str = ""
    finish: list[str] = field(default_factory=list)

    @property
    def what(self) -> dict[str, str]:
        """For the journal's entry."""
        found = {"answered_model": self.model, "answer_id": self.id, "finish": ",".join(self.finish)}
        if self.usage is not None:
            found |= {
                "input_tokens": str(self.usage.input),
                "output_tokens": str(self.usage.output),
                "cached_tokens": str(self.usage.cached),
            }
        return {name: value for name, value in found.items() if value}

    @property
    def sums(self) -> dict[str, int]:
        """What a turn adds up."""
        if self.usage is None:
            return {}
        sums = {
            "input_tokens": self.usage.input,
            "output_tokens": self.usage.output,
            "cached_tokens": self.usage.cached,
        }
        return {name: count for name, count in sums.items() if count}


def told(body: bytes, *, streams: bool) -> Told:
    """Of a whole answer, or of what came of one."""
    found, counts = Told(), dict[str, Any]()
    for value in _events(body) if streams else _whole(body):
        for part in (value, *(value.get(name) for name in _PARTS)):
            if isinstance(part, dict):
                _take(found, part)
                if isinstance(part.get("usage"), dict):
                    counts |= {name: count for name, count in part["usage"].items() if count is not None}
        delta = value.get("delta")  # Anthropic's message_delta
        if isinstance(delta, dict) and isinstance(delta.get("stop_reason"), str):
            _finish(found, delta["stop_reason"])
    found.usage = _usage(counts)
    return found


def _whole(body: bytes) -> Iterator[dict[str, Any]]:
    value = _parsed(body)
    if value is not None:
        yield value


def _events(body: bytes) -> Iterator[dict[str, Any]]:
    """The first and the last events of a stream."""
    start = 0
    for _ in range(FIRST):
        found = _LINE.search(body, start)
        if found is None:
            return
        start = found.end()
        if (value := _parsed(found[1])) is not None:
            yield value
    end, last = len(body), list[bytes]()
    while end > start and len(last) < LAST:
        begins = body.rfind(b"data:", start, end)
        if begins < 0:
            break
        if body[begins - 1 : begins] == b"\n" and (found := _LINE.match(body, begins)) is not None:
            last.append(found[1])
        end = begins
    for text in reversed(last):
        if (value := _parsed(text)) is not None:
            yield value


def _parsed(text: bytes) -> dict[str, Any] | None:
    if len(text) > LARGE:
        return None
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def _take(found: Told, part: dict[str, Any]) -> None:
    """Names and ends; never texts."""
    for name in ("id", "model"):
        value = part.get(name)
        if isinstance(value, str) and _SHORT.match(value) and not getattr(found, name):
            setattr(found, name, value)
    choices = part.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict):
            _finish(found, choice.get("finish_reason"))
    _finish(found, part.get("stop_reason"))
    if part.get("object") == "response" and part.get("status") in ("completed", "failed", "incomplete"):
        _finish(found, part["status"])


def _finish(found: Told, reason: Any) -> None:
    if isinstance(reason, str) and _SHORT.match(reason) and len(found.finish) < 8:
        found.finish.append(reason[:32])


def _usage(counts: dict[str, Any]) -> Usage | None:
    """Of whichever protocol's counts; None where they are none."""
    chat = "prompt_tokens" in counts
    given = _count(counts.get("prompt_tokens" if chat else "input_tokens"))
    output = _count(counts.get("completion_tokens" if chat else "output_tokens"))
    if given is None and output is None:
        return None
    details = counts.get("prompt_tokens_details" if chat else "input_tokens_details")
    cached = _count(details.get("cached_tokens")) if isinstance(details, dict) else None
    apart = _count(counts.get("cache_read_input_tokens"))
    written = _count(counts.get("cache_creation_input_tokens"))
    whole = (given or 0) + (apart or 0) + (written or 0)
    return Usage(whole, output or 0, min(whole, (cached or 0) + (apart or 0)))


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MOST else None
