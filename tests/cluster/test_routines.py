"""Routines in a release: the laptop's journeys over `kubectl apply`, and what kubectl shows of them."""

from __future__ import annotations

import base64
import json
import re
import shutil
from collections.abc import Iterator

import pytest

from cluster.installed import AGENTS, installed, small
from cluster.made import SANDBOX_IMAGE
from cluster.node import images, plan
from cluster.node.node import Node
from cluster.scheduled import Scheduled
from fakes.platform import poll
from journey.test_routines import (
    HOST,
    KEY,
    OPS,
    People,
    begin_what_takes_a_minute,
    test_a_crash_is_the_same_turn_and_no_failure,
    test_a_due_time_is_run_once_and_its_response_is_read_like_any_other,
    test_a_reported_failure_is_tried_again_in_a_new_turn_that_is_told_why,
    test_a_routine_that_always_crashes_is_stopped_beside_others_that_run_and_resumed_by_hand,
    test_a_run_by_hand_waits_for_none_and_what_is_taken_away_runs_no_more,
    test_a_run_past_its_time_is_ended_and_keeps_what_it_said,
    test_a_session_lasts_from_run_to_run_and_each_is_told_of_the_one_before,
    test_chats_are_told_in_their_own_shape,
    test_nobody_is_told_where_failures_are_skipped,
    test_only_operators_of_the_tenant_see_routines,
    test_people_are_told_once_that_it_fails_and_once_that_it_runs_again,
    test_two_at_once,
    test_two_routines_of_one_owner_and_agent_that_are_due_at_once_are_both_run,
    test_what_a_step_of_a_failed_try_has_done_is_not_done_again_by_the_next,
)
from tree import ROOT

__all__ = [
    "test_a_crash_is_the_same_turn_and_no_failure",
    "test_a_due_time_is_run_once_and_its_response_is_read_like_any_other",
    "test_a_reported_failure_is_tried_again_in_a_new_turn_that_is_told_why",
    "test_a_routine_that_always_crashes_is_stopped_beside_others_that_run_and_resumed_by_hand",
    "test_a_run_by_hand_waits_for_none_and_what_is_taken_away_runs_no_more",
    "test_a_run_past_its_time_is_ended_and_keeps_what_it_said",
    "test_a_session_lasts_from_run_to_run_and_each_is_told_of_the_one_before",
    "test_chats_are_told_in_their_own_shape",
    "test_nobody_is_told_where_failures_are_skipped",
    "test_only_operators_of_the_tenant_see_routines",
    "test_people_are_told_once_that_it_fails_and_once_that_it_runs_again",
    "test_two_at_once",
    "test_two_routines_of_one_owner_and_agent_that_are_due_at_once_are_both_run",
    "test_what_a_step_of_a_failed_try_has_done_is_not_done_again_by_the_next",
]

pytestmark = [pytest.mark.cluster, pytest.mark.routines, pytest.mark.timeout(600)]

IMAGE = "localhost/moorage-routines:test"
SESSION = {"idleTimeout": "20s"}
"""A routine has a session: on one node not all of them can keep a pod."""


@pytest.fixture(scope="module")
def people() -> Iterator[People]:
    made = People(plan.HOST)
    yield made
    made.close()


@pytest.fixture(scope="module")
def image(node: Node, sandbox_image: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The journeys' agent."""
    context = tmp_path_factory.mktemp("image")
    (context / "agents").mkdir()
    (context / "agents" / "worker.py").write_text(HOST)
    shutil.copy(ROOT / "tests/cluster/routines/host.py", context)
    archive = plan.cache() / "routines-test.oci.tar"
    images.build(IMAGE, ROOT / "tests/cluster/routines/Dockerfile", context, SANDBOX_IMAGE, archive)
    node.load(archive)
    return IMAGE


@pytest.fixture(scope="module")
def laptop(
    node: Node,
    parts: dict[str, str],
    image: str,
    people: People,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Scheduled]:
    """By the journeys' own name for it. Its agent serves, its Secrets are there."""
    host_of = people.url.removeprefix("http://")
    values = small(parts) | {"models": {"secrets": ["ops", "chat"], "allowedUpstreams": [host_of]}}
    folder = tmp_path_factory.mktemp("routines")
    with installed(node, image, folder, values) as release:
        for name, held in (
            ("ops", {"url": f"{people.url}/hook/secret-part", "signing": KEY}),
            ("chat", {"url": f"{people.url}/chat"}),
        ):
            body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": held}
            release.kubectl("apply", "--server-side", "-f", "-", given=json.dumps(body))
        pool = {"pool": {"min": 2, "max": 30}, "session": SESSION}
        release.apply("worker", env=[{"name": "AGENT", "value": "worker"}], **pool)
        release.until_ready("worker", within=180)
        made = Scheduled(release, tmp_path_factory.mktemp("home"))
        begin_what_takes_a_minute(made)
        yield made


def test_kubectl_shows_when_it_is_due_and_how_it_ended(laptop: Scheduled) -> None:
    laptop.write("shown", schedule="0 6 * * 1-5", timeZone="Europe/Berlin", input="hello")
    laptop.run("shown")
    (run,) = laptop.ended("shown")
    poll("its object says so", lambda: (laptop.object("shown").get("status") or {}).get("lastOutcome"), within=60)
    table = laptop.release.kubectl("get", "routines", "shown")
    heads, row = (line.split() for line in table.splitlines())
    assert heads == ["NAME", "AGENT", "SCHEDULE", "NEXT", "LAST", "FAILURES", "READY", "AGE"], table
    assert re.search(r"^shown +worker +0 6 \* \* 1-5 Europe/Berlin +20\d\d-\S+Z +succeeded +0 +True ", table, re.M), (
        table
    )
    assert row[0] == "shown"
    held = laptop.object("shown")["status"]
    assert held["lastResponse"] == run["response_ids"][0]
    with laptop.platform.client("worker") as client:
        assert "heard: hello" in client.responses.retrieve(held["lastResponse"]).output_text


@pytest.mark.parametrize(
    ("name", "spec", "said"),
    [
        ("mars", {"schedule": "0 6 * * *", "timeZone": "Mars/Olympus"}, "Mars/Olympus"),
        ("never", {"schedule": "0 6 31 2 *"}, "schedule"),
        ("lost", {"schedule": "0 6 * * *", "agent": "nowhere"}, "spec.agent: there is no agent 'nowhere' yet"),
        ("unnamed", {"schedule": "0 6 * * *", "input": "{{ nobody }}"}, "nobody"),
        (
            "untold",
            {"schedule": "0 6 * * *", "alerts": [{"name": "ops", "url": {"secret": "none", "key": "url"}}]},
            "none",
        ),
    ],
)
def test_what_is_wrong_with_one_stands_in_its_condition(
    laptop: Scheduled, name: str, spec: dict[str, object], said: str
) -> None:
    body = {
        "apiVersion": "moorage.dev/v1alpha1", "kind": "Routine", "metadata": {"name": name},
        "spec": {"agent": "worker", "input": "hello", **spec},
    }  # fmt: skip
    laptop.keep(body)
    laptop.until_said(name, said)
    assert laptop.condition(name)["reason"]
    laptop.remove(name)


def test_no_value_of_a_secret_stands_in_what_the_cluster_shows(laptop: Scheduled) -> None:
    shown = laptop.release.kubectl("get", "routines,events,pods", "-o", "json") + laptop.platform.log.read_text()
    for secret in ("secret-part", KEY):
        assert secret not in shown and base64.b64encode(secret.encode()).decode() not in shown
    assert AGENTS and OPS
