"""Which recorded call a request is, and where a run first goes another way. Layer: pure.

A request is the n-th of its fingerprint, and gets what the n-th was answered: as the journal itself does for a later attempt.
"""

from __future__ import annotations

import base64
import difflib
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

LINES = 200
"""Of a difference that is shown."""


@dataclass(frozen=True)
class Recorded:
    """One call of the journal. `request`: as it is compared, None where it was too large to be kept; `answer`: None where it is gone."""

    entry: str
    what: dict[str, str]
    request: dict[str, Any] | None
    answer: tuple[int, list[tuple[str, str]], bytes] | None

    @property
    def name(self) -> str:
        """In a few words."""
        about = (
            self.what.get("kind", "call"),
            self.what.get("endpoint", ""),
            self.what.get("path", ""),
            self.what.get("model", ""),
        )
        return " ".join(each for each in about if each)


@dataclass(frozen=True)
class Difference:
    """Where the run goes another way. `number`: of the run's calls, from 1; `lines`: what was recorded against what is asked now."""

    number: int
    sentence: str
    lines: list[str] = field(default_factory=list)


@dataclass
class Matching:
    """The calls of a turn, and which of them a run has asked for."""

    calls: list[Recorded]
    asked: int = 0
    difference: Difference | None = None
    _met: set[str] = field(default_factory=set)
    _counts: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, journal: dict[str, Any]) -> Matching:
        """From the document of `…/journal`. Raises KeyError, TypeError or ValueError for anything else."""
        return cls([_recorded(each) for each in journal["calls"]])

    def ask(self, fingerprint: str, shown: dict[str, Any]) -> Recorded | None:
        """The recorded call that this request is; None sets `difference`, if none is set."""
        self.asked += 1
        entry = f"{fingerprint}.{self._counts[fingerprint]}"
        self._counts[fingerprint] += 1
        found = next((each for each in self.calls if each.entry == entry), None)
        if found is None:
            self._differs(shown)
            return None
        self._met.add(entry)
        if found.answer is None and self.difference is None:
            self.difference = Difference(self.asked, f"The recorded answer of call {self.asked} is not there any more.")
        return found if found.answer is not None else None

    def unknown(self, what: str) -> None:
        """A request that is none of those that can be replayed."""
        self.asked += 1
        self.difference = self.difference or Difference(
            self.asked, f"Call {self.asked} is none that the journal knows: {what}"
        )

    def ended(self) -> Difference | None:
        """The run has ended: the difference, if only that it asked for less."""
        left = self.left()
        if self.difference is None and left:
            sentence = f"The run ended after {self.asked} calls of {len(self.calls)} recorded ones, without this one: {left[0].name}."
            self.difference = Difference(self.asked + 1, sentence, _pretty(left[0].request)[:LINES])
        return self.difference

    def left(self) -> list[Recorded]:
        """Recorded calls that were not asked for, in their order."""
        return [each for each in self.calls if each.entry not in self._met]

    def _differs(self, shown: dict[str, Any]) -> None:
        if self.difference is not None:
            return
        expected = next(iter(self.left()), None)
        if expected is None:
            sentence = f"Call {self.asked} was not made in the recorded run, which made {len(self.calls)}."
            self.difference = Difference(self.asked, sentence, [f"+{line}" for line in _pretty(shown)[:LINES]])
            return
        sentence = f"Call {self.asked} is not what was recorded ({expected.name})."
        if expected.request is None:
            self.difference = Difference(self.asked, sentence + " The recorded request was too large to be kept.")
            return
        lines = difflib.unified_diff(
            _pretty(expected.request), _pretty(shown), "recorded", "asked now", lineterm="", n=2
        )
        self.difference = Difference(self.asked, sentence, [line for line, _ in zip(lines, range(LINES), strict=False)])


def _pretty(value: dict[str, Any] | None) -> list[str]:
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False).splitlines() if value is not None else []


def _recorded(call: dict[str, Any]) -> Recorded:
    told = call["answer"]
    answer = None
    if told is not None:
        headers = [(str(name), str(value)) for name, value in told["headers"]]
        answer = int(told["status"]), headers, base64.b64decode(told["body"])
    return Recorded(str(call["entry"]), dict(call["what"]), call["request"], answer)
