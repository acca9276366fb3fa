"""What the tests of this folder share: a template, agents' streams, a driver of attempts, and an independent checker of streams.

`check_stream` is written from protocols.md §1.4 alone and imports nothing of what it checks.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from moorage_gateway.turns.normalise import Finish, Normaliser, Outcome, Template, created_event

Event = dict[str, Any]

TEMPLATE = Template(
    response_id="caresp_0123456789abcdef00" + "A" * 32,
    created_at=1_790_000_000,
    model="echo",
    agent="echo",
    revision="abc123abc123",
    session_id="session-1",
    body={"input": "hi", "instructions": "be brief", "metadata": {"k": "v"}},
)

_FAMILIES = {
    "response.content_part": ("content", "content_index"),
    "response.reasoning_summary_part": ("summary", "summary_index"),
}
_PART_TEXTS = {
    "response.output_text": ("content", "content_index", "text"),
    "response.refusal": ("content", "content_index", "refusal"),
    "response.reasoning_text": ("content", "content_index", "text"),
    "response.reasoning_summary_text": ("summary", "summary_index", "text"),
}
_FIELD_TEXTS = {
    "response.function_call_arguments": "arguments",
    "response.mcp_call_arguments": "arguments",
    "response.custom_tool_call_input": "input",
    "response.code_interpreter_call_code": "code",
}
_BY_CALL = {"function_call", "custom_tool_call", "shell_call", "shell_call_output"}


@dataclass
class _Part:
    shown: dict[str, Any]
    text: str = ""
    text_done: str | None = None
    done: dict[str, Any] | None = None
    annotations: list[Any] = field(default_factory=list)


@dataclass
class _Item:
    added: dict[str, Any]
    parts: dict[str, list[_Part]] = field(default_factory=lambda: {"content": [], "summary": []})
    text: str = ""
    text_done: str | None = None
    done: dict[str, Any] | None = None


def check_stream(events: Sequence[Event], *, ended: bool = True) -> dict[int, dict[str, Any]]:
    """Asserts that `events` is a valid stream from number 0; returns the done items by output index."""
    assert [e["sequence_number"] for e in events] == list(range(len(events)))
    assert events[0]["type"] == "response.created"
    terminals = [e for e in events if e["type"] in ("response.completed", "response.failed", "response.incomplete")]
    assert len(terminals) == (1 if ended else 0)
    if ended:
        assert events[-1] is terminals[0]
    kinds = [e["type"] for e in events]
    assert kinds.count("response.created") == 1
    assert kinds.count("response.in_progress") <= 1
    assert kinds.count("response.queued") <= 1
    lifecycle = {"created", "queued", "in_progress", "completed", "failed", "incomplete"}
    about = [e["response"] for e in events if e["type"].removeprefix("response.") in lifecycle]
    assert {response["id"] for response in about} == {events[0]["response"]["id"]}
    assert not any(e.get("error") for e in events), "the stock client raises on a top-level error"
    if "response.output_item.added" in kinds:
        assert "response.in_progress" in kinds[: kinds.index("response.output_item.added")]
    items: dict[int, _Item] = {}
    for event in events:
        _check_event(event, items)
    done = {index: item.done for index, item in items.items() if item.done is not None}
    identities = [_identity(item) for item in done.values()]
    assert len(set(identities)) == len(identities), "two done items with one identity"
    if ended:
        assert len(done) == len(items), "an item was never done"
        assert events[-1]["response"]["output"] == [done[i] for i in sorted(done)]
    return done


def _identity(item: dict[str, Any]) -> tuple[Any, ...]:
    return (item["type"], None if item["type"] in _BY_CALL else item["id"], item.get("call_id"))


def _check_event(event: Event, items: dict[int, _Item]) -> None:
    kind: str = event["type"]
    if kind == "response.output_item.added":
        item = event["item"]
        assert event["output_index"] == len(items), "output indexes are unique and gapless"
        assert item["id"] and item["type"] and item["status"] not in ("completed", "incomplete", "failed")
        assert item.get("content") in (None, []) or item["type"] not in ("message", "reasoning")
        assert item.get("summary") in (None, [])
        items[event["output_index"]] = _Item(copy.deepcopy(item))
        return
    if "output_index" not in event:
        return
    mine = items[event["output_index"]]
    if kind.startswith("response."):
        assert mine.done is None, f"{kind} after output_item.done"
    if "item_id" in event:
        assert event["item_id"] == mine.added["id"]
    if kind == "response.output_item.done":
        _check_done(event["item"], mine)
        return
    stem, _, verb = kind.rpartition(".")
    if stem in _FAMILIES:
        family, key = _FAMILIES[stem]
        parts = mine.parts[family]
        if verb == "added":
            assert event[key] == len(parts)
            part = event["part"]
            assert not part.get("text") and not part.get("refusal") and not part.get("annotations")
            parts.append(_Part(copy.deepcopy(part)))
        else:
            _check_part_done(event["part"], parts[event[key]])
    elif stem in _PART_TEXTS:
        family, key, name = _PART_TEXTS[stem]
        _check_text(event, verb, name, mine.parts[family][event[key]])
        if stem == "response.output_text":
            assert isinstance(event["logprobs"], list)
            assert mine.added["type"] == "message"
    elif stem in _FIELD_TEXTS:
        _check_text(event, verb, _FIELD_TEXTS[stem], mine)
    elif kind == "response.output_text.annotation.added":
        part = mine.parts["content"][event["content_index"]]
        assert part.done is None and event["annotation_index"] == len(part.annotations)
        part.annotations.append(event["annotation"])


def _check_text(event: Event, verb: str, name: str, where: _Part | _Item) -> None:
    assert where.text_done is None, "text after its done"
    if verb == "delta":
        assert event["delta"], "an empty delta says nothing"
        where.text += event["delta"]
    else:
        assert event[name] == where.text
        where.text_done = event[name]


def _check_part_done(part: dict[str, Any], mine: _Part) -> None:
    assert mine.done is None
    assert part["type"] == mine.shown["type"]
    if part["type"] in ("output_text", "refusal", "reasoning_text", "summary_text"):
        assert mine.text_done is not None, "content_part.done before its text is done"
        assert part["refusal" if part["type"] == "refusal" else "text"] == mine.text
    if part["type"] == "output_text":
        assert part["annotations"] == mine.annotations
        assert isinstance(part["logprobs"], list)
    mine.done = part


def _check_done(item: dict[str, Any], mine: _Item) -> None:
    assert _identity(item) == _identity(mine.added)
    assert item["id"] == mine.added["id"]
    assert item["status"] in ("completed", "incomplete", "failed")
    for family in ("content", "summary"):
        if item["type"] in ("message", "reasoning") or mine.parts[family]:
            assert (item.get(family) or []) == [part.done for part in mine.parts[family]]
    for stem, name in _FIELD_TEXTS.items():
        if item["type"] == stem.removeprefix("response.").removesuffix(f"_{name}"):
            assert mine.text_done is not None
            assert item[name] == mine.text
    mine.done = item


def message(*texts: str, source_id: str = "m1", index: int = 0, chunk: int = 4, **more: Any) -> list[Event]:
    """A message with one output_text part a text, streamed in chunks, as a well-behaved agent sends it."""
    item = {"type": "message", "id": source_id, "role": "assistant", "status": "in_progress", "content": [], **more}
    events: list[Event] = [{"type": "response.output_item.added", "output_index": index, "item": item}]
    where = {"item_id": source_id, "output_index": index}
    content = []
    for number, text in enumerate(texts):
        at = {**where, "content_index": number}
        part = {"type": "output_text", "text": "", "annotations": []}
        events.append({"type": "response.content_part.added", **at, "part": part})
        events += [{"type": "response.output_text.delta", **at, "delta": piece} for piece in pieces(text, chunk)]
        events.append({"type": "response.output_text.done", **at, "text": text})
        content.append({"type": "output_text", "text": text, "annotations": []})
        events.append({"type": "response.content_part.done", **at, "part": content[-1]})
    done = {**item, "status": "completed", "content": content}
    events.append({"type": "response.output_item.done", "output_index": index, "item": done})
    return events


def call(
    arguments: str, *, call_id: str = "c1", name: str = "search", source_id: str = "f1", index: int = 0, chunk: int = 4
) -> list[Event]:
    """A function call with its arguments streamed."""
    item = {"type": "function_call", "id": source_id, "call_id": call_id, "name": name, "arguments": ""}
    where = {"item_id": source_id, "output_index": index}
    done = {**item, "arguments": arguments, "status": "completed"}
    return [
        {"type": "response.output_item.added", "output_index": index, "item": {**item, "status": "in_progress"}},
        *({"type": "response.function_call_arguments.delta", **where, "delta": p} for p in pieces(arguments, chunk)),
        {"type": "response.function_call_arguments.done", **where, "arguments": arguments},
        {"type": "response.output_item.done", "output_index": index, "item": done},
    ]


def pieces(text: str, chunk: int) -> list[str]:
    """`text` in chunks of a size."""
    return [text[i : i + chunk] for i in range(0, len(text), chunk)]


def began() -> list[Event]:
    """How an agent's stream begins."""
    body = {"id": "resp_agent", "object": "response", "status": "in_progress", "output": []}
    return [{"type": "response.created", "response": body}, {"type": "response.in_progress", "response": body}]


