"""Normalises what an agent streams into the one log of its response: the engine's door to the pure part of a turn.

Layer: pure (no clock, no I/O, no randomness). A `Normaliser` serves one attempt: built from the template and the log as it was before
the attempt, fed the attempt's events from the first. Built and fed again it returns the same events, so a gateway that takes over
feeds them anew and drops what the log already has (`sequence_number` < its length).

    created_event ─▶ log ─▶ Normaliser ── feed ─▶ events ─▶ log … ── finish ─▶ closing events, terminal event, Response
                                        └ interrupt ─▶ closing events

Order of the events: created → (queued) → in_progress → per item added → part added → deltas → text done → part done → item done →
(error) → exactly one of completed, failed, incomplete. How attempts are compared: `following.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from moorage_gateway.turns import items, outcomes
from moorage_gateway.turns.book import Book
from moorage_gateway.turns.items import Event
from moorage_gateway.turns.outcomes import Outcome
from moorage_gateway.turns.reading import Reader, Streaming
from moorage_gateway.turns.response_body import Template, response_body
from moorage_gateway.turns.writing import OutputTooLarge, Writer

__all__ = ["Finish", "Normaliser", "Outcome", "Template", "created_event", "response_from_log"]


@dataclass(frozen=True)
class Finish:
    """How the log ends: `events` to append, then `terminal`; `response` is the full Response object `terminal` carries."""

    events: list[Event]
    terminal: Event
    response: dict[str, Any]


def created_event(t: Template, *, queued: bool) -> list[Event]:
    """The first events of a log: `response.created` (number 0), and `response.queued` when the turn has to wait."""
    status = "queued" if queued else "in_progress"
    kinds = ["response.created", "response.queued"] if queued else ["response.created"]
    body = response_body(t, status=status, output=[])
    return [{"type": kind, "sequence_number": number, "response": body} for number, kind in enumerate(kinds)]


def response_from_log(t: Template, events: Iterable[Event], *, status: str) -> dict[str, Any]:
    """The Response object as the log tells it at any moment; the terminal event's own once that is logged."""
    book = Book(events)
    if book.end is not None:
        ended: dict[str, Any] = book.end["response"]
        return ended
    return response_body(t, status=status, output=book.output())


class _Hot:
    """Where the last delta went, so that the next one like it needs no lookup. Dropped on any other event."""

    __slots__ = (
        "emits",
        "index",
        "index_key",
        "item_id",
        "kind",
        "logprobs",
        "output_index",
        "part",
        "source_id",
        "source_index",
        "source_output",
    )

    def __init__(self, source: Event, streaming: Streaming) -> None:
        item, part, text = streaming
        self.kind, self.source_id, self.source_output = (
            source["type"],
            source.get("item_id"),
            source.get("output_index"),
        )
        self.index_key = text.index_key
        self.source_index = source.get(text.index_key) if text.index_key is not None else None
        self.emits, self.logprobs, self.part = text.delta, text.logprobs, part
        self.item_id, self.output_index, self.index = item.id, item.index, part.index


