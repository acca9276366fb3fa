"""What is promised, and which tests prove it. Data; `tests/packaging/test_requirements.py` checks it both ways.

Ids: F faults, T threats, R reliability goals, S security goals. Every id is in exactly one of the three tables: `ROWS` has tests
(`promises/`), `GAPS` belongs to a part that exists and has none yet, `LATER` belongs to a part that does not exist yet. A row may be
proved less than whole; its `lacking` says what is missing. What is missing may only get less.
"""

from __future__ import annotations

from promises import controls, faults, operating
from promises.shape import Row

IDS = (
    *(f"F{n}" for n in range(1, 46)),
    *(f"T{n}" for n in range(1, 22)),
    *(f"R{n}" for n in range(1, 14)),
    *(f"S{n}" for n in range(1, 13)),
)

ROWS: dict[str, Row] = faults.ROWS | controls.ROWS | operating.ROWS

GAPS: dict[str, str] = {
    "F45": "no soak run yet; `--long` repeats kills, not load",
    "R6": "no run of 10,000 turns under kills every few seconds",
    "R8": "no run with 200 sessions",
    "R11": "no figure of a neighbour's latency beside a hog",
    "R12": "no churn of 30 minutes",
    "R13": "the suite is not repeated 50 times",
}

LATER: dict[str, str] = {
    **dict.fromkeys(("T11", "S5"), "OIDC callers, a later issue"),
    "T15": "memory, a later issue",
}
