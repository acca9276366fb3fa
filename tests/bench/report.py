"""What a bench says: lines with a goal and perhaps a gate, as a table for people and as JSON for scripts. Pure.

The JSON is a list of `{"name", "value", "unit", "goal", "gate", "ok"}`. A line without a gate has `"gate": null` and is ok. A bench
that cannot run here has the value "skipped", one that broke "broken" and is not ok; the reason stands in `note`, never a number.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

SKIPPED, BROKEN = "skipped", "broken"


@dataclass(frozen=True)
class Line:
    """One figure; smaller is better. `goal` is what we want to publish, `gate` what must hold. `note`: spread, conditions, reason.

    `pace`, for CPU: how many times the reference's CPU the machine took for the same work meanwhile (`pace.py`). Goal and gate are
    compared with the value at the reference's speed.
    """

    name: str
    value: float | None  # None: skipped, or broken
    unit: str
    goal: float | None = None
    gate: float | None = None
    note: str = ""
    broken: bool = False
    pace: float | None = None

    @property
    def judged(self) -> float | None:
        """What goal and gate are compared with."""
        return self.value if self.value is None or self.pace is None else self.value / self.pace

    @property
    def told(self) -> str:
        """The note, with what was judged."""
        if self.judged is None or self.pace is None:
            return self.note
        pace = (
            f"at the reference's speed {rounded(self.judged):g} (this machine just now: {self.pace:.2f} times its CPU)"
        )
        return f"{pace}; {self.note}" if self.note else pace

    @property
    def ok(self) -> bool:
        """False when it is above its gate, or broke: a gate that was not measured does not hold."""
        return not self.broken and (self.judged is None or self.gate is None or self.judged <= self.gate)

    @property
    def shown(self) -> float | str:
        """The value as it is told."""
        if self.value is not None:
            return rounded(self.value)
        return BROKEN if self.broken else SKIPPED

    @property
    def reached(self) -> bool | None:
        """Whether the goal is reached; None without a goal or a value."""
        return None if self.goal is None or self.judged is None else self.judged <= self.goal

    def record(self) -> dict[str, Any]:
        """The object of the JSON list."""
        return {
            "name": self.name,
            "value": self.shown,
            "unit": self.unit,
            "goal": self.goal,
            "gate": self.gate,
            "ok": self.ok,
            **({"pace": round(self.pace, 3)} if self.pace is not None else {}),
            **({"note": self.told} if self.told else {}),
        }


def skipped(names: Sequence[str], reason: str) -> list[Line]:
    """Lines of benches that could not run here."""
    return [Line(name, None, "", note=reason) for name in names]


def rounded(value: float) -> float:
    """Four significant digits: more would pretend."""
    return float(f"{value:.4g}")


def as_json(lines: Sequence[Line]) -> str:
    """The list, one object a line."""
    return "[\n" + ",\n".join(f"  {json.dumps(line.record(), ensure_ascii=False)}" for line in lines) + "\n]"


def as_table(lines: Sequence[Line]) -> str:
    """Columns for a terminal."""
    head = ("name", "value", "unit", "goal", "gate", "", "note")
    rows = [head, *(_row(line) for line in lines)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head) - 1)]
    return "\n".join(
        "  ".join([*(row[column].ljust(width) for column, width in enumerate(widths)), row[-1]]).rstrip()
        for row in rows
    )


def as_markdown(lines: Sequence[Line]) -> str:
    """The table of docs/benchmarks.md."""
    rows = [("quantity", "value", "unit", "goal", "gate", "", "spread, conditions"), ("---",) * 7]
    rows += [_row(line) for line in lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def failures(lines: Sequence[Line]) -> list[str]:
    """A sentence for each gate that does not hold, and each bench that broke."""
    return [
        f"{line.name} broke: {line.note}"
        if line.broken
        else f"{line.name}: {rounded(line.judged or 0):g} {line.unit} is above its gate of {line.gate:g}"
        for line in lines
        if not line.ok
    ]


def _row(line: Line) -> tuple[str, str, str, str, str, str, str]:
    value = line.shown if isinstance(line.shown, str) else f"{line.shown:g}"
    word = {True: "goal reached", False: "short of the goal", None: ""}[line.reached]
    return line.name, value, line.unit, _number(line.goal), _number(line.gate), word if line.ok else "FAILS", line.told


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:g}"
