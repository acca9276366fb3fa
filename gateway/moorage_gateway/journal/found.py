"""What asking for a call finds instead of a call to make: its answer. Layer: pure."""

from __future__ import annotations

from dataclasses import dataclass

from moorage_gateway.journal.answers import Answer


@dataclass(frozen=True)
class Stored:
    """An answer that is here. `replayed`: of a call that was made before."""

    entry: str
    answer: Answer
    replayed: bool = True
