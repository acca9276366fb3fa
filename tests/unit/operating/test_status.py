"""A status is written when it says something new, and keeps the times of what did not change."""

from __future__ import annotations

import pytest

from moorage_api import conditions
from moorage_operator.status import Counts, Report, status

pytestmark = pytest.mark.unit


def report(now: float, *, good: bool = True, warm: int = 1) -> Report:
    seen = conditions.mark_true(conditions.begin(3), conditions.SOURCE_RESOLVED, "Resolved", "Revision r.", now=now)
    mark = conditions.mark_true if good else conditions.mark_false
    seen = mark(seen, conditions.POOL_READY, "Filled", "…", now=now)
    seen = conditions.mark_true(seen, conditions.PUBLISHED, "InCatalog", "…", now=now)
    return Report(3, conditions.propagate_ready(seen, now=now), "r1", "image:1", "https://x/v1", Counts(warm=warm))


def test_what_says_nothing_new_is_not_written() -> None:
    first = status(report(1000.0), {})
    assert first is not None and first["conditions"][0]["lastTransitionTime"] == "1970-01-01T00:16:40Z"
    assert status(report(2000.0), first) is None, "an operator that starts again has other times, and nothing to say"


def test_a_time_moves_with_its_condition_alone() -> None:
    first = status(report(1000.0), {})
    assert first is not None
    fresh = status(report(2000.0, good=False), first)
    assert fresh is not None
    times = {one["type"]: one["lastTransitionTime"] for one in fresh["conditions"]}
    assert times["SourceResolved"] == "1970-01-01T00:16:40Z"
    assert times["PoolReady"] == times["Ready"] == "1970-01-01T00:33:20Z"


def test_counts_are_news_and_empty_texts_are_not() -> None:
    first = status(report(1000.0), {})
    assert first is not None
    assert status(report(1000.0, warm=2), first) is not None
    bare = status(Report(1, conditions.begin(1)), {})
    assert bare is not None and "url" not in bare
