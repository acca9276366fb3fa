"""The fleet knows the sandboxes of each revision without looking at those of all others."""

from __future__ import annotations

import pytest

from moorage_api.ledger.records import Descriptor
from moorage_api.provider.fleet import Fleet, Held

pytestmark = pytest.mark.unit


def held(sandbox: str, revision: str) -> Held:
    return Held(Descriptor(sandbox, "dev", "a", revision, "http://h:1", "s", f"ws-{sandbox}", ()), revision, 1.0)


def test_a_revisions_sandboxes_are_its_own_in_the_order_they_came() -> None:
    fleet = Fleet()
    for number, revision in enumerate(("r1", "r2", "r1", "r1")):
        fleet.sandboxes[f"sb-{number}"] = held(f"sb-{number}", revision)
    assert [one.descriptor.sandbox for one in fleet.of_revision("r1")] == ["sb-0", "sb-2", "sb-3"]
    assert [one.descriptor.sandbox for one in fleet.of_revision("r2")] == ["sb-1"]
    assert fleet.of_revision("r3") == []
    assert list(fleet.sandboxes) == ["sb-0", "sb-1", "sb-2", "sb-3"] and len(fleet.sandboxes.values()) == 4


def test_a_sandbox_that_went_or_came_again_is_in_one_place_or_none() -> None:
    fleet = Fleet()
    fleet.sandboxes["sb-1"] = held("sb-1", "r1")
    fleet.sandboxes["sb-1"] = fresh = held("sb-1", "r2")
    assert fleet.of_revision("r1") == [] and fleet.of_revision("r2") == [fresh]
    assert fleet.sandboxes.pop("sb-1", None) is fresh
    assert fleet.sandboxes.pop("sb-1", None) is None
    assert fleet.of_revision("r2") == [] and len(fleet.sandboxes) == 0 and "sb-1" not in fleet.sandboxes
