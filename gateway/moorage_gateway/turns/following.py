"""One attempt as it unfolds: each item the agent makes is followed onto an item of the response, logged or new.

Layer: pure; called by `normalise.py` with items and parts in shape, writes through the writer. Which logged item an attempt's item
is followed onto, and what happens when they part:

| the attempt's item k (in order of `added`)                 | becomes                                                    |
|-------------------------------------------------------------|------------------------------------------------------------|
| the line has an entry k that agrees (`matching.agrees`)     | that logged item: logged text is held back, surplus goes out |
| the line has an entry k that does not agree                 | a new item, superseding as below                           |
| the line is shorter (every item of a first attempt)         | a new item, appended to the line                           |
| followed, then its text, parts or fields differ, or it ends | a new item holding all it said so far, superseding as below |
| while the log has more (early end)                          |                                                            |

*Superseding* at k: the logged item k, and every later line entry this attempt has not reached, leave the line; those still open are
closed `incomplete`, complete ones stay as seen. The new item takes place k. So every later item of this attempt is new, and the next
attempt is compared with the newest telling alone: items left behind (incomplete or complete) are never matched again. Logged items
that a concurrent item of the same attempt agrees with go on undisturbed.

Rejected: finding the line by status alone (a complete item that was contradicted looks like one that was not), and searching all
logged items for one that agrees (a short common beginning would catch the wrong item and hold its surplus back).
"""

from __future__ import annotations

from typing import Any

from moorage_gateway.turns import items, matching
from moorage_gateway.turns.book import Book, Item, Part
from moorage_gateway.turns.items import CONTENT, FIELD, SUMMARY, Event
from moorage_gateway.turns.writing import Writer

Key = tuple[str, Any, str]  # family, the agent's index, kind


class Channel:
    """One part or field as this attempt tells it. `seen` characters of `part` were told; `behind`: the log has more."""

    __slots__ = ("annotations", "behind", "closed", "done", "initial", "key", "part", "seen")

    def __init__(self, key: Key, part: Part, initial: dict[str, Any] | None) -> None:
        self.key = key
        self.part = part
        self.initial = initial
        self.seen = 0
        self.behind = part.length > 0
        self.annotations = 0
        self.done = False
        self.closed = False

    @property
    def told(self) -> str:
        """The text of this attempt so far; it equals the log's as far as it goes, else the item would have parted."""
        return self.part.value[: self.seen] if self.behind else self.part.value


class Follower:
    """One item of the attempt and the item of the response it is followed onto.

    `paired`: onto one logged by an earlier attempt. Only then is the journal kept, from which the item is told anew when it parts.
    """

    __slots__ = ("channels", "claim", "cursor", "done", "item", "journal", "ordinal", "paired", "source_id")

    def __init__(self, ordinal: int, claim: dict[str, Any], source_id: str | None) -> None:
        self.ordinal = ordinal
        self.claim = claim
        self.source_id = source_id
        self.item: Item
        self.paired = False
        self.done = False
        self.channels: dict[Key, Channel] = {}
        self.journal: list[tuple[Any, ...]] = []
        self.cursor: matching.Cursor | None = None

    def told(self, family: str) -> list[Channel]:
        """Its channels of a family, in order."""
        return [channel for channel in self.channels.values() if channel.key[0] == family]


