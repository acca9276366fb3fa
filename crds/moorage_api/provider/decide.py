"""The provider's decisions: pure, `now` an argument, tested by their tables.

Layer: the floor, no I/O. The loop in `loop.py` observes, asks here, and applies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

STEP = 4  # sandboxes begun at a time for one revision: a refill must not starve what serves
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 60.0
YOUNG = 20.0  # a ready sandbox that dies by itself so soon counts as a failed start


@dataclass(frozen=True)
class Failures:
    """How often in a row a revision's sandboxes failed to get ready, and when the last one did."""

    count: int = 0
    at: float = 0.0


@dataclass(frozen=True)
class PoolSeen:
    """One revision's pool as observed: ready (offered and unclaimed), being started, and its failures."""

    ready: Sequence[str]
    starting: int
    failures: Failures


@dataclass(frozen=True)
class PoolPlan:
    """What to do: start so many, end these, look again in so many seconds (None: when something changes)."""

    start: int = 0
    end: tuple[str, ...] = ()
    look_again_in: float | None = None


def pause(failures: Failures) -> float:
    """Seconds to wait after the last of so many failures: doubling, bounded."""
    if failures.count == 0:
        return 0.0
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** (failures.count - 1))


def failed(failures: Failures, *, now: float) -> Failures:
    """One more failure."""
    return Failures(failures.count + 1, now)


def pool(seen: PoolSeen, *, wanted: int, most: int, now: float) -> PoolPlan:
    """How a pool is brought to what is wanted.

    ready + starting | in backoff | action
    -----------------|------------|------------------------------------------------
    >= wanted, ready <= most | any | nothing
    ready > most     | any        | end the surplus, newest first
    < wanted         | yes        | nothing; look when the pause is over
    < wanted         | no         | start the missing, STEP at a time; one after a failure
    """
    surplus = len(seen.ready) - most
    if surplus > 0:
        return PoolPlan(end=tuple(seen.ready[-surplus:]))
    missing = wanted - len(seen.ready) - seen.starting
    if missing <= 0:
        return PoolPlan()
    left = seen.failures.at + pause(seen.failures) - now if seen.failures.count else 0.0
    if left > 0:
        return PoolPlan(look_again_in=left)
    at_once = 1 if seen.failures.count else STEP
    return PoolPlan(start=max(0, min(missing, at_once - seen.starting)))


@dataclass(frozen=True)
class RevisionSeen:
    """One revision of an agent, newest first in a list: whether its pool ever served, and how many sessions run on it (which nobody asks of
    the newest)."""

    revision: str
    proven: bool
    running: int


@dataclass(frozen=True)
class RevisionPlan:
    """What a revision is for now. `weight` is its share of new sessions; without one it only serves who runs on it."""

    revision: str
    weight: int
    pooled: bool
    keep: bool


def revisions(seen: Sequence[RevisionSeen], *, weight: int) -> list[RevisionPlan]:
    """Which revisions take new sessions (newest first in `seen`; `weight` is the newest one's share).

    revision               | newest proven | action
    -----------------------|---------------|-----------------------------------------------
    newest                 | yes           | its weight; pooled
    newest                 | no            | all if there is no proven older one, else 0; pooled
    newest proven older    | yes           | the rest; pooled while the rest is > 0
    newest proven older    | no            | all; pooled
    other                  | any           | no share, no pool; kept while sessions run on it
    """
    if not seen:
        return []
    newest, older = seen[0], seen[1:]
    fallback = next((item for item in older if item.proven), None)
    share = weight if newest.proven else 0
    if fallback is None:
        share = 100
    plans = [RevisionPlan(newest.revision, share, pooled=True, keep=True)]
    for item in older:
        rest = 100 - share if item is fallback else 0
        plans.append(RevisionPlan(item.revision, rest, pooled=rest > 0, keep=rest > 0 or item.running > 0))
    return plans


def lost_young(*, born: float, now: float) -> bool:
    """Whether a sandbox that died unclaimed counts as a failed start."""
    return now - born < YOUNG
