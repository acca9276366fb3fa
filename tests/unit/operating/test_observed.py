"""What the cluster holds, as told in any order: by watches, by lists that are older than the watches, by our own writes."""

from __future__ import annotations

from typing import Any

import pytest

from moorage_operator.observed import REMEMBERED, Observed, plain

pytestmark = pytest.mark.unit


def pod(name: str, version: int, uid: str = "u") -> dict[str, Any]:
    return {"metadata": {"namespace": "n", "name": name, "uid": uid, "resourceVersion": str(version)}}


def test_an_older_version_is_passed_over_and_a_namesake_is_not() -> None:
    shelf = Observed().pods
    shelf.put(pod("a", 9))
    shelf.put(pod("a", 7))
    assert shelf.get(("n", "a")) == pod("a", 9)
    shelf.put(pod("a", 3, uid="another"))
    assert shelf.get(("n", "a")) == pod("a", 3, uid="another")
    shelf.drop(pod("a", 9))
    assert shelf.get(("n", "a")) is not None, "the one that went is the former"


def test_what_is_gone_does_not_come_back_with_an_old_list() -> None:
    shelf = Observed().pods
    shelf.put(pod("a", 1))
    shelf.drop(pod("a", 2))
    shelf.put(pod("a", 1))
    assert shelf.get(("n", "a")) is None
    shelf.put(pod("a", 3, uid="fresh"))
    assert shelf.get(("n", "a")) is not None


def test_what_is_remembered_is_bounded() -> None:
    shelf = Observed().pods
    for number in range(REMEMBERED + 10):
        shelf.drop(pod("a", 1, uid=str(number)))
    assert len(shelf._gone) == REMEMBERED


async def test_whoever_waits_for_a_pod_hears_of_it_alone() -> None:
    observed = Observed()
    assert not await observed.change(("n", "a"), 0.0)
    woken = []
    observed.wake = lambda: woken.append(1)
    observed.pods.put(pod("b", 1))
    assert woken and observed._waiters == {}


def test_a_copy_leaves_out_what_nobody_reads() -> None:
    body = pod("a", 1)
    body["metadata"]["managedFields"] = [{}]
    assert plain(body) == pod("a", 1) and "managedFields" in body["metadata"]