class Attempt:
    """All items of one attempt. `ids` and `calls` map the agent's ids to ours, for references in later items and events."""

    def __init__(self, writer: Writer, book: Book) -> None:
        self._writer = writer
        self._book = book
        self.followers: list[Follower] = []
        self.ids: dict[str, str] = {}
        self.calls: dict[str, str] = {}

    def add(self, claim: dict[str, Any], source_id: str | None) -> Follower:
        """The attempt makes an item. Raises OutputTooLarge, as everything here does that may open an item or part."""
        follower = Follower(len(self.followers), claim, source_id)
        self.followers.append(follower)
        line = self._book.line
        if follower.ordinal >= len(line):
            self._open(follower, [])
        else:
            ours = self._book.items[line[follower.ordinal]]
            if matching.agrees(self._writer.response_id, ours, claim, self._call_id(claim)):
                follower.paired = True
                follower.cursor = matching.Cursor(ours.extras)
                self._name(follower, ours)
            else:
                self._open(follower, self._supersede(follower.ordinal))
        return follower

    def _call_id(self, claim: dict[str, Any]) -> Any:
        wanted = claim.get("call_id")
        refers = claim["type"].endswith("_output") and isinstance(wanted, str)
        return self.calls.get(str(wanted), wanted) if refers else wanted

    def _open(self, follower: Follower, superseded: list[int]) -> None:
        claim, response_id = follower.claim, self._writer.response_id
        kind, index = claim["type"], len(self._book.items)
        call_id = items.call_id_at(response_id, index, kind, self._call_id(claim), self._book.call_ids)
        self._name(follower, self._writer.add_item(claim, call_id, superseded))

    def _name(self, follower: Follower, item: Item) -> None:
        follower.item = item
        if follower.source_id is not None:
            self.ids[follower.source_id] = item.id
        wanted = follower.claim.get("call_id")
        if isinstance(wanted, str) and wanted and "call_id" in item.added and not item.kind.endswith("_output"):
            self.calls[wanted] = item.added["call_id"]

    def _supersede(self, ordinal: int) -> list[int]:
        line = self._book.line
        left = [line[ordinal], *line[max(ordinal + 1, len(self.followers)) :]]
        for index in left:
            if not self._book.items[index].closed:
                self._writer.close(self._book.items[index])
        return left

    def _part_ways(self, follower: Follower) -> None:
        """Tells the item anew, whole, as a new one; what it said so far is in the journal and in the texts it agreed with."""
        channels, journal = follower.channels, follower.journal
        superseded = self._supersede(follower.ordinal)
        follower.paired, follower.cursor = False, None
        follower.channels, follower.journal = {}, []
        self._open(follower, superseded)
        for verb, *rest in journal:
            if verb == "extra":
                self._writer.other(rest[0], follower.item)
                continue
            old = channels[rest[0]]
            if verb == "open":
                self.push(follower, self._channel(follower, old.key, old.initial), old.told)
            elif verb == "annotate":
                self.annotate(follower, follower.channels[old.key], rest[1])
            elif verb == "text_done":
                self.text_done(follower, follower.channels[old.key], None)
            else:
                self.part_done(follower, follower.channels[old.key], rest[1])

    def channel(self, follower: Follower, family: str, index: Any, part: dict[str, Any] | None) -> Channel:
        """The channel of the part the agent numbers `index`, opened if new. `part` None: the item's own text field."""
        key = (family, index, part["type"] if part else "")
        found = follower.channels.get(key)
        return found if found is not None else self._channel(follower, key, part)

    def _channel_at(self, follower: Follower, family: str, position: int, part: dict[str, Any]) -> Channel:
        """The channel at `position` of a finished item's parts: agents may number streamed parts as they like."""
        told = follower.told(family)
        if position < len(told) and told[position].part.kind == part["type"]:
            return told[position]
        return self.channel(follower, family, ("at", position), part)

    def _channel(self, follower: Follower, key: Key, part: dict[str, Any] | None) -> Channel:
        family, item = key[0], follower.item
        here, place = item.parts(family), len(follower.told(family))
        if part is None:
            found = here[0]
        elif place < len(here) and here[place].kind == part["type"]:
            found = here[place]
        elif follower.paired and (place < len(here) or item.closed):
            self._part_ways(follower)
            return self._channel(follower, key, part)
        else:
            found = self._writer.add_part(item, family, part)
        channel = follower.channels[key] = Channel(key, found, part)
        if follower.paired:
            follower.journal.append(("open", key))
        return channel

    def push(self, follower: Follower, channel: Channel, delta: str, logprobs: Any = None) -> Channel:
        """The attempt streams text. Returns the channel it went to: another one if the item parted from the log."""
        part = channel.part
        if channel.done or not delta:
            return channel
        if channel.behind:
            known = part.length - channel.seen
            if not part.value.startswith(delta[:known], channel.seen) or (len(delta) > known and part.text_done):
                return self._push_anew(follower, channel, delta, logprobs)
            channel.seen = min(part.length, channel.seen + len(delta))
            channel.behind = channel.seen < part.length
            delta = delta[known:]
            if not delta:
                return channel
        elif part.text_done:
            return self._push_anew(follower, channel, delta, logprobs) if follower.paired else channel
        self._writer.delta(follower.item, part, delta, logprobs)
        return channel

    def _push_anew(self, follower: Follower, channel: Channel, delta: str, logprobs: Any) -> Channel:
        self._part_ways(follower)
        return self.push(follower, follower.channels[channel.key], delta, logprobs)

    def annotate(self, follower: Follower, channel: Channel, annotation: Any) -> None:
        """The attempt adds its next annotation to a text part; the log's annotation of that number stands."""
        if channel.closed or channel.part.text is not items.OUTPUT_TEXT:
            return
        if channel.annotations >= items.MAX_PARTS:
            return
        channel.annotations += 1
        if follower.paired:
            follower.journal.append(("annotate", channel.key, annotation))
        if channel.annotations > len(channel.part.annotations) and not channel.part.closed:
            self._writer.annotate(follower.item, channel.part, annotation)

    def _tell_rest(self, follower: Follower, channel: Channel, text: Any) -> Channel:
        """Streams what a `done` has beyond the deltas. Where both are there and differ, the deltas were seen and stand."""
        told = channel.told
        if isinstance(text, str) and len(text) > len(told) and text.startswith(told) and not channel.done:
            return self.push(follower, channel, text[len(told) :])
        return channel

    def text_done(self, follower: Follower, channel: Channel, text: Any, logprobs: Any = None) -> Channel:
        """The attempt ends a text; `text` is what it says the whole is. Returns the channel, as `push`."""
        channel = self._tell_rest(follower, channel, text)
        if channel.done:
            return channel
        if channel.behind:
            self._part_ways(follower)
            channel = follower.channels[channel.key]
        channel.done = True
        if follower.paired:
            follower.journal.append(("text_done", channel.key))
        if not channel.part.text_done:
            self._writer.text_done(follower.item, channel.part, logprobs)
        return channel

    def part_done(self, follower: Follower, channel: Channel, final: dict[str, Any] | None) -> None:
        """The attempt ends a part; `final` is the part in shape, None when it only has to be ended."""
        if channel.closed:
            return
        if final is None:
            final = channel.initial or {}
        text = channel.part.text
        if text is not None:
            channel = self._tell_rest(follower, channel, final.get(text.field))
            for annotation in (final.get("annotations") or [])[channel.annotations :]:
                self.annotate(follower, channel, annotation)
            channel = self.text_done(follower, channel, None, final.get("logprobs"))
        elif follower.paired and channel.part.closed and not matching.same_part(channel.part.final, final):
            self._part_ways(follower)
            channel = follower.channels[channel.key]
        channel.closed = True
        if follower.paired:
            follower.journal.append(("part_done", channel.key, final))
        if not channel.part.closed:
            self._writer.part_done(follower.item, channel.part, final)

    def item_done(self, follower: Follower, claim: dict[str, Any], status: str) -> None:
        """The attempt ends an item, saying what it is as a whole."""
        if follower.done:
            return
        claim = {**claim, "type": follower.claim["type"]}
        if follower.paired and not matching.agrees(
            self._writer.response_id, follower.item, claim, self._call_id(claim)
        ):
            self._part_ways(follower)
        for family, name in ((SUMMARY, "summary"), (CONTENT, "content")):
            given = claim.get(name) if claim["type"] in items.WITH_PARTS else None
            for position, part in enumerate(given or ()):
                self.part_done(follower, self._channel_at(follower, family, position, part), part)
            for key in [channel.key for channel in follower.told(family)]:
                self.part_done(follower, follower.channels[key], None)
        field = items.FIELD_TEXTS.get(claim["type"])
        if field is not None:  # some agents say the text with `added` and nowhere else
            whole = claim[field.field] or follower.claim[field.field]
            self.text_done(follower, self.channel(follower, FIELD, 0, None), whole)
        if follower.paired and not self._is_whole(follower, claim, status):
            self._part_ways(follower)
        follower.done = True
        if not follower.item.closed:
            self._writer.item_done(follower.item, claim, status)

    def _is_whole(self, follower: Follower, claim: dict[str, Any], status: str) -> bool:
        """Whether the log has no more parts than the attempt told, and a finished logged item is the same."""
        item = follower.item
        more = any(len(item.parts(family)) > len(follower.told(family)) for family in (CONTENT, SUMMARY))
        return not more and matching.same(item, claim, status)

    def other(self, follower: Follower, payload: Event) -> None:
        """An event outside the tables about an item. Late ones of known types are dropped: nothing follows `done`."""
        if follower.cursor is not None:
            agreed, rest = follower.cursor.unlogged(payload)
            if not agreed:
                self._part_ways(follower)
            else:
                follower.journal.append(("extra", payload))
                if rest is None:
                    return
                payload = rest
        if not follower.item.closed or not payload["type"].startswith("response."):
            self._writer.other(payload, follower.item)
