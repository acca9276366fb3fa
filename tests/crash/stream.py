"""What a client saw of one response, over any number of connections, and whether it is whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import openai

TERMINAL = ("response.completed", "response.failed", "response.incomplete")


@dataclass
class Seen:
    """Every event a client was given, in order, duplicates included."""

    events: list[Any] = field(default_factory=list)
    breaks: int = 0

    @property
    def response_id(self) -> str:
        """Of the first event."""
        return str(self.events[0].response.id)

    @property
    def last(self) -> int:
        """The cursor to go on from."""
        return int(self.events[-1].sequence_number)

    @property
    def ended(self) -> bool:
        """The terminal event was seen."""
        return bool(self.events) and self.events[-1].type in TERMINAL

    @property
    def deltas(self) -> int:
        """Text deltas seen."""
        return sum(e.type == "response.output_text.delta" for e in self.events)

    def read(self, stream: Iterable[Any], act: Callable[[int], None] | None = None) -> bool:
        """Reads a connection to its end; `act` is called with the number of deltas after each. False: it broke."""
        try:
            for event in stream:
                self.events.append(event)
                if act is not None and event.type == "response.output_text.delta":
                    act(self.deltas)
        except (openai.APIConnectionError, openai.APIError, OSError):
            self.breaks += 1
            return False
        return self.ended

    def check(self) -> None:
        """Gapless, ended once, each delta once, and the final output is what the deltas said."""
        numbers = [e.sequence_number for e in self.events]
        assert numbers == list(range(len(numbers))), f"numbers seen: {numbers}"
        assert sum(e.type in TERMINAL for e in self.events) == 1, [e.type for e in self.events]
        final = self.events[-1].response
        for item in final.output:
            if item.type != "message":
                continue
            said = "".join(
                e.delta for e in self.events if e.type == "response.output_text.delta" and e.item_id == item.id
            )
            assert said == "".join(part.text for part in item.content), (said, item)
        assert final.id == self.response_id
