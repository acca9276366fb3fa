"""The output of a response as its log tells it: a fold over logged events into items, parts and accumulated texts.

Layer: pure. The writer folds every event it makes, the normaliser folds the log it starts from, reads of a running turn fold the
whole log: one fold, so what is in memory is always what the log says. Events come from our own log and are trusted.

The *line* is the list of output indexes a new attempt is compared with. It is read off the log alone:

    output_item.added without `supersedes`       its index is appended
    output_item.added with `supersedes: [i, …]`  takes the place of i; all of `supersedes` leave the line
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from moorage_gateway.turns import items
from moorage_gateway.turns.items import CONTENT, FIELD, SUMMARY, Event, Text

LIFECYCLE = frozenset({"response.created", "response.queued", "response.in_progress"})
ENDS = frozenset({"response.completed", "response.failed", "response.incomplete"})


class Part:
    """One content part, summary part or text field of an item. `text` is None for parts that stream no text."""

    __slots__ = (
        "_chunks",
        "_joined",
        "annotations",
        "closed",
        "family",
        "final",
        "index",
        "kind",
        "length",
        "text",
        "text_done",
    )

    def __init__(self, family: str, index: int, kind: str, text: Text | None, final: dict[str, Any] | None) -> None:
        self.family, self.index, self.kind, self.text = family, index, kind, text
        self.final = final  # the part object as last shown (added, then done); None for a field
        self.annotations: list[Any] = []
        self.length = 0
        self.text_done = text is None
        self.closed = False
        self._chunks: list[str] = []
        self._joined = ""

    def append(self, delta: str) -> None:
        """Adds streamed text; joined only when read, so that a long text costs no more a delta than a short one."""
        self._chunks.append(delta)
        self.length += len(delta)

    @property
    def value(self) -> str:
        """The accumulated text."""
        if self._chunks:
            self._joined += "".join(self._chunks)
            self._chunks.clear()
        return self._joined

    def shown(self) -> dict[str, Any]:
        """The part object with the text and annotations accumulated so far."""
        part = dict(self.final or {"type": self.kind})
        if self.text is not None:
            part[self.text.field] = self.value
        if self.text is items.OUTPUT_TEXT:
            part["annotations"] = list(self.annotations)
        return part


class Item:
    """One output item: as `added`, its parts, and as `done` once it is closed."""

    __slots__ = ("added", "contents", "done", "extras", "field", "id", "index", "kind", "summaries")

    def __init__(self, index: int, added: dict[str, Any]) -> None:
        self.index = index
        self.added = added
        self.id: str = added["id"]
        self.kind: str = added["type"]
        self.contents: list[Part] = []
        self.summaries: list[Part] = []
        text = items.FIELD_TEXTS.get(self.kind)
        self.field = Part(FIELD, 0, text.kind, text, None) if text else None
        self.extras: list[Event] = []
        self.done: dict[str, Any] | None = None

    @property
    def closed(self) -> bool:
        """Whether its `done` is logged: nothing about it may follow."""
        return self.done is not None

    def parts(self, family: str) -> list[Part]:
        """Its parts of a family, in order; a field is a family of one."""
        if family == CONTENT:
            return self.contents
        if family == SUMMARY:
            return self.summaries
        return [self.field] if self.field else []

    def every_part(self) -> list[Part]:
        """All its parts, summaries first (a model thinks before it speaks), the field last."""
        return [*self.summaries, *self.contents, *([self.field] if self.field else [])]

    def shown(self, base: dict[str, Any] | None = None) -> dict[str, Any]:
        """The item as it stands: done as logged, else `base` (default: as added) with what was streamed so far."""
        if self.done is not None:
            return self.done
        item = dict(base if base is not None else self.added)
        item["id"] = self.id
        if self.kind == "message" or self.contents:
            item["content"] = [part.shown() for part in self.contents]
        if self.kind == "reasoning" or self.summaries:
            item["summary"] = [part.shown() for part in self.summaries]
        if self.field is not None and self.field.text is not None:
            item[self.field.text.field] = self.field.value
        if "call_id" in self.added:
            item["call_id"] = self.added["call_id"]
        return item


class Book:
    """The fold. `length` is the next `sequence_number`; `loose` are logged events that belong to no item."""

    def __init__(self, log: Iterable[Event] = ()) -> None:
        self.length = 0
        self.created = False
        self.in_progress = False
        self.end: Event | None = None
        self.items: list[Item] = []
        self.line: list[int] = []
        self.loose: list[Event] = []
        self.call_ids: set[tuple[str, str]] = set()
        for event in log:
            if not self.apply(event):
                self._keep(event)

    def output(self) -> list[dict[str, Any]]:
        """The `output` of the response as it stands, in order of output index."""
        return [item.shown() for item in self.items]

    def apply(self, event: Event) -> bool:
        """Folds one logged event in. False for an event that changes no item: only the next attempt asks for those."""
        self.length += 1
        kind = event["type"]
        if kind in items.DELTAS:
            self._part(event, items.DELTAS[kind][0]).append(event["delta"])
        elif kind == "response.output_item.added":
            self._add(event)
        elif kind in items.DONES:
            self._part(event, items.DONES[kind][0]).text_done = True
        elif kind == "response.output_text.annotation.added":
            self._part(event, items.OUTPUT_TEXT).annotations.append(event.get("annotation"))
        elif kind == "response.output_item.done":
            self.items[event["output_index"]].done = event["item"]
        elif kind in LIFECYCLE or kind in ENDS:
            self._lifecycle(kind, event)
        else:
            return self._apply_part(kind, event)
        return True

    def _apply_part(self, kind: str, event: Event) -> bool:
        for family, (added, done, index_key) in items.PART_EVENTS.items():
            if kind == added:
                part = event["part"]
                here = self.items[event["output_index"]].parts(family)
                here.append(Part(family, event[index_key], part["type"], items.PART_TEXTS.get(part["type"]), part))
                return True
            if kind == done:
                found = self.items[event["output_index"]].parts(family)[event[index_key]]
                found.final, found.closed = event["part"], True
                return True
        return False

    def _add(self, event: Event) -> None:
        item = Item(event["output_index"], event["item"])
        superseded = event.get("supersedes")
        if superseded:
            place = self.line.index(superseded[0])
            self.line = [index for index in self.line if index not in superseded]
            self.line.insert(place, item.index)
        else:
            self.line.append(item.index)
        self.items.append(item)
        if item.kind in items.BY_CALL_ID and "call_id" in item.added:
            self.call_ids.add((item.kind, item.added["call_id"]))

    def _part(self, event: Event, text: Text) -> Part:
        item = self.items[event["output_index"]]
        index = event[text.index_key] if text.index_key is not None else 0
        return item.parts(text.family)[index]

    def _lifecycle(self, kind: str, event: Event) -> None:
        self.created = self.created or kind == "response.created"
        self.in_progress = self.in_progress or kind == "response.in_progress"
        if kind in ENDS:
            self.end = event

    def _keep(self, event: Event) -> None:
        index = event.get("output_index")
        (self.loose if index is None else self.items[index].extras).append(event)
