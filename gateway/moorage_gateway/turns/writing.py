"""Makes the events of a response in their right form and order, numbers them, and folds each into the book.

Layer: pure. The only place that builds events about items; callers decide *whether*, the writer knows *how*. Every event gets the
next `sequence_number` of the book, so what was returned is gapless by construction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from moorage_gateway.turns import items
from moorage_gateway.turns.book import Book, Item, Part
from moorage_gateway.turns.items import FIELD, PART_EVENTS, Event


class OutputTooLarge(Exception):
    """The agent made more items or parts than a response may hold; the message says so to the caller of the agent."""


class Writer:
    """`out` collects the events made since it was last taken."""

    def __init__(self, response_id: str, book: Book) -> None:
        self.response_id = response_id
        self.book = book
        self.out: list[Event] = []

    def take(self) -> list[Event]:
        """The events made since the last call."""
        out, self.out = self.out, []
        return out

    def emit(self, event: Event) -> None:
        """Folds in and collects one event that already has its number (`self.book.length`)."""
        self.book.apply(event)
        self.out.append(event)

    def lifecycle(self, kind: str, response: dict[str, Any]) -> None:
        """`response.created` and `response.in_progress`."""
        self.emit({"type": kind, "sequence_number": self.book.length, "response": response})

    def add_item(self, claim: dict[str, Any], call_id: str | None, superseded: Sequence[int]) -> Item:
        """Opens a new item at the next output index. `superseded`: see `Book`'s line. Raises OutputTooLarge."""
        index = len(self.book.items)
        if index >= items.MAX_ITEMS:
            raise OutputTooLarge(
                f"The agent made more than {items.MAX_ITEMS} output items in one response; end the turn earlier "
                "or put the results into files."
            )
        item = items.started(claim)
        item["id"] = items.item_id(self.response_id, index, item["type"])
        if call_id is not None:
            item["call_id"] = call_id
        event: Event = {
            "type": "response.output_item.added",
            "sequence_number": self.book.length,
            "output_index": index,
            "item": item,
        }
        if superseded:
            event["supersedes"] = list(superseded)
        self.emit(event)
        return self.book.items[index]

    def _about(self, kind: str, item: Item, index_key: str | None, index: int) -> Event:
        event: Event = {
            "type": kind,
            "sequence_number": self.book.length,
            "item_id": item.id,
            "output_index": item.index,
        }
        if index_key is not None:
            event[index_key] = index
        return event

    def add_part(self, item: Item, family: str, part: dict[str, Any]) -> Part:
        """Opens a content or summary part, shown without its text. Raises OutputTooLarge."""
        here = item.parts(family)
        if len(here) >= items.MAX_PARTS:
            raise OutputTooLarge(f"The agent made more than {items.MAX_PARTS} parts in one output item.")
        added, _, index_key = PART_EVENTS[family]
        shown = dict(part)
        text = items.PART_TEXTS.get(shown["type"])
        if text is not None:
            shown[text.field] = ""
            if text is items.OUTPUT_TEXT:
                shown["annotations"], shown["logprobs"] = [], []
        event = self._about(added, item, index_key, len(here))
        event["part"] = shown
        self.emit(event)
        return here[-1]

    def delta(self, item: Item, part: Part, delta: str, logprobs: Any = None) -> None:
        """Streams text into a part or field."""
        text = part.text
        assert text is not None
        event = self._about(text.delta, item, text.index_key, part.index)
        event["delta"] = delta
        if text.logprobs:
            event["logprobs"] = items.logprobs_of(logprobs)
        self.emit(event)

    def annotate(self, item: Item, part: Part, annotation: Any) -> None:
        """Adds an annotation to a text part."""
        event = self._about("response.output_text.annotation.added", item, "content_index", part.index)
        event["annotation_index"] = len(part.annotations)
        event["annotation"] = annotation
        self.emit(event)

    def text_done(self, item: Item, part: Part, logprobs: Any = None) -> None:
        """Ends the text of a part or field."""
        text = part.text
        assert text is not None
        event = self._about(text.done, item, text.index_key, part.index)
        event[text.field] = part.value
        if text.logprobs:
            event["logprobs"] = items.logprobs_of(logprobs)
        self.emit(event)

    def part_done(self, item: Item, part: Part, final: dict[str, Any] | None = None) -> None:
        """Ends a content or summary part; `final` holds what the agent says it is beside its text (None: as added)."""
        if final is not None and (part.text is not None or not part.closed):
            part.final = {**(part.final or {}), **final, "type": part.kind}
        _, done, index_key = PART_EVENTS[part.family]
        event = self._about(done, item, index_key, part.index)
        event["part"] = part.shown()
        self.emit(event)

    def item_done(self, item: Item, final: dict[str, Any] | None, status: str) -> None:
        """Ends an item whose parts are ended. Type, id and call_id stay as added, texts as streamed."""
        shown = item.shown({**final, "type": item.kind} if final is not None else None)
        shown["status"] = status
        self.emit(
            {
                "type": "response.output_item.done",
                "sequence_number": self.book.length,
                "output_index": item.index,
                "item": shown,
            }
        )

    def whole(self, shown: dict[str, Any]) -> None:
        """An item that nobody streams, under its own id."""
        index = len(self.book.items)
        for kind, status in (("response.output_item.added", "in_progress"), ("response.output_item.done", "completed")):
            event: Event = {"type": kind, "sequence_number": self.book.length, "output_index": index}
            self.emit(event | {"item": {**shown, "status": status}})

    def close(self, item: Item, status: str = "incomplete") -> None:
        """Ends an open item as it stands, with every `done` event it still lacks."""
        for part in item.every_part():
            if not part.text_done:
                self.text_done(item, part)
            if part.family != FIELD and not part.closed:
                self.part_done(item, part)
        self.item_done(item, None, status)

    def other(self, payload: Event, item: Item | None) -> None:
        """An event outside the tables, renumbered. Ids of an item it is about are ours; `payload` holds none."""
        event: Event = {"type": payload["type"], "sequence_number": self.book.length}
        if item is not None:
            event["item_id"], event["output_index"] = item.id, item.index
        event.update(payload)
        self.emit(event)
