"""What is promised, and which tests prove it. Data; `tests/packaging/test_requirements.py` checks it both ways.

Ids: F faults, T threats, R reliability goals, S security goals. Every id is in exactly one of the three tables: `ROWS` has tests
(`promises/`), `GAPS` belongs to a gateway and its sandboxes on one machine and has none yet, `LATER` belongs to a part that does not exist
yet. A row may be proved less than whole; its `lacking` says what is missing. What is missing may only get less.
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
    "F29": "clocks are arguments and leases are judged by Redis' clock, but no run shifts the machine's clock",
    "F45": "no soak run yet; `--long` repeats kills, not load",
    "R3": "drain and its refusals are tested one by one, not with 400 probes through a rolling restart",
    "R4": "kills of gateways are tested through clients that come back, not with 400 probes",
    "R6": "no run of 10,000 turns under kills every few seconds",
    "R8": "no run with 200 sessions",
    "R11": "no figure of a neighbour's latency beside a hog",
    "R12": "no churn of 30 minutes",
    "R13": "the suite is not repeated 50 times",
    "S11": "mypy strict and ruff run in scripts/check; bandit, zizmor, hadolint and an SBOM do not",
}

_OPERATOR = "the operator, next issue"
_CLUSTER = "a cluster, next issue"
_JOURNAL = "journal and tools, a later issue"
_ROUTINES = "routines, a later issue"

LATER: dict[str, str] = {
    **dict.fromkeys(("F4", "F6", "F7", "F8", "F9", "F10", "F11", "T3", "T17"), _OPERATOR),
    **dict.fromkeys(("F24", "F25", "F39", "F40", "F44"), _CLUSTER),
    **dict.fromkeys(("F30", "F31"), _ROUTINES),
    **dict.fromkeys(("F37", "T10", "T16"), _JOURNAL),
    **dict.fromkeys(("T11", "S5"), "OIDC callers, a later issue"),
    "T15": "memory, a later issue",
}