def completed(usage: dict[str, Any] | None = None, output: list[Any] | None = None, **more: Any) -> Event:
    """How it ends."""
    body = {"id": "resp_agent", "object": "response", "status": "completed", "output": output or [], **more}
    return {"type": "response.completed", "response": body | ({"usage": usage} if usage else {})}


@dataclass
class Turn:
    """The log of one turn, attempt after attempt, as the engine keeps it."""

    log: list[Event] = field(default_factory=lambda: created_event(TEMPLATE, queued=False))
    last: Normaliser | None = None

    def attempt(self, sources: Iterable[Event], *, keep: int | None = None) -> list[Event]:
        """Feeds an attempt; logs what it gives (only the first `keep` events of it) and returns that."""
        baseline = copy.deepcopy(self.log)
        self.last = Normaliser(TEMPLATE, baseline, continues=len(self.log) > 2)
        made = [event for source in copy.deepcopy(list(sources)) for event in self.last.feed(source)]
        made = made if keep is None else made[:keep]
        self.log += copy.deepcopy(made)
        return made

    def finish(self, outcome: Outcome | None = None) -> Finish:
        """Ends the turn with the agent's outcome, or the given one."""
        assert self.last is not None
        ended = outcome or self.last.outcome
        assert ended is not None
        finish = self.last.finish(ended, completed_at=TEMPLATE.created_at + 5)
        self.log += [*finish.events, finish.terminal]
        return finish

    def run(self, sources: Iterable[Event]) -> Finish:
        """One attempt to its end, checked."""
        self.attempt(sources)
        finish = self.finish()
        check_stream(self.log)
        return finish


def kinds(events: Iterable[Event]) -> list[str]:
    """Types, without `response.`, for tables of what is expected."""
    return [event["type"].removeprefix("response.") for event in events]


def texts(output: Iterable[dict[str, Any]]) -> list[tuple[str, str]]:
    """(status, whole text) of each message."""
    return [(item["status"], "".join(part.get("text", "") for part in item["content"])) for item in output]
