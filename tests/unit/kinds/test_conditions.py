"""Conditions say what holds, and their transition time moves only with their status."""

from __future__ import annotations

import pytest

from moorage_api import conditions

pytestmark = pytest.mark.unit


def test_ready_follows_the_other_three() -> None:
    seen = conditions.begin(4)
    assert conditions.propagate_ready(seen, now=1.0).get(conditions.READY).status == "Unknown"  # type: ignore[union-attr]
    for kind in (conditions.SOURCE_RESOLVED, conditions.POOL_READY, conditions.PUBLISHED):
        seen = conditions.mark_true(seen, kind, conditions.RESOLVED, "fine", now=2.0)
    assert conditions.propagate_ready(seen, now=3.0).is_true(conditions.READY)
    assert seen.message is None
    seen = conditions.mark_false(seen, conditions.POOL_READY, conditions.AGENT_BROKEN, "it exits at once", now=4.0)
    ready = conditions.propagate_ready(seen, now=5.0).get(conditions.READY)
    assert ready is not None and ready.status == "False" and ready.message == "it exits at once"
    assert seen.message == "it exits at once"


def test_a_repeated_mark_keeps_the_time_of_the_change() -> None:
    seen = conditions.mark_true(conditions.begin(1), conditions.PUBLISHED, "a", "x", now=1.0)
    seen = conditions.mark_true(seen, conditions.PUBLISHED, "b", "y", now=9.0)
    held = seen.get(conditions.PUBLISHED)
    assert held is not None and held.transition == 1.0 and held.reason == "b"


def test_the_wire_form_has_kubernetes_names_in_a_fixed_order() -> None:
    seen = conditions.mark_true(conditions.begin(7), conditions.PUBLISHED, "a", "x", now=1.0)
    seen = conditions.mark_true(seen, conditions.SOURCE_RESOLVED, "a", "x", now=1.0)
    listed = seen.to_list()
    assert [c["type"] for c in listed] == ["SourceResolved", "Published"]
    assert listed[0]["observedGeneration"] == 7 and listed[0]["lastTransitionTime"] == 1.0
