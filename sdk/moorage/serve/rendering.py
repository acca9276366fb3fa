"""Typed events become the events of the Responses API: gapless numbers, every item opened and closed in order.

Layer: agent server, pure; `serve.turns` drives it, one `Rendering` a turn. Order and fields: protocols.md §1.4. Ids are a function of
(response, output index), so an agent that says the same again gives the same stream.

    start  → created, in_progress
    feed   → output_item.added, content_part.added, deltas, their `done` twins, content_part.done, output_item.done
    finish → exactly one of completed, incomplete, failed (`error` before it)
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from moorage import events
from moorage.serve import shapes
from moorage_api import names

Wire = dict[str, Any]


class Rendering:
    """One response while it is told. A `feed` that raises has changed nothing, so the stream can still end well."""

    def __init__(self, response: Wire) -> None:
        self._response = response
        self._number = 0
        self._output: list[Wire] = []
        self._open: _OpenText | None = None
        self._usage = [0, 0, 0, 0]
        self._used = False
        self.ended = False

    @property
    def response(self) -> Wire:
        """The response as it stands: final once `ended`."""
        return {**self._response, "output": list(self._output)}

    def start(self) -> list[Wire]:
        """The two events before any output."""
        return [
            self._event("response.created", response=self.response),
            self._event("response.in_progress", response=self.response),
        ]

    def feed(self, event: events.Event) -> list[Wire]:
        """Wire events for one event of the agent. Raises TypeError or ValueError for what JSON or the protocol cannot hold."""
        match event:
            case events.TextDelta(text) | events.ReasoningDelta(text):
                return self._text(event, _checked(text, "text"))
            case events.ToolCall(call_id, name, args):
                text = args if isinstance(args, str) else _dumps(dict(args))
                body = {"call_id": _checked(call_id, "id"), "name": _checked(name, "name"), "arguments": text}
                return self._whole({"type": "function_call", **body})
            case events.ToolResult(call_id, output):
                text = output if isinstance(output, str) else _dumps(output)
                return self._whole({"type": "function_call_output", "call_id": _checked(call_id, "id"), "output": text})
            case events.Usage():
                counts = (event.input_tokens, event.output_tokens, event.cached_tokens, event.reasoning_tokens)
                self._usage = [total + int(count) for total, count in zip(self._usage, counts, strict=True)]
                self._used = True
                return []
            case events.Item(item):
                return self._whole(_plain(item))
            case events.State() | events.Error() | events.Done():
                return []  # the driver's business: they end or outlive the response
        raise TypeError(f"{type(event).__name__} is not an event")

    def complete(self, now: float, incomplete: str | None = None) -> list[Wire]:
        """The end of an answer; `incomplete` gives the reason of one cut short."""
        told = self._close("completed" if incomplete is None else "incomplete")
        if incomplete is not None:
            self._response["incomplete_details"] = {"reason": incomplete}
        return [*told, self._end("completed" if incomplete is None else "incomplete", now)]

    def fail(self, now: float, code: str, message: str) -> list[Wire]:
        """The end by a fault of the agent: what is open closes `incomplete`, then `error`, then `response.failed`."""
        told = self._close("incomplete")
        told.append(self._event("error", code=code, message=message, param=None))
        self._response["error"] = {"code": code, "message": message}
        return [*told, self._end("failed", now)]

    def cancel(self, now: float) -> list[Wire]:
        """The end by the caller's wish: `response.failed` with status `cancelled`, as hosted agents tell it."""
        return [*self._close("incomplete"), self._end("cancelled", now)]

    def _event(self, kind: str, **fields: Any) -> Wire:
        event = {"type": kind, "sequence_number": self._number, **fields}
        self._number += 1
        return event

    def _end(self, status: str, now: float) -> Wire:
        self._response["status"] = status
        self._response["completed_at"] = int(now) if status == "completed" else None
        self._response["usage"] = shapes.usage(*self._usage) if self._used else None
        self.ended = True
        return self._event(f"response.{'failed' if status == 'cancelled' else status}", response=self.response)

    def _id(self, kind: str) -> str:
        return names.item_id(self._response["id"], len(self._output), names.ITEM_PREFIXES.get(kind, "item"))

    def _text(self, event: events.TextDelta | events.ReasoningDelta, text: str) -> list[Wire]:
        if not text:
            return []
        kind = _Message if isinstance(event, events.TextDelta) else _Reasoning
        told: list[Wire] = []
        if not isinstance(self._open, kind):
            told += self._close("completed")
            self._open = kind(self._id(kind.item_type), len(self._output))
            told += [self._event(name, **fields) for name, fields in self._open.opening()]
        told.append(self._event(f"response.{self._open.text_event}.delta", **self._open.delta(text)))
        return told

    def _close(self, status: str) -> list[Wire]:
        if self._open is None:
            return []
        opened, self._open = self._open, None
        told = [self._event(name, **fields) for name, fields in opened.closing(status)]
        self._output.append(opened.item(status, with_part=True))
        return told

    def _whole(self, item: Wire) -> list[Wire]:
        kind = _checked(item.get("type"), "the type of an item")
        if kind == "message":
            parts = _parts(item.get("content"))
            return [*self._close("completed"), *self._message(item, parts)]
        if kind == "function_call":
            arguments = item.get("arguments", "")
            item = {**item, "arguments": arguments if isinstance(arguments, str) else _dumps(arguments)}
        told = self._close("completed")
        index = len(self._output)
        identity = self._id(kind)
        finished = {**item, "id": identity, "status": item.get("status", "completed")}
        begun = {**finished, "status": "in_progress"}
        where = {"item_id": identity, "output_index": index}
        if kind == "function_call":
            begun["arguments"] = ""
        told.append(self._event("response.output_item.added", output_index=index, item=begun))
        if kind == "function_call" and finished.get("arguments"):
            told.append(self._event("response.function_call_arguments.delta", **where, delta=finished["arguments"]))
        if kind == "function_call":
            done = {"arguments": finished.get("arguments", ""), "name": finished.get("name", "")}
            told.append(self._event("response.function_call_arguments.done", **where, **done))
        told.append(self._event("response.output_item.done", output_index=index, item=finished))
        self._output.append(finished)
        return told

    def _message(self, item: Wire, parts: list[Wire]) -> list[Wire]:
        index = len(self._output)
        identity = self._id("message")
        finished = {**item, "id": identity, "status": "completed", "role": "assistant", "content": parts}
        begun = {**finished, "status": "in_progress", "content": []}
        told = [self._event("response.output_item.added", output_index=index, item=begun)]
        for number, part in enumerate(parts):
            where = {"item_id": identity, "output_index": index, "content_index": number}
            key = "refusal" if part["type"] == "refusal" else "text"
            name = "refusal" if key == "refusal" else "output_text"
            extra: Wire = {} if key == "refusal" else {"logprobs": []}
            told.append(self._event("response.content_part.added", **where, part={**part, key: ""}))
            if part[key]:
                told.append(self._event(f"response.{name}.delta", **where, **extra, delta=part[key]))
            told.append(self._event(f"response.{name}.done", **where, **extra, **{key: part[key]}))
            told.append(self._event("response.content_part.done", **where, part=part))
        told.append(self._event("response.output_item.done", output_index=index, item=finished))
        self._output.append(finished)
        return told


