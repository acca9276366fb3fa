"""What a cluster answered to one question. Layer: CLI; pure, under everything else of the doctor."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

Outcome = Literal["answered", "absent", "forbidden", "refused", "no kubectl"]
WHY = 300  # characters of a reason that are shown


@dataclass(frozen=True)
class Answer:
    """`text`: what was answered. `why`: in one line, why there is no answer."""

    outcome: Outcome
    text: str = ""
    why: str = ""

    def object(self) -> Mapping[str, Any] | None:
        """The JSON object that was answered; None for anything else."""
        if self.outcome != "answered":
            return None
        try:
            found = json.loads(self.text)
        except ValueError:
            return None
        return found if isinstance(found, dict) else None

    def items(self) -> list[Mapping[str, Any]] | None:
        """The objects of the list that was answered; None for anything else."""
        found = (self.object() or {}).get("items")
        return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else None


class Ask(Protocol):
    """One question by kubectl. Never raises: what went wrong is the answer. `within`: seconds, if not the usual ones."""

    def __call__(self, *arguments: str, given: str = "", within: float | None = None) -> Answer:
        """The answer to `kubectl ARGUMENTS`; `given` is its input."""


def of_run(code: int, out: str, err: str) -> Answer:
    """The answer that a run of kubectl gave."""
    if code == 0:
        return Answer("answered", out)
    lines = [line.strip() for line in err.splitlines() if line.strip()]
    why = (lines[-1] if lines else f"kubectl ended with status {code}")[:WHY]
    if "(Forbidden)" in err:
        return Answer("forbidden", why=why)
    if "(NotFound)" in err:
        return Answer("absent", why=why)
    return Answer("refused", why=why)


def part(value: Any, *path: str) -> Any:
    """What lies at a place of an object, None when nothing does: objects of a cluster are looked at, not trusted."""
    for step in path:
        value = value.get(step) if isinstance(value, Mapping) else None
    return value
