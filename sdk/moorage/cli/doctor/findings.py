"""What the doctor says of one thing. Layer: CLI; pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from moorage.cli.doctor.asked import Answer

Level = Literal["ok", "wrong", "could not look", "not tried"]
LEVELS: tuple[Level, ...] = ("ok", "wrong", "could not look", "not tried")


@dataclass(frozen=True)
class Finding:
    """`check`: what was looked at. `mend`: what to do, a command or a sentence an item; a thing that is wrong has at least one."""

    check: str
    level: Level
    says: str
    mend: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """As JSON shows it."""
        return {"check": self.check, "result": self.level, "message": self.says, "mend": list(self.mend)}


def unseen(check: str, right: str, answer: Answer) -> Finding:
    """Nothing is known, because the answer was none. `right`: what an account needs for it, as `list storageclasses`."""
    if answer.outcome == "forbidden":
        return Finding(
            check, "could not look", f"This account may not {right}.", ("Ask with an account that may, or have it looked at.",)
        )  # fmt: skip
    return Finding(check, "could not look", answer.why or "The answer cannot be read.", ("Try again.",))


def code(findings: Iterable[Finding]) -> int:
    """The exit code: 1 when something is wrong."""
    return int(any(each.level == "wrong" for each in findings))


def summary(findings: Sequence[Finding]) -> str:
    """How many of each."""
    counts = ((level, sum(each.level == level for each in findings)) for level in LEVELS)
    return ", ".join(f"{count} {level}" for level, count in counts if count)
