"""Which due times passed since the last look, and which of them are run. Pure. Layer: gateway. Times are milliseconds since 1970."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from moorage_api.schedules import Schedule

LATE_MS = 60_000
"""A due time that is seen later than this was missed: nobody could run it then."""
MOST = 10
"""Due times of a longer absence that are run with `missedRuns: all`."""
MOST_OLD = 100
"""Due times beyond their deadline that are looked at after an absence; of more of them nothing is said."""


@dataclass(frozen=True)
class Passed:
    """Due times in order. `cursor`: where the next look begins."""

    run: tuple[int, ...]
    missed: tuple[int, ...]
    """The newest of those that are not run."""
    cursor: int


def passed(schedule: Schedule, cursor: int, now: int, *, policy: str, deadline: int) -> Passed:
    """What became due in (cursor, now]. `policy` is `missedRuns`, `deadline` is `startingDeadline` in milliseconds."""
    newest: deque[int] = deque(maxlen=MOST)
    at = cursor
    for _ in range(MOST_OLD):
        slot = schedule.next(at)
        if slot is None or slot >= now - deadline:
            break
        newest.append(slot)
        at = slot
    at = max(at, min(cursor, now), now - deadline - 1)
    fit: list[int] = []
    while (slot := schedule.next(at)) is not None and slot <= now:
        fit.append(slot)
        at = slot
    prompt = [slot for slot in fit if now - slot <= LATE_MS]
    late = [slot for slot in fit if now - slot > LATE_MS]
    match policy:
        case "all":
            run = (late + prompt)[-MOST:]
        case "latest":
            run = prompt or late[-1:]
        case _:
            run = prompt
    kept = set(run)
    newest.extend(slot for slot in fit if slot not in kept)
    return Passed(tuple(run), tuple(newest), max(at, cursor))
