"""Routines in a release: the journeys over `kubectl apply`, what kubectl shows of them, the example, thirty steps under blows."""

from __future__ import annotations

import base64
import json
import random
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.installed import AGENTS, installed, small
from cluster.made import SANDBOX_IMAGE
from cluster.node import images, plan
from cluster.node.node import Node
from cluster.scheduled import Scheduled
from crash.routines.struck import Blow, Striking, blows, judge, watched
from crash.sweep.rows import posting
from fakes.effects import Effects, counting
from fakes.platform import poll
from fakes.tools import Tools
from journey import test_routine_invocations
from journey.test_routines import (
    HOST,
    KEY,
    OPS,
    PERIOD_S,
    POLICIES,
    People,
    accounted,
    begin_what_takes_a_minute,
    seen_after,
    test_a_crash_is_the_same_turn_and_no_failure,
    test_a_due_time_is_run_once_and_its_response_is_read_like_any_other,
    test_a_due_time_waits_for_the_run_before_it_where_that_is_said,
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
    "test_a_due_time_waits_for_the_run_before_it_where_that_is_said",
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
THIRTY = 5
"""Runs of thirty steps."""
EXAMPLE = ROOT / "examples" / "routine-triage"
SESSION = {"idleTimeout": "20s"}
"""A routine has a session: on one node not all of them can keep a pod."""


TOOLBOX = """
apiVersion: moorage.dev/v1alpha1
kind: Toolbox
metadata: {{name: all}}
spec: {{upstreams: [{{name: desk, mcp: {{url: "{desk}"}}, readOnly: [is_there]}}]}}
"""


@pytest.fixture(scope="module")
def people() -> Iterator[People]:
    made = People(plan.HOST)
    yield made
    made.close()


@pytest.fixture(scope="module")
def effects() -> Iterator[Effects]:
    with counting() as made:
        yield made


@pytest.fixture(scope="module")
def desk(effects: Effects) -> Iterator[Tools]:
    """Whose tool is an effect; the gateways reach it at the node's address."""
    with posting(effects, plan.HOST) as made:
        yield made


@pytest.fixture(scope="module")
def image(node: Node, sandbox_image: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The journeys' agents, the one of thirty steps, and the example's."""
    context = tmp_path_factory.mktemp("image")
    own, sweep = ROOT / "tests/cluster/routines", ROOT / "tests/crash/sweep/agents"
    for file in (own / "host.py", sweep / "reading.py", sweep / "work.py", sweep / "in_pod.py"):
        shutil.copy(file, context)
    shutil.copytree(EXAMPLE / "triage", context / "triage", ignore=shutil.ignore_patterns("__pycache__"))
    agents = context / "agents"
    agents.mkdir()
    (agents / "worker.py").write_text(HOST)
    (agents / "invoked.py").write_text(test_routine_invocations.HOST)
    shutil.copy(own / "thirty.py", agents)
    shutil.copy(EXAMPLE / "host.py", agents / "triage.py")
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
    desk: Tools,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Scheduled]:
    """By the journeys' own name for it. Its agents serve, its Secrets are there."""
    host_of = people.url.removeprefix("http://")
    values = small(parts) | {"models": {"secrets": ["ops", "chat"], "allowedUpstreams": [host_of, desk.named]}}
    folder = tmp_path_factory.mktemp("routines")
    with installed(node, image, folder, values) as release:
        for name, held in (
            ("ops", {"url": f"{people.url}/hook/secret-part", "signing": KEY}),
            ("chat", {"url": f"{people.url}/chat"}),
        ):
            body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": held}
            release.kubectl("apply", "--server-side", "-f", "-", given=json.dumps(body))
        release.kubectl("apply", "-f", "-", given=TOOLBOX.format(desk=desk.url))
        pool = {"pool": {"min": 2, "max": 30}, "session": SESSION}
        release.apply("worker", env=[running("worker")], **pool)
        release.apply("thirty", env=[running("thirty")], toolboxes=["all"], **(pool | {"pool": {"min": 1, "max": 2}}))
        release.apply(
            "invoked", env=[running("invoked")], protocols=["invocations"], **(pool | {"pool": {"min": 1, "max": 4}})
        )
        for agent in ("worker", "thirty", "invoked"):
            release.until_ready(agent, within=180)
        made = Scheduled(release, tmp_path_factory.mktemp("home"))
        begin_what_takes_a_minute(made)
        yield made


def running(agent: str) -> dict[str, str]:
    return {"name": "AGENT", "value": agent}


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


def test_the_example_runs_as_it_was_applied(laptop: Scheduled, tmp_path: Path) -> None:
    """`kubectl apply -f examples/routine-triage/` with an image for its source, which a cluster is not given by a path."""
    folder = tmp_path / "routine-triage"
    shutil.copytree(EXAMPLE, folder)
    manifest = yaml.safe_load((folder / "agent.yaml").read_text())
    del manifest["spec"]["source"]
    manifest["spec"] |= {"image": IMAGE, "env": [*manifest["spec"]["env"], running("triage")], "session": SESSION}
    (folder / "agent.yaml").write_text(yaml.safe_dump(manifest))
    release = laptop.release
    release.kubectl("apply", "-f", str(folder))
    release.until_ready("triage", within=120)
    poll("the gateways know its routine", lambda: laptop.is_there("nightly-triage"), within=60)
    first, second = (laptop.commands.json("routines", "run", "nightly-triage", "--wait") for _ in range(2))
    assert first["outcome"] == "succeeded" and "3 new issues, 2 of them urgent; 2 commits." in first["output"], first
    assert second["outcome"] == "succeeded" and "1 issues and 1 commits are new." in second["output"], second
    said = second["response_ids"][0]
    poll(
        "its object says so",
        lambda: laptop.object("nightly-triage").get("status", {}).get("lastResponse") == said,
        within=60,
    )
    table = release.kubectl("get", "routines", "nightly-triage")
    row = r"^nightly-triage +triage +0 6 \* \* 1-5 Europe/Berlin +20\d\d-\S+Z +succeeded +0 +True "
    assert re.search(row, table, re.M), table
    assert laptop.output(said, "triage").output_text == second["output"]
    release.kubectl("delete", "-f", str(folder), "--wait=false")


def test_a_run_by_invocation_that_is_cut_off_is_made_again_only_where_that_is_said(laptop: Scheduled) -> None:
    invoked = {"agent": "invoked", "protocol": "invocations", "input": None}
    laptop.write("cut-off", body={"do": "die"}, **invoked)
    laptop.write("tried-again", body={"do": "first dies"}, onFailure="retry", retries={"backoff": "1s"}, **invoked)
    for name in ("cut-off", "tried-again"):
        laptop.run(name)
    (lost,), (run,) = (laptop.ended(name, within=150) for name in ("cut-off", "tried-again"))
    assert (lost["outcome"], lost["tries"]) == ("failed", 1) and "interrupted" in lost["error"], lost
    assert (run["outcome"], run["tries"]) == ("succeeded", 2), run
    said = json.loads(run["output"])
    assert (
        said["times"] == 2 and said["headers"]["x-client-routine"] == "tried-again" and len(run["invocation_ids"]) == 2
    )


@pytest.mark.timeout(2400)
def test_a_run_of_thirty_steps_goes_on_from_where_its_pod_was_deleted(
    laptop: Scheduled, effects: Effects, request: pytest.FixtureRequest
) -> None:
    seed = request.config.getoption("--crash-seed") or int(time.time()) // 86_400
    print(f"crash seed {seed}: replay with --crash-seed {seed}")
    dice = random.Random(seed)

    def strike(name: str, blow: Blow) -> None:
        release, now = laptop.release, ("--grace-period=0", "--force", "--wait=false")
        if blow.victim == "gateway":
            release.platform("delete", "pod", release.parts("gateway")[0]["metadata"]["name"], *now)
        else:
            release.kubectl("delete", "pod", laptop.pod("thirty", name), *(now if blow.victim == "pod" else now[-1:]))

    for number in range(THIRTY):
        name = f"thirty-{number}"
        # The first has no other victim than its pod.
        struck = blows(dice, ("pod", "drained", "gateway") if number else ("pod", "drained"))
        one = Striking(name, struck, lambda blow, name=name: strike(name, blow))
        watched(effects, [one])
        laptop.write(name, agent="thirty", input=name, timeoutMinutes=8)
        laptop.release.until_ready("thirty")
        laptop.run(name)
        (run,) = poll(f"{name} ran", lambda name=name: over(laptop, name), within=420)
        laptop.release.until_whole()
        response = laptop.output(run["response_ids"][0], "thirty")
        judge(effects, one, run, response, laptop.platform.record("thirty", response.id)["attempts"])
        print(f"{name}: {', '.join(map(str, one.struck))}")


def over(laptop: Scheduled, name: str) -> list[dict[str, Any]]:
    """Runs that have ended, as far as there is a gateway to say so."""
    try:
        return [run for run in laptop.runs(name) if run["outcome"] is not None]
    except OSError:
        return []


def test_due_times_that_passed_while_no_gateway_ran(laptop: Scheduled) -> None:
    release, gateways = laptop.release, "deployment/moorage-gateway"
    release.until_whole()
    for policy in POLICIES:
        laptop.write(
            f"late-{policy}", every=f"{PERIOD_S}s", missedRuns=policy, concurrencyPolicy="queue", historyLimit=50
        )
    for policy in POLICIES:
        laptop.ended(f"late-{policy}", within=90)
    release.platform("scale", gateways, "--replicas=0")
    label = "app.kubernetes.io/component=gateway"
    poll(
        "no gateway runs, none that leaves either",
        lambda: not release.platform("get", "pods", "-l", label, "-o", "name"),
        within=90,
    )
    down = time.time()
    poll("due times pass", lambda: time.time() > down + 6 * PERIOD_S, within=7 * PERIOD_S)
    up = time.time()
    release.platform("scale", gateways, "--replicas=1")
    release.until_whole()
    accounted({policy: seen_after(laptop, f"late-{policy}", up) for policy in POLICIES}, down, up)
    for policy in POLICIES:
        laptop.remove(f"late-{policy}")


def test_no_value_of_a_secret_stands_in_what_the_cluster_shows(laptop: Scheduled) -> None:
    shown = laptop.release.kubectl("get", "routines,events,pods", "-o", "json") + laptop.platform.log.read_text()
    for secret in ("secret-part", KEY):
        assert secret not in shown and base64.b64encode(secret.encode()).decode() not in shown
    assert AGENTS and OPS