class Normaliser:
    """One attempt's way into the log. Not to be fed after `interrupt` or `finish`: it returns nothing then.

    `log` holds the events logged before this attempt began; what it holds decides what is compared. `continues` is the engine's word
    that an earlier attempt has spoken; a log that holds output is compared in any case, so a wrong word repeats nothing.
    """

    def __init__(self, template: Template, log: Sequence[Event], *, continues: bool) -> None:
        self._template = template
        self._book = Book(log)
        self._writer = Writer(template.response_id, self._book)
        self._reader = Reader(self._writer, self._book, continues=continues or bool(self._book.loose))
        self._hot: _Hot | None = None
        self._outcome: Outcome | None = None  # ours, when the agent made too much
        self._progressed = False
        self._stopped = False
        self._closing: list[Event] | None = None

    @property
    def outcome(self) -> Outcome | None:
        """Set once the agent's terminal event was fed. Feed on to the end of the stream: a later one replaces it."""
        return self._outcome or self._reader.outcome

    @property
    def progressed(self) -> bool:
        """Whether this attempt has newly made an event beyond the lifecycle's."""
        return self._progressed

    def feed(self, source: Event) -> list[Event]:
        """The events to append for one event of the agent; [] when the log already has what it says."""
        if not isinstance(source, dict):
            return []
        hot = self._hot
        if (
            hot is not None
            and source.get("type") == hot.kind
            and source.get("item_id") == hot.source_id
            and source.get("output_index") == hot.source_output
            and (hot.index_key is None or source.get(hot.index_key) == hot.source_index)
        ):
            delta = source.get("delta")
            if type(delta) is str and delta:
                return [self._hot_delta(hot, delta, source)]
        if self._stopped or not isinstance(source.get("type"), str):
            return []
        self._hot = None
        self._supply_lifecycle()
        before = self._book.length
        try:
            self._reader.read(source["type"], source)
        except OutputTooLarge as error:
            self._stopped = True
            failure = outcomes.error_of({"code": "server_error", "message": str(error)})
            self._outcome = Outcome("failed", failure, None, self._reader.usage())
        self._progressed = self._progressed or self._book.length > before
        if self._reader.streaming is not None and not self._stopped:
            self._hot = _Hot(source, self._reader.streaming)
        return self._writer.take()

    def _hot_delta(self, hot: _Hot, delta: str, source: Event) -> Event:
        book = self._book
        event: Event = {
            "type": hot.emits,
            "sequence_number": book.length,
            "item_id": hot.item_id,
            "output_index": hot.output_index,
        }
        if hot.index_key is not None:
            event[hot.index_key] = hot.index
        event["delta"] = delta
        if hot.logprobs:
            event["logprobs"] = items.logprobs_of(source.get("logprobs"))
        book.length += 1
        hot.part.append(delta)
        self._progressed = True
        return event

    def interrupt(self) -> list[Event]:
        """The attempt is lost and no other follows: the events that end every open item, `incomplete`."""
        self._stopped, self._hot = True, None
        self._supply_created()
        for item in self._book.items:
            if not item.closed:
                self._writer.close(item)
        return self._writer.take()

    def finish(self, outcome: Outcome, *, completed_at: int | None, asked: Sequence[dict[str, Any]] = ()) -> Finish:
        """How the log ends with `outcome`, the agent's or the engine's. May be called again with another outcome. `asked`: items of the
        platform's own, by their ids, put behind the agent's unless the log has them.

        A cancelled turn ends with `response.failed` whose Response says `cancelled`: the API has no event of its own for it. The
        flat `error` event goes before `response.failed` when the agent sent one.
        """
        if self._closing is None:
            self._closing = self.interrupt()
            known = {item.id for item in self._book.items}
            for item in asked:
                if item["id"] not in known:
                    self._writer.whole(item)
            self._closing += self._writer.take()
        events, number = list(self._closing), self._book.length
        error = outcome.error
        if error is not None:
            error = {**error, "message": outcomes.bounded(str(error.get("message") or outcomes.NO_MESSAGE))}
            outcome = Outcome(outcome.status, error, outcome.incomplete_details, outcome.usage)
        if outcome.status == "failed" and error is not None and self._reader.reported is not None:
            told = {"code": error.get("code"), "message": error["message"], "param": error.get("param")}
            events.append({"type": "error", "sequence_number": number, **told})
            number += 1
        response = response_body(
            self._template,
            status=outcome.status,
            output=self._book.output(),
            outcome=outcome,
            completed_at=completed_at,
        )
        kind = "response.failed" if outcome.status == "cancelled" else f"response.{outcome.status}"
        return Finish(events, {"type": kind, "sequence_number": number, "response": response}, response)

    def _supply_created(self) -> None:
        if not self._book.created:
            self._writer.lifecycle("response.created", response_body(self._template, status="in_progress", output=[]))

    def _supply_lifecycle(self) -> None:
        self._supply_created()
        if not self._book.in_progress:
            self._writer.lifecycle(
                "response.in_progress", response_body(self._template, status="in_progress", output=[])
            )
