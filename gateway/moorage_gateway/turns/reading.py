"""Reads the agent's events: what each one is about, what it says, how the response ends.

Layer: pure; called by `normalise.py` with one event at a time, drives `following.py`. Everything an agent may leave out or get wrong
is met here: items never added, parts never opened, several Responses in one stream, ends that hold what the stream did not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from moorage_gateway.turns import items, matching, outcomes, sources
from moorage_gateway.turns.book import LIFECYCLE, Book, Item, Part
from moorage_gateway.turns.following import Attempt, Channel, Follower
from moorage_gateway.turns.items import CONTENT, FIELD, PART_EVENTS, SUMMARY, Event, Text
from moorage_gateway.turns.outcomes import Outcome
from moorage_gateway.turns.writing import Writer

Streaming = tuple[Item, Part, Text]

_TERMINALS: Mapping[str, str] = {
    "response.completed": "completed",
    "response.incomplete": "incomplete",
    "response.failed": "failed",
    "response.cancelled": "failed",
}
_ANNOTATIONS = frozenset({"response.output_text.annotation.added", "response.output_text_annotation.added"})
_PARTS: Mapping[str, tuple[str, bool]] = {
    event: (family, done)
    for family, (added, ended, _) in PART_EVENTS.items()
    for event, done in ((added, False), (ended, True))
}
_CANCELLED = "The agent cancelled its own response."


class Reader:
    """`outcome` is what the last terminal event told, `reported` the agent's `error` event, `streaming` where the event just read
    streamed to, set only when more of the same may be appended there without looking (all of it is new to the log).
    """

    def __init__(self, writer: Writer, book: Book, *, continues: bool) -> None:
        self._writer = writer
        self._attempt = Attempt(writer, book)
        self._sources = sources.Sources()
        self._loose = matching.Cursor(book.loose) if continues else None
        self.outcome: Outcome | None = None
        self.reported: Any = None
        self.streaming: Streaming | None = None
        self._source_response: str | None = None
        self._first = 0  # ordinal of the first item of the agent's present Response
        self._usages: dict[str | None, dict[str, Any]] = {}

    def usage(self) -> dict[str, Any] | None:
        """The usage told so far, summed over the Responses the agent made."""
        return outcomes.usage_sum(self._usages.values())

    def read(self, kind: str, source: Event) -> None:
        """Follows one event of the agent; `kind` is its type. Raises OutputTooLarge."""
        self.streaming = None
        handler: Callable[[str, Event], None]
        if kind in items.DELTAS:
            handler = self._delta
        elif kind in items.DONES:
            handler = self._text_done
        elif kind in _PARTS:
            handler = self._part
        elif kind == "response.output_item.added":
            handler = self._added
        elif kind == "response.output_item.done":
            handler = self._done
        elif kind in LIFECYCLE:
            handler = self._begun
        elif kind in _TERMINALS:
            handler = self._ended
        elif kind in ("error", "response.error"):
            handler = self._failed
        elif kind in _ANNOTATIONS:
            handler = self._annotation
        else:
            handler = self._other
        handler(kind, source)

    def _begun(self, kind: str, source: Event) -> None:
        given = sources.id_of(source.get("response"))
        if given is not None:
            self._attempt.ids[given] = self._writer.response_id
        another = given is not None and self._source_response not in (None, given)
        if another or (kind == "response.created" and self.outcome is not None):
            self._sources.clear()
            self._first = len(self._attempt.followers)
        self._source_response = given or self._source_response

    def _failed(self, kind: str, source: Event) -> None:
        flat = {name: value for name, value in source.items() if name != "type"}
        self.reported = source.get("error") or flat
        self.outcome = Outcome("failed", outcomes.error_of(self.reported), None, self.usage())

    def _ended(self, kind: str, source: Event) -> None:
        raw = source.get("response")
        response = raw if isinstance(raw, dict) else {}
        status = _TERMINALS[kind]
        self._end_items(response.get("output"), status)
        usage = outcomes.usage_of(response.get("usage"))
        if usage is not None:
            self._usages[sources.id_of(response) or self._source_response] = usage
        reported = self.reported
        if reported is None and "cancel" in f"{kind} {response.get('status')}":
            reported = _CANCELLED
        total = self.usage()
        self.outcome = outcomes.from_terminal(status, response, reported, total)

    def _end_items(self, output: Any, status: str) -> None:
        """Supplies items and ends the stream lacked; those of a failed or incomplete response stay open until `finish`."""
        default = "completed" if status == "completed" else "incomplete"
        given = [(raw, claim) for raw in (output if isinstance(output, list) else ()) if (claim := items.claim(raw))]
        named = {id(f) for raw, _ in given if (f := self._sources.by_id(sources.id_of(raw))) is not None}
        for position, (raw, claim) in enumerate(given):
            follower = self._sources.by_id(sources.id_of(raw))
            if follower is None:  # an agent may name its items anew in the end: then their places tell
                place = self._first + position
                followers = self._attempt.followers
                if place < len(followers) and followers[place].claim["type"] == claim["type"]:
                    follower = followers[place] if id(followers[place]) not in named else None
            if follower is None:
                follower = self._new(self._referring(claim), sources.id_of(raw), None)
            self._attempt.item_done(follower, self._referring(claim), items.ended_status(claim.get("status"), default))
        if status == "completed":
            for follower in self._attempt.followers[self._first :]:
                self._attempt.item_done(follower, follower.claim, default)

    def _claim(self, raw: Any) -> dict[str, Any] | None:
        claim = items.claim(raw)
        return self._referring(claim) if claim is not None else None

    def _referring(self, value: dict[str, Any]) -> dict[str, Any]:
        """`value` with references in our ids, as far as they are known now: items of one list may refer to earlier ones."""
        mapped: dict[str, Any] = sources.referring(value, self._attempt.ids)
        return mapped

    def _new(self, claim: dict[str, Any], source_id: str | None, index: int | None) -> Follower:
        follower = self._attempt.add(claim, source_id)
        self._sources.add(follower, index)
        return follower

    def _implied(self, kind: str, source: Event) -> Follower:
        claim = items.claim({"type": kind}) or {}
        return self._new(claim, sources.id_of(source, "item_id"), sources.index_of(source, "output_index"))

    def _find(self, source: Event) -> Follower | None:
        return self._sources.find(sources.index_of(source, "output_index"), sources.id_of(source, "item_id"))

    def _added(self, kind: str, source: Event) -> None:
        raw, index = source.get("item"), sources.index_of(source, "output_index")
        claim, source_id = self._claim(raw), sources.id_of(raw)
        if claim is None:
            return
        known = self._sources.find(index, source_id)
        again = known is not None and not known.done and known.source_id == source_id
        if known is None or not again or known.claim["type"] != claim["type"]:
            self._new(claim, source_id, index)

    def _done(self, kind: str, source: Event) -> None:
        raw, index = source.get("item"), sources.index_of(source, "output_index")
        claim, source_id = self._claim(raw), sources.id_of(raw)
        if claim is None:
            return
        follower = self._sources.find(index, source_id)
        if follower is not None and follower.done and follower.source_id == source_id:
            return
        if follower is None or follower.done or follower.claim["type"] != claim["type"]:
            follower = self._new(claim, source_id, index)
        self._attempt.item_done(follower, claim, items.ended_status(claim.get("status"), "completed"))

    def _owner(self, source: Event, text: Text, implied: str) -> Follower:
        follower = self._find(source)
        if follower is None or not items.is_text_owner(follower.item.kind, text):
            follower = self._implied(implied, source)
        return follower

    def _channel(self, follower: Follower, text: Text, source: Event) -> Channel:
        if text.family == FIELD:
            return self._attempt.channel(follower, FIELD, 0, None)
        index = sources.index_of(source, text.index_key or "") or 0
        return self._attempt.channel(follower, text.family, index, items.shaped_part(text.kind, {}))

    def _delta(self, kind: str, source: Event) -> None:
        delta = source.get("delta")
        if not isinstance(delta, str) or not delta:
            return
        follower = self._owner(source, *items.DELTAS[kind])
        if follower.done:
            return
        text = items.text_for(follower.item.kind, items.DELTAS[kind][0])
        channel = self._attempt.push(follower, self._channel(follower, text, source), delta, source.get("logprobs"))
        if not (channel.behind or channel.done or channel.part.text_done):
            self.streaming = follower.item, channel.part, text

    def _text_done(self, kind: str, source: Event) -> None:
        follower = self._owner(source, *items.DONES[kind])
        if follower.done:
            return
        text = items.text_for(follower.item.kind, items.DONES[kind][0])
        channel = self._channel(follower, text, source)
        self._attempt.text_done(follower, channel, source.get(text.field), source.get("logprobs"))

    def _part(self, kind: str, source: Event) -> None:
        family, done = _PARTS[kind]
        raw = source.get("part")
        follower = self._find(source)
        if follower is None:
            spoken = family == CONTENT and not (isinstance(raw, dict) and raw.get("type") == "reasoning_text")
            follower = self._implied("message" if spoken else "reasoning", source)
        owner = follower.item.kind
        part = items.part_claim(owner, family, raw)
        partless = owner in items.TYPES - items.WITH_PARTS or (family == SUMMARY and owner != "reasoning")
        if part is None or follower.done or partless:
            return
        part = self._referring(part)
        index = sources.index_of(source, PART_EVENTS[family][2]) or 0
        channel = self._attempt.channel(follower, family, index, part)
        if done:
            self._attempt.part_done(follower, channel, part)

    def _annotation(self, kind: str, source: Event) -> None:
        follower = self._owner(source, items.OUTPUT_TEXT, "message")
        if not follower.done and isinstance(source.get("annotation"), dict):
            annotation = sources.referring(items.pruned(source.get("annotation")), self._attempt.ids)
            text = items.text_for(follower.item.kind, items.OUTPUT_TEXT)
            self._attempt.annotate(follower, self._channel(follower, text, source), annotation)

    def _other(self, kind: str, source: Event) -> None:
        follower = self._find(source)
        implied = items.implied_type(kind)
        if follower is None and implied is not None:
            follower = self._implied(implied, source)
        payload = matching.payload_of(self._referring(items.pruned(source)))
        if follower is not None:
            self._attempt.other(follower, payload)
            return
        rest: Event | None = payload
        if self._loose is not None:
            agreed, unlogged = self._loose.unlogged(payload)
            rest = unlogged if agreed else payload
        if rest is not None:
            self._writer.other(rest, None)
