"""The provider's decisions, by their tables."""

from __future__ import annotations

import pytest

from moorage_api.provider import decide
from moorage_api.provider.decide import Failures, PoolPlan, PoolSeen, RevisionPlan, RevisionSeen

pytestmark = pytest.mark.unit

NONE = Failures()
JUST_FAILED = Failures(1, at=100.0)


@pytest.mark.parametrize(
    ("ready", "starting", "failures", "wanted", "most", "now", "plan"),
    [
        (2, 0, NONE, 2, 3, 100.0, PoolPlan()),
        (3, 0, NONE, 2, 3, 100.0, PoolPlan()),
        (4, 0, NONE, 2, 3, 100.0, PoolPlan(end=("x3",))),
        (2, 0, JUST_FAILED, 0, 0, 100.0, PoolPlan(end=("x0", "x1"))),
        (0, 0, NONE, 2, 3, 100.0, PoolPlan(start=2)),
        (0, 1, NONE, 2, 3, 100.0, PoolPlan(start=1)),
        (0, 2, NONE, 2, 3, 100.0, PoolPlan()),
        (0, 0, NONE, 10, 10, 100.0, PoolPlan(start=4)),
        (0, 4, NONE, 10, 10, 100.0, PoolPlan(start=0)),
        (0, 0, JUST_FAILED, 2, 3, 100.1, PoolPlan(look_again_in=pytest.approx(0.4))),
        (0, 0, JUST_FAILED, 2, 3, 100.6, PoolPlan(start=1)),
        (0, 1, JUST_FAILED, 2, 3, 100.6, PoolPlan(start=0)),
        (0, 0, NONE, 0, 3, 100.0, PoolPlan()),
    ],
)
def test_a_pool_is_brought_to_what_is_wanted(
    ready: int, starting: int, failures: Failures, wanted: int, most: int, now: float, plan: PoolPlan
) -> None:
    seen = PoolSeen([f"x{n}" for n in range(ready)], starting, failures)
    assert decide.pool(seen, wanted=wanted, most=most, now=now) == plan


def test_the_pause_after_failures_doubles_and_has_an_end() -> None:
    assert [decide.pause(Failures(n)) for n in (0, 1, 2, 3)] == [0.0, 0.5, 1.0, 2.0]
    assert decide.pause(Failures(50)) == decide.LONGEST_PAUSE


NEW, OLD, OLDER = "new", "old", "older"


@pytest.mark.parametrize(
    ("seen", "weight", "plans"),
    [
        ([], 100, []),
        ([RevisionSeen(NEW, False, 0)], 100, [RevisionPlan(NEW, 100, True, True)]),
        (
            [RevisionSeen(NEW, True, 0), RevisionSeen(OLD, True, 2)],
            100,
            [RevisionPlan(NEW, 100, True, True), RevisionPlan(OLD, 0, False, True)],
        ),
        (
            [RevisionSeen(NEW, True, 0), RevisionSeen(OLD, True, 0)],
            100,
            [RevisionPlan(NEW, 100, True, True), RevisionPlan(OLD, 0, False, False)],
        ),
        (
            [RevisionSeen(NEW, False, 0), RevisionSeen(OLD, True, 0)],
            100,
            [RevisionPlan(NEW, 0, True, True), RevisionPlan(OLD, 100, True, True)],
        ),
        (
            [RevisionSeen(NEW, True, 0), RevisionSeen(OLD, True, 0), RevisionSeen(OLDER, True, 1)],
            30,
            [
                RevisionPlan(NEW, 30, True, True),
                RevisionPlan(OLD, 70, True, True),
                RevisionPlan(OLDER, 0, False, True),
            ],
        ),
        (
            [RevisionSeen(NEW, False, 0), RevisionSeen(OLD, False, 0)],
            100,
            [RevisionPlan(NEW, 100, True, True), RevisionPlan(OLD, 0, False, False)],
        ),
    ],
)
def test_new_sessions_go_to_the_newest_revision_that_ever_served(
    seen: list[RevisionSeen], weight: int, plans: list[RevisionPlan]
) -> None:
    assert decide.revisions(seen, weight=weight) == plans


def test_the_shares_of_all_revisions_are_a_hundred() -> None:
    for weight in (0, 1, 50, 100):
        for proven in (True, False):
            seen = [RevisionSeen(NEW, proven, 0), RevisionSeen(OLD, True, 0), RevisionSeen(OLDER, True, 0)]
            assert sum(plan.weight for plan in decide.revisions(seen, weight=weight)) == 100


def test_a_sandbox_that_dies_soon_counts_as_a_failed_start() -> None:
    assert decide.lost_young(born=0.0, now=1.0)
    assert not decide.lost_young(born=0.0, now=decide.YOUNG)
