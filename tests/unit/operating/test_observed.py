"""What the cluster holds, as told in any order: by watches, by lists that are older than the watches, by our own writes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from moorage_operator import marks
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
    waiting = asyncio.ensure_future(observed.change(("n", "a"), 5.0))
    await asyncio.sleep(0)
    observed.pods.put(pod("b", 1))
    await asyncio.sleep(0)
    assert not waiting.done()
    observed.pods.put(pod("a", 1))
    assert await waiting and observed._waiters == {}


def test_the_loop_is_woken_by_a_pod_that_went_and_by_nothing_that_it_did_itself() -> None:
    observed, woken = Observed(), []
    observed.wake = lambda: woken.append("a pod went")
    observed.pods.put(pod("a", 1))
    observed.pods.put(pod("a", 2))
    observed.claims.put(pod("ws", 1))
    observed.pods.drop(pod("a", 9, uid="a former one"))
    assert woken == []
    observed.pods.drop(pod("a", 3))
    assert woken == ["a pod went"]


def test_news_is_what_people_changed_of_an_agent_and_not_the_status_that_we_wrote() -> None:
    observed, news = Observed(), []
    observed.news = lambda: news.append(1)
    made = pod("agent", 1)
    made["metadata"]["generation"] = 1
    observed.agents.put(made)
    assert len(news) == 1
    observed.agents.put({**made, "metadata": {**made["metadata"], "resourceVersion": "2"}, "status": {}})
    assert len(news) == 1
    observed.agents.put({**made, "metadata": {**made["metadata"], "resourceVersion": "3", "generation": 2}})
    observed.agents.drop(made)
    assert len(news) == 3


def test_a_copy_leaves_out_what_nobody_reads() -> None:
    body = pod("a", 1)
    body["metadata"]["managedFields"] = [{}]
    assert plain(body) == pod("a", 1) and "managedFields" in body["metadata"]
    whole = {"containers": [{"name": "agent", "image": "one", "env": [{"name": "A"}]}], "volumes": [{"name": "v"}]}
    kept = plain({**pod("a", 1), "kind": "Pod", "spec": whole, "status": {"phase": "Running"}})
    # An operator that starts runs a pod's revision on with the image that the pod has.
    assert kept["spec"] == {"containers": [{"name": "agent", "image": "one"}]} and kept["status"] == {
        "phase": "Running"
    }
    assert "spec" in plain({**pod("a", 1), "kind": "HostedAgent", "spec": {}})


def test_what_people_asked_is_told_from_what_was_written_back() -> None:
    observed = Observed()

    def agent(version: int, generation: int, uid: str = "u") -> dict[str, Any]:
        body = pod("a", version, uid)
        body["metadata"]["generation"] = generation
        return body

    counts = []
    for body in (agent(1, 1), agent(2, 1), agent(3, 2), agent(4, 2), agent(5, 1, uid="fresh")):
        observed.agents.put(body)
        counts.append(observed.asked)
    observed.agents.drop(agent(6, 1, uid="fresh"))
    assert [*counts, observed.asked] == [1, 1, 2, 2, 3, 4]


def test_an_agents_claims_are_found_as_they_are_now() -> None:
    observed = Observed()

    def claim(name: str, agent: str, version: int) -> dict[str, Any]:
        body = pod(name, version, uid=name)
        body["metadata"]["labels"] = marks.labels(agent)
        return body

    for body in (claim("ws-1", "a", 1), claim("ws-2", "a", 1), claim("ws-3", "b", 1)):
        observed.claims.put(body)
    observed.claims.put(claim("ws-1", "a", 2))
    observed.claims.put(claim("ws-2", "b", 2))
    assert observed.claims_of("n", "a") == [claim("ws-1", "a", 2)]
    assert observed.claims_of("n", "b") == [claim("ws-3", "b", 1), claim("ws-2", "b", 2)]
    assert observed.claims_of("elsewhere", "a") == []
    observed.claims.drop(claim("ws-1", "a", 3))
    assert observed.claims_of("n", "a") == []
