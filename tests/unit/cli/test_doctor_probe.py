"""The probe of network policies: what it makes, what it concludes, and that it takes everything away."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from moorage.cli.doctor import probe_objects as objects
from moorage.cli.doctor.asked import Answer
from moorage.cli.doctor.findings import Finding
from moorage.cli.doctor.probe import Probe

pytestmark = pytest.mark.unit
RUNNING = {"status": {"phase": "Running", "podIP": "10.0.0.1"}}
FORBIDDEN = Answer("forbidden", why="no")


def ended(code: int) -> dict[str, Any]:
    return {"status": {"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": code}}}]}}


class Cluster:
    """Takes what is made; its pods are `pods` by role. `refuses` names a verb, or a kind that is not made."""

    def __init__(self, refuses: str = "", **pods: Any) -> None:
        self.pods = {"listener": RUNNING, "caller": ended(0)} | pods
        self.refuses = refuses
        self.made: list[dict[str, Any]] = []
        self.deleted: list[tuple[str, ...]] = []

    def __call__(self, *arguments: str, given: str = "", within: float | None = None) -> Answer:
        if arguments[0] == self.refuses:
            return FORBIDDEN
        if arguments[0] == "delete":
            self.deleted.append(arguments)
            return Answer("answered")
        if arguments[0] == "get":
            role = arguments[arguments.index("-l") + 1].rpartition("=")[2]
            pod = self.pods[role]
            if isinstance(pod, BaseException):
                raise pod
            return Answer("answered", json.dumps({"items": [pod] if pod is not None else []}))
        body = json.loads(given)
        if body["kind"] == self.refuses:
            return FORBIDDEN
        self.made.append(body)
        return Answer("answered", json.dumps({"metadata": {"uid": "u-1"}}))


def run(cluster: Cluster) -> list[Finding]:
    clock = itertools.count(0.0, 5.0)
    probe = Probe(cluster, "team", token="0a1b", monotonic=lambda: next(clock), pause=lambda seconds: None)
    return probe.run("r/sandbox:1")


@pytest.mark.parametrize(
    ("code", "level", "word"),
    [
        (0, "ok", "both directions"),
        (11, "wrong", "into a pod do not hold"),
        (12, "wrong", "out of a pod do not hold"),
        (13, "wrong", "into and out of pods do not hold"),
        (20, "could not look", "nothing is proved"),
        (137, "could not look", "137"),
    ],
)
def test_the_callers_end_is_the_verdict(code: int, level: str, word: str) -> None:
    cluster = Cluster(caller=ended(code))
    (found,) = run(cluster)
    assert found.level == level and word in found.says and (found.mend or level == "ok")
    assert len(cluster.deleted) == 1


@pytest.mark.parametrize(
    ("cluster", "word"),
    [
        (Cluster(listener=None), "never made"),
        (Cluster(caller={"status": {"phase": "Pending"}}), "caller did not get there within 90 s: it is Pending"),
        (
            Cluster(listener={"status": {"containerStatuses": [{"state": {"waiting": {"reason": "ErrImagePull", "message": "none"}}}]}}),
            "ErrImagePull: none",
        ),
        (Cluster("Pod"), "may not create, list and delete jobs, pods and networkpolicies in namespace team"),
        (Cluster("NetworkPolicy"), "may not create"),
        (Cluster("get"), "may not create"),
    ],
)  # fmt: skip
def test_a_probe_that_comes_to_no_end_is_told_and_taken_away(cluster: Cluster, word: str) -> None:
    (found,) = run(cluster)
    assert found.level == "could not look" and word in found.says
    assert [words[:2] for words in cluster.deleted] == [("delete", "jobs,pods,networkpolicies")]


def test_where_nothing_could_be_made_nothing_is_taken_away() -> None:
    cluster = Cluster("Job")
    (found,) = run(cluster)
    assert found.level == "could not look" and cluster.deleted == []


def test_what_cannot_be_taken_away_is_told_with_the_command() -> None:
    verdict, left = run(Cluster("delete"))
    assert verdict.level == "ok" and left.level == "wrong"
    assert left.mend == ("kubectl delete jobs,pods,networkpolicies --namespace=team -l moorage.dev/doctor=0a1b",)


def test_a_person_who_ends_it_leaves_nothing() -> None:
    cluster = Cluster(caller=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        run(cluster)
    assert len(cluster.deleted) == 1


def test_everything_belongs_to_a_job_that_ends_by_itself() -> None:
    cluster = Cluster()
    run(cluster)
    job, into, out, caller = cluster.made
    assert job["spec"]["activeDeadlineSeconds"] == objects.LIFE and job["spec"]["ttlSecondsAfterFinished"] == 0
    for one in (into, out, caller):
        (owner,) = one["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"], owner["uid"]) == ("Job", job["metadata"]["name"], "u-1")
    for one in (job, into, out, caller):
        assert one["metadata"]["labels"][objects.LABEL] == "0a1b" and one["metadata"]["namespace"] == "team"
