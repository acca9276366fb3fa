"""Which pods and volumes count as out of reach, by what the pods say, and from when on."""

from __future__ import annotations

from typing import Any

import pytest

from moorage_api import names
from moorage_api.ledger.records import SessionIdentity
from moorage_operator import marks, objects
from moorage_operator.observed import Observed
from moorage_operator.reach import Reach, kept_away, overdue, silent
from unit.operating.test_machine import pod
from unit.operating.test_objects import GIVEN, revision, settings

pytestmark = pytest.mark.unit

WITHIN = 300.0
ZERO = "0/2 nodes are available: "
PREEMPTION = ". preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."
AFFINITY = "node(s) didn't match PersistentVolume's node affinity"


def conditions(**held: tuple[str, str]) -> dict[str, Any]:
    """A pod with these conditions: status and reason."""
    said = [{"type": name, "status": status, "reason": reason} for name, (status, reason) in held.items()]
    return {"metadata": {}, "status": {"conditions": said}}


def unplaced(message: str) -> dict[str, Any]:
    found = conditions(PodScheduled=("False", "Unschedulable"))
    found["status"]["conditions"][0]["message"] = message
    return found


@pytest.mark.parametrize(
    ("message", "out"),
    [
        (f"{ZERO}2 {AFFINITY}{PREEMPTION}", True),
        (f"{ZERO}1 node(s) had untolerated taint(s), 1 {AFFINITY}{PREEMPTION}", True),
        (
            f"{ZERO}1 node(s) had untolerated taint {{node.kubernetes.io/unreachable: }}, 1 node(s) had volume node affinity conflict.",
            True,
        ),
        (f"{ZERO}2 node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s).", True),
        (f'{ZERO}persistentvolumeclaim "ws-1" not found{PREEMPTION}', True),
        (f'{ZERO}persistentvolumeclaim "ws-1" is being deleted{PREEMPTION}', True),
        (f"{ZERO}2 node(s) had no available volume zone.", True),
        (f"{ZERO}1 node(s) didn't match Pod's node affinity/selector, 1 {AFFINITY}{PREEMPTION}", True),
        (f"{ZERO}2 node(s) didn't match Pod's node affinity/selector{PREEMPTION}", False),
        # Its volume may be on the node that is only full, cordoned, or under pressure.
        (
            f"{ZERO}1 node(s) had untolerated taint {{node.kubernetes.io/disk-pressure: }}, 1 {AFFINITY}{PREEMPTION}",
            False,
        ),
        (f"{ZERO}1 Insufficient cpu, 1 {AFFINITY}{PREEMPTION}", False),
        (f"{ZERO}1 node(s) were unschedulable, 1 {AFFINITY}{PREEMPTION}", False),
        (f"{ZERO}2 Insufficient memory{PREEMPTION}", False),
        (f"{ZERO}2 node(s) had untolerated taint(s){PREEMPTION}", False),
        ("", False),
    ],
)
def test_a_pod_that_no_node_takes(message: str, out: bool) -> None:
    found = kept_away(unplaced(message))
    assert found is not None and bool(found) is out


def test_a_pod_that_was_placed() -> None:
    assert kept_away(conditions()) is None
    assert kept_away(conditions(PodScheduled=("True", ""))) is None
    begun = {"PodScheduled": ("True", "")}
    assert kept_away(conditions(**begun, PodReadyToStartContainers=("False", "")))
    assert kept_away(conditions(**begun, PodReadyToStartContainers=("True", ""))) == ""


@pytest.mark.parametrize("part", ["initContainerStatuses", "containerStatuses"])
@pytest.mark.parametrize("phase", ["Pending", "Running", "Failed"])
@pytest.mark.parametrize("state", ["running", "terminated"])
def test_a_pod_of_which_a_container_ran_got_to_its_volume_though_its_sandbox_was_taken_down(
    part: str, phase: str, state: str
) -> None:
    found = conditions(PodScheduled=("True", ""), PodReadyToStartContainers=("False", ""))
    found["status"] |= {"phase": phase, part: [{"name": "agent", "state": {state: {}}}]}
    assert kept_away(found) == ""


