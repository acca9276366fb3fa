"""What a pod's object says of the sandbox in it."""

from __future__ import annotations

from typing import Any

import pytest

from moorage_operator.pods import PodSeen, said, seen

pytestmark = pytest.mark.unit


def container(name: str, **state: Any) -> dict[str, Any]:
    return {"name": name, "state": state}


def pod(phase: str, *containers: dict[str, Any], init: tuple[dict[str, Any], ...] = (), **more: Any) -> dict[str, Any]:
    meta = {"name": "sb-1", "namespace": "agents", **more.pop("meta", {})}
    status = {"phase": phase, "containerStatuses": list(containers), "initContainerStatuses": list(init), **more}
    return {"metadata": meta, "status": status}


RUNS = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
IS_READY = [{"type": "Ready", "status": "True"}]
BOTH = (container("agent", **RUNS), container("shim", **RUNS))


def ended(name: str, code: int, reason: str = "Error") -> dict[str, Any]:
    return container(name, terminated={"exitCode": code, "reason": reason})


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (None, PodSeen("gone", reason="its pod was deleted")),
        (pod("Running", *BOTH, conditions=IS_READY, podIP="10.0.0.1"), PodSeen("ready", address="10.0.0.1")),
        (pod("Running", *BOTH, conditions=IS_READY), PodSeen("starting", reason="it is still starting")),
        (
            pod("Running", *BOTH, conditions=IS_READY, podIP="10.0.0.1", meta={"deletionTimestamp": "2026-01-01T00:00:00Z"}),
            PodSeen("leaving", reason="its pod is being deleted"),
        ),
        (
            pod("Running", ended("agent", 137, "OOMKilled"), container("shim", **RUNS), conditions=IS_READY, podIP="10.0.0.1"),
            PodSeen("ended", reason="container agent: OOMKilled, exit code 137", faulty="agent"),
        ),
        (
            pod("Failed", ended("shim", 1), ended("agent", 1)),
            PodSeen("ended", reason="container agent: Error, exit code 1", faulty="agent"),
        ),
        (
            pod("Failed", reason="Evicted", message="The node was low on memory."),
            PodSeen("ended", reason="Evicted: The node was low on memory."),
        ),
        (
            pod("Pending", container("agent", waiting={"reason": "ImagePullBackOff", "message": "no such image"})),
            PodSeen("failing", reason="container agent: ImagePullBackOff: no such image"),
        ),
        (
            pod("Pending", conditions=[{"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available"}]),
            PodSeen("starting", reason="no node takes it: 0/1 nodes are available"),
        ),
        (
            pod("Pending", container("agent", waiting={"reason": "PodInitializing"}), init=(container("folders", **RUNS),)),
            PodSeen("starting", reason="it is still starting (agent: PodInitializing)"),
        ),
        (
            pod("Failed", init=(ended("folders", 2),)),
            PodSeen("ended", reason="container folders: Error, exit code 2", faulty="folders"),
        ),
    ],
    ids=["gone", "ready", "no-address", "leaving", "oom", "crash", "evicted", "no-image", "unschedulable", "starting", "init"],
)  # fmt: skip
def test_the_state_of_a_pod(body: dict[str, Any] | None, expected: PodSeen) -> None:
    assert seen(body) == expected


def turned(kind: str, status: str, second: int) -> dict[str, Any]:
    return {"type": kind, "status": status, "lastTransitionTime": f"2026-01-01T00:00:{second:02}Z"}


@pytest.mark.parametrize(
    ("body", "lapsed"),
    [
        (pod("Running", *BOTH, conditions=[turned("Initialized", "True", 5), turned("Ready", "False", 40)], podIP="10.0.0.1"), True),
        (pod("Running", *BOTH, conditions=[turned("Initialized", "True", 5), turned("Ready", "False", 1)], podIP="10.0.0.1"), False),
        (pod("Running", *BOTH, conditions=[turned("Initialized", "True", 5), turned("Ready", "True", 40)], podIP="10.0.0.1"), False),
        (pod("Running", *BOTH, conditions=[turned("Initialized", "True", 5), turned("Ready", "False", 40)]), False),
        (
            pod("Pending", BOTH[0], container("shim", waiting={"reason": "CreateContainerError"}),
                conditions=[turned("Initialized", "True", 5), turned("Ready", "False", 40)], podIP="10.0.0.1"),
            False,
        ),
        (pod("Running", *BOTH, podIP="10.0.0.1"), False),
    ],
    ids=["was ready", "never was", "is ready", "no address", "does not run", "nothing said"],
)  # fmt: skip
def test_a_pod_that_was_ready_is_told_from_one_that_never_was(body: dict[str, Any], lapsed: bool) -> None:
    assert seen(body).lapsed is lapsed


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"ts":"…","stream":"stdout","session":null,"sandbox":"sb-1","line":"ImportError: parrot"}', "ImportError: parrot"),
        ("moorage: init did not listen", "moorage: init did not listen"),
        ('["line"]', '["line"]'),
        ('{"lines":1}', '{"lines":1}'),
        ('{"line":[1]}', '{"line":[1]}'),
        ("[" * 60_000, "[" * 60_000),
    ],
    ids=["a shim's", "no JSON", "a list", "nothing said", "no text", "too deep"],
)  # fmt: skip
def test_what_an_agent_printed_is_told_without_what_its_shim_wrote_around_it(line: str, words: str) -> None:
    assert said(line) == words