class _OpenText(ABC):
    """An item whose one part still grows."""

    item_type = ""
    text_event = ""

    def __init__(self, identity: str, index: int) -> None:
        self._where = {"item_id": identity, "output_index": index, "content_index": 0}
        self._chunks: list[str] = []

    @abstractmethod
    def _part(self, text: str) -> Wire:
        """The part with what it has come to."""

    @abstractmethod
    def item(self, status: str, *, with_part: bool) -> Wire:
        """The item around it."""

    def _extra(self) -> Wire:
        return {}

    def opening(self) -> list[tuple[str, Wire]]:
        index = self._where["output_index"]
        return [
            ("response.output_item.added", {"output_index": index, "item": self.item("in_progress", with_part=False)}),
            ("response.content_part.added", {**self._where, "part": self._part("")}),
        ]

    def delta(self, text: str) -> Wire:
        self._chunks.append(text)
        return {**self._where, **self._extra(), "delta": text}

    def closing(self, status: str) -> list[tuple[str, Wire]]:
        text = "".join(self._chunks)
        index = self._where["output_index"]
        return [
            (f"response.{self.text_event}.done", {**self._where, **self._extra(), "text": text}),
            ("response.content_part.done", {**self._where, "part": self._part(text)}),
            ("response.output_item.done", {"output_index": index, "item": self.item(status, with_part=True)}),
        ]

    def _parts(self, with_part: bool) -> list[Wire]:
        return [self._part("".join(self._chunks))] if with_part else []


class _Message(_OpenText):
    item_type = "message"
    text_event = "output_text"

    def _part(self, text: str) -> Wire:
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}

    def _extra(self) -> Wire:
        return {"logprobs": []}

    def item(self, status: str, *, with_part: bool) -> Wire:
        base = {"type": "message", "id": self._where["item_id"], "status": status, "role": "assistant"}
        return {**base, "content": self._parts(with_part)}


class _Reasoning(_OpenText):
    item_type = "reasoning"
    text_event = "reasoning_text"

    def _part(self, text: str) -> Wire:
        return {"type": "reasoning_text", "text": text}

    def item(self, status: str, *, with_part: bool) -> Wire:
        base = {"type": "reasoning", "id": self._where["item_id"], "status": status, "summary": []}
        return {**base, "content": self._parts(with_part)}


def _checked(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{what} must be text, not {type(value).__name__}")
    return value


def _dumps(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _plain(item: Mapping[str, Any]) -> Wire:
    """A deep copy that JSON can certainly hold, and that the agent cannot change afterwards."""
    copied: Wire = json.loads(_dumps(dict(item)))
    return copied


def _parts(content: object) -> list[Wire]:
    if isinstance(content, str):
        content = [{"type": "output_text", "text": content}]
    if not isinstance(content, list):
        raise TypeError("the content of a message must be text or a list of parts")
    return [_part(part) for part in content]


def _part(part: object) -> Wire:
    if not isinstance(part, dict):
        raise TypeError("a content part must be an object")
    if part.get("type") == "refusal":
        return {**part, "refusal": _checked(part.get("refusal"), "refusal")}
    text = _checked(part.get("text"), "the text of a content part")
    return {"annotations": [], "logprobs": [], **part, "type": "output_text", "text": text}