def test_a_pod_that_a_node_refused_says_nothing_of_its_volume() -> None:
    found = conditions(PodScheduled=("True", ""), PodReadyToStartContainers=("False", ""))
    found["status"] |= {"phase": "Failed", "reason": "OutOfcpu"}
    assert kept_away(found) == ""
    found["status"] |= {"phase": "Pending", "containerStatuses": [{"name": "agent", "state": {"waiting": {}}}]}
    assert kept_away(found)


def test_a_node_is_silent_where_the_cluster_took_ready_away_and_the_node_did_not() -> None:
    assert silent(conditions(Ready=("False", ""), ContainersReady=("True", "")))
    own = ("False", "ContainersNotReady")
    assert not silent(conditions(Ready=own, ContainersReady=own))
    assert not silent(conditions(Ready=("True", ""), ContainersReady=("True", "")))


class Scene:
    """Two pods' worth of what is observed, and a clock."""

    def __init__(self) -> None:
        self.at = 1000.0
        self.observed = Observed()
        self.reach = Reach(self.observed, key=GIVEN["MOORAGE_TOKEN_KEY"], within=WITHIN, now=lambda: self.at)
        self.body = pod(image="reg.example/a:1")
        partition = names.partition("t", "a", "ann", "one")
        identity = SessionIdentity("t", "a", "ann", "one", partition)
        claim = objects.claim(revision(), "sb-0", "ws-1", settings(), ledger="one")
        claim["metadata"]["annotations"] |= marks.noted(names.session_key("t", partition), 7, identity)
        self.observed.claims.put(claim)

    def put(self, **meta: Any) -> None:
        self.observed.pods.put({**self.body, "metadata": {**self.body["metadata"], **meta}})

    def say(self, status: dict[str, Any]) -> None:
        self.observed.pods.put({**self.body, "status": status["status"]})

    def out(self, after: float) -> list[tuple[str, str]]:
        """(volume, sandbox) of what is out of reach, so many seconds later, with looks between as an operator takes them."""
        until = self.at + after
        while self.at + 5 < until:
            self.at += 5
            self.reach.look()
        self.at = until
        return [(one.volume, one.sandbox) for one in self.reach.look()]


ENDING = {"deletionTimestamp": "2026-01-01T00:00:30Z", "deletionGracePeriodSeconds": 30}


def test_a_pod_that_was_told_to_end_is_out_of_reach_its_grace_and_the_setting_later() -> None:
    scene = Scene()
    scene.put()
    assert overdue(scene.body) is None and scene.out(1000) == []
    scene.put(**ENDING)
    assert scene.out(0) == [] and scene.out(30) == [] and scene.out(WITHIN - 1) == []
    assert scene.out(1) == [("ws-1", "sb-1")]
    assert scene.reach.out == 1
    (gone,) = list(scene.observed.pods)
    scene.observed.pods.drop(gone)
    assert scene.out(1) == [] and scene.reach.out == 0


def test_a_pod_whose_node_is_silent_and_that_nobody_told_to_end_is_none() -> None:
    scene = Scene()
    scene.say(conditions(Ready=("False", ""), ContainersReady=("True", "")))
    assert scene.out(0) == [] and scene.out(10 * WITHIN) == []


def test_whose_marks_are_not_ours_is_none() -> None:
    scene = Scene()
    scene.put(name="sb-2", **ENDING)  # another pod, with the token of sb-1
    scene.out(0)
    assert scene.out(10 * WITHIN) == []


def test_a_volume_is_out_of_reach_after_so_long_whichever_pods_were_tried_on_it() -> None:
    scene, away = Scene(), unplaced(f"{ZERO}2 {AFFINITY}.")
    name = ("agents", "sb-1")
    for after in (0.0, 100.0, 100.0):
        scene.reach.coming(name, "ws-1")
        scene.say(conditions())  # made, and nothing known of it yet
        assert scene.out(after) == []
        scene.say(away)
        assert scene.out(0) == []
        scene.reach.missed(name)
    assert scene.out(100) == [], "nobody has tried since"
    scene.reach.coming(name, "ws-1")
    assert scene.out(0) == [("ws-1", "")]
    assert not scene.reach.left_behind(name)


def test_a_volume_that_nobody_tries_to_get_to_any_more_is_not_given_up() -> None:
    scene, name = Scene(), ("agents", "sb-1")
    scene.reach.coming(name, "ws-1")
    scene.say(unplaced(f"{ZERO}2 {AFFINITY}."))
    assert scene.out(WITHIN - 1) == []
    scene.reach.missed(name)
    assert scene.out(10 * WITHIN) == []
    scene.reach.coming(name, "ws-1")
    assert scene.out(0) == [] and scene.out(WITHIN - 1) == [] and scene.out(1) == [("ws-1", "")]


@pytest.mark.parametrize("happens", ["ready", "waits for room", "lost mark"])
def test_what_ends_that(happens: str) -> None:
    scene, name = Scene(), ("agents", "sb-1")
    scene.reach.coming(name, "ws-1")
    scene.say(unplaced(f"{ZERO}2 {AFFINITY}."))
    assert scene.out(0) == [] and scene.out(WITHIN) == [("ws-1", "")]
    if happens == "ready":
        scene.reach.came(name)
    elif happens == "waits for room":
        scene.say(unplaced(f"{ZERO}1 Insufficient cpu, 1 {AFFINITY}."))
    else:
        (claim,) = list(scene.observed.claims)
        claim = {**claim, "metadata": {**claim["metadata"], "labels": {marks.WORKSPACE: marks.LOST_FILES}}}
        scene.observed.claims.put(claim)
    assert scene.out(0) == []


def test_an_operator_that_stood_still_begins_to_count_anew() -> None:
    scene, name = Scene(), ("agents", "sb-1")
    scene.reach.coming(name, "ws-1")
    scene.body = scene.body | unplaced(f"{ZERO}2 {AFFINITY}.") | {"metadata": scene.body["metadata"]}
    scene.put(**ENDING)
    assert scene.out(WITHIN - 1) == []
    scene.at += WITHIN
    assert scene.out(0) == [] and scene.out(WITHIN - 1) == []
    assert scene.out(1) == [("ws-1", "")] and scene.out(30) == [("ws-1", "sb-1"), ("ws-1", "")]


def test_a_cluster_that_does_not_answer_says_nothing_of_a_volume() -> None:
    scene, name, away = Scene(), ("agents", "sb-1"), unplaced(f"{ZERO}2 {AFFINITY}.")
    scene.reach.coming(name, "ws-1")
    scene.say(away)
    assert scene.out(WITHIN - 10) == []
    scene.reach.unsure(name)
    assert scene.out(100) == []
    scene.reach.coming(name, "ws-1")
    assert scene.out(0) == [] and scene.out(WITHIN - 1) == [] and scene.out(1) == [("ws-1", "")]


def test_a_pod_on_a_claim_that_was_given_up_is_told() -> None:
    scene, name = Scene(), ("agents", "sb-1")
    scene.reach.coming(name, "ws-1")
    assert not scene.reach.left_behind(name)
    (claim,) = list(scene.observed.claims)
    scene.observed.claims.drop(claim)
    scene.reach.abandoned(("agents", "ws-1"))
    assert scene.reach.left_behind(name) and scene.reach.left == 1


def test_each_is_told_once() -> None:
    scene = Scene()
    scene.put(**ENDING)
    scene.out(0)
    scene.out(WITHIN + 30)
    assert scene.reach.untold("ws-1", "X") and not scene.reach.untold("ws-1", "X")
    assert scene.out(1) == [("ws-1", "sb-1")] and not scene.reach.untold("ws-1", "X")
