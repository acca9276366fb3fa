"""Everything that can die under a call on a cluster, once each per change, ten times with --long: its caller gets one whole answer.

The chart with values-ha.yaml: two gateways, two operators, its own Valkey, a real S3 server. The record of each call proves that the blow
hit what it was to hit: another attempt where the sandbox was struck, a single one where it was not.
"""

from __future__ import annotations

import json
import os
import threading
import time
import urllib.request
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

from chart import helm
from cluster import blows
from cluster.calls import calling, numbers
from cluster.installed import PORT, Installed, installed, over_s3, small
from cluster.node import plan
from cluster.node.node import Node
from fakes.platform import poll
from fakes.s3 import S3Server

pytestmark = [pytest.mark.cluster, pytest.mark.each_change, pytest.mark.timeout(1200)]

TIMES = 10 if os.environ.get("MOORAGE_LONG") == "1" else 1
OUTAGE_SECONDS = 60.0
ACQUIRE_SECONDS = 240
"""How long a new session waits for a sandbox: the outage, then the lease, then what Kubernetes' own controllers need to look again."""
REFUSED_SECONDS = 15.0
"""Longer than a gateway whose readiness asked its ledger would stay among its Service's endpoints."""
AGENT, HOG = "counter", "hog"


@pytest.fixture(scope="module")
def world(
    node: Node, parts: dict[str, str], agent_image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installed]:
    server = S3Server(plan.HOST)
    try:
        values = small(parts) | over_s3(node, server)
        values["gateway"] |= {"settings": {"ACQUIRE_SECONDS": str(ACQUIRE_SECONDS)}}
        high = [helm.CHART / "values-ha.yaml"]
        with installed(node, agent_image, tmp_path_factory.mktemp("faults"), values, files=high) as made:
            poll("two gateways", lambda: len(made.parts("gateway")) == 2, within=60)
            made.apply(AGENT, pool={"min": 1, "max": 1}, session={"idleTimeout": "30s"})
            made.apply(
                HOG, pool={"min": 0, "max": 2}, resources={"memory": "192Mi"}, env=[{"name": "MODE", "value": "hog"}]
            )
            yield made
    finally:
        server.stop()


@pytest.fixture(params=range(TIMES), autouse=True)
def time_over(request: pytest.FixtureRequest, world: Installed) -> None:
    """Every blow meets a platform that is whole and has a warm sandbox."""
    world.until_whole()
    world.until_ready(AGENT)
    poll("a warm sandbox", lambda: warm(world) == 1, within=90)


@pytest.fixture
def session() -> str:
    return f"struck-{uuid.uuid4().hex}"


def warm(world: Installed) -> int:
    return int((world.agent(AGENT).get("status") or {}).get("sessions", {}).get("warm", 0))


def pod_of(world: Installed, agent: str, session: str) -> dict[str, Any]:
    """The pod in which a session runs."""
    name = poll("the session has a sandbox", lambda: world.sandbox(agent, session), within=60)
    return dict(json.loads(world.kubectl("get", "pod", name, "-o", "json")))


def struck(attempts: list[dict[str, Any]], pod: dict[str, Any], *reasons: str) -> bool:
    """The attempt in that pod ended for one of these reasons in mid-answer, and another one said the rest."""
    first, last = attempts[0], attempts[-1]
    return (
        len(attempts) > 1
        and first["sandbox"] == pod["metadata"]["name"]
        and first["reason"] in reasons
        and first["events_before"] < first["events_after"] < last["events_after"]
    )


def untouched(attempts: list[dict[str, Any]]) -> bool:
    return [one["reason"] for one in attempts] == ["completed"]


def test_a_killed_agent_process(world: Installed, session: str) -> None:
    with calling(world, AGENT, "slow 60", session) as call:
        call.until(10)
        pod = pod_of(world, AGENT, session)
        (agent,) = blows.children(blows.first_process(world.node, pod, "agent"))
        blows.kill(agent)
        attempts = call.whole(numbers(60))
    assert struck(attempts, pod, "exit"), attempts
    assert {one["sandbox"] for one in attempts} == {pod["metadata"]["name"]}, "its sandbox lives on"


def test_an_agent_killed_for_its_memory(world: Installed, session: str) -> None:
    with calling(world, AGENT, "hog 60", session) as call:
        call.until(10)
        pod = pod_of(world, AGENT, session)
        attempts = call.whole(numbers(60))
    assert struck(attempts, pod, "oom"), attempts


def test_a_container_killed_for_its_memory(world: Installed, session: str) -> None:
    """The whole container: its first process outgrows the limit."""
    with calling(world, HOG, "hog 60", session) as call:
        call.until(10)
        pod = pod_of(world, HOG, session)
        with blows.seen(world.node, pod) as looked:
            attempts = call.whole(numbers(60))
    assert struck(attempts, pod, "oom", "exit", "sandbox_lost"), attempts
    assert attempts[-1]["sandbox"] != pod["metadata"]["name"]
    assert any(blows.ended(one, "agent") == "OOMKilled" for one in looked), [one["status"] for one in looked]


def test_a_deleted_pod(world: Installed, session: str) -> None:
    with calling(world, AGENT, "slow 60", session) as call:
        call.until(10)
        pod = pod_of(world, AGENT, session)
        world.kubectl("delete", "pod", pod["metadata"]["name"], "--wait=false")
        attempts = call.whole(numbers(60))
    assert struck(attempts, pod, "orphaned", "sandbox_lost", "cut", "lost"), attempts
    assert attempts[-1]["sandbox"] != pod["metadata"]["name"]


def test_an_evicted_pod(world: Installed, session: str) -> None:
    with calling(world, AGENT, "slow 60", session) as call:
        call.until(10)
        pod = pod_of(world, AGENT, session)
        blows.evict(world.node, world.namespace, pod["metadata"]["name"])
        attempts = call.whole(numbers(60))
    assert struck(attempts, pod, "orphaned", "sandbox_lost", "cut", "lost"), attempts
    assert attempts[-1]["sandbox"] != pod["metadata"]["name"]


def test_an_evicted_pod_saves_what_no_checkpoint_has_seen(world: Installed, session: str) -> None:
    first = world.ask(AGENT, "one", session)
    pod = pod_of(world, AGENT, session)
    assert not checkpoints(world, session), "nothing has saved its note yet"
    blows.evict(world.node, world.namespace, pod["metadata"]["name"])
    (saved,) = poll("its files are saved", lambda: checkpoints(world, session), within=60)
    assert saved["reason"] == "hibernate" and saved["quiet"], saved
    assert world.ask(AGENT, "two", session, previous=first.id).output_text == "one two "


def checkpoints(world: Installed, session: str) -> list[dict[str, Any]]:
    found: dict[str, Any] = world.client.get(f"/sessions/{session}/checkpoints", cast_to=dict[str, Any])
    return list(found["data"])


def test_a_killed_operator(world: Installed, session: str) -> None:
    """The one that works; and with it the sandbox of another call, whose death only its successor can prove."""
    other = f"{session}-2"
    with calling(world, AGENT, "slow 300", session) as call, calling(world, AGENT, "slow 60", other) as second:
        call.until(10)
        second.until(10)
        leader = leading(world)
        pod = pod_of(world, AGENT, other)
        blows.kill(blows.first_process(world.node, leader, "operator"))
        world.kubectl("delete", "pod", pod["metadata"]["name"], "--wait=false")
        struck_twice = second.whole(numbers(60))
        attempts = call.whole(numbers(300))
    assert untouched(attempts), attempts
    assert struck(struck_twice, pod, "orphaned", "sandbox_lost", "cut", "lost"), struck_twice
    fresh(world, leader)


def leading(world: Installed) -> dict[str, Any]:
    """The operator's pod that holds the lease, by its own metrics."""

    def found() -> dict[str, Any] | None:
        for one in world.parts("operator"):
            with urllib.request.urlopen(f"http://{one['status']['podIP']}:8084/metrics", timeout=5) as answer:
                if b"moorage_operator_leader 1\n" in answer.read():
                    return one
        return None

    return dict(poll("an operator leads", found, within=60, every=0.5))


def fresh(world: Installed, pod: dict[str, Any]) -> None:
    """Another pod in its place: a container that was killed now and then is held back longer each time."""
    world.platform("delete", "pod", pod["metadata"]["name"], "--wait=true", "--timeout=60s")


def test_each_gateway_killed(world: Installed, session: str) -> None:
    """One after the other, those that were there at first: who streams comes back by cursor, who waits by the idempotency key."""
    for number, gateway in enumerate(world.parts("gateway")):
        world.until_whole()
        streams, waits = f"{session}-{number}-stream", f"{session}-{number}-key"
        for one in (streams, waits):
            assert world.ask(AGENT, "slow 1", one).output_text == numbers(1), "both have their sandbox"
        kill_gateway(world, gateway, streams, waits)
        fresh(world, gateway)


def kill_gateway(world: Installed, gateway: dict[str, Any], streams: str, waits: str) -> None:
    """Under a streamed call and one in one piece, each in a session that has its sandbox."""
    direct = world.at(f"{gateway['status']['podIP']}:{PORT}")
    with calling(world, AGENT, "slow 200", streams, first=direct) as call, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(by_key, world, direct, "slow 200", waits)
        call.until(10)
        poll("the other call runs", lambda: active(world, waits), within=15)
        blows.kill(blows.first_process(world.node, gateway, "gateway"))
        attempts = call.whole(numbers(200))
        found = answer.result(timeout=120)
    assert call.seen.breaks >= 1, "its stream went through the gateway that died"
    assert untouched(attempts), "a takeover is not an attempt"
    assert found.output_text == numbers(200)
    path = f"/agents/{AGENT}/responses/{found.id}/record"
    assert untouched(world.client.get(path, cast_to=dict[str, Any])["attempts"])


def active(world: Installed, session: str) -> bool:
    found: dict[str, Any] = world.client.get(f"/agents/{AGENT}/sessions/{session}", cast_to=dict[str, Any])
    return bool(found["status"] == "active")


def by_key(world: Installed, direct: openai.OpenAI, text: str, session: str) -> Any:
    """One call in one piece under an idempotency key, through a gateway that dies under it, then through the others."""
    arguments: dict[str, Any] = {
        "model": AGENT,
        "input": text,
        "extra_headers": {"Idempotency-Key": f"key-{session}"},
        "extra_body": {"agent_session_id": session},
        "timeout": 120,
    }
    with pytest.raises(openai.APIConnectionError):
        direct.responses.create(**arguments)

    def again() -> Any:
        try:
            return world.client.responses.create(**arguments)
        except openai.APIConnectionError:  # its Service may still name the dead one
            return None

    return poll("the same call by its key", again, within=60)


def test_a_restarted_valkey(world: Installed, session: str) -> None:
    with calling(world, AGENT, "slow 500", session) as call:
        call.until(10)
        (old,) = world.parts("valkey")
        world.platform("delete", "pod", old["metadata"]["name"], "--wait=false")
        poll("another Valkey is ready", lambda: replaced(world, old), within=60)
        assert call.runs, "it was to be restarted in mid-stream"
        attempts = call.whole(numbers(500))
    assert untouched(attempts), attempts


def replaced(world: Installed, old: dict[str, Any]) -> bool:
    found = [one for one in world.parts("valkey") if one["metadata"]["uid"] != old["metadata"]["uid"]]
    return bool(found) and world.whole()


def test_without_valkey_a_new_session_is_told_when_to_come_again(world: Installed, session: str) -> None:
    stateful = "statefulset/moorage-valkey"
    with calling(world, AGENT, "slow 600", session) as call:
        call.until(10)
        world.platform("scale", stateful, "--replicas=0")
        kept = ("get", "pods", "-l", "app.kubernetes.io/component=valkey", "-o", "name")
        poll("Valkey is gone", lambda: not world.platform(*kept), within=60)
        until = time.monotonic() + REFUSED_SECONDS
        while time.monotonic() < until:
            refused(world)
        world.platform("scale", stateful, "--replicas=1")
        world.until_whole()
        assert call.runs
        attempts = call.whole(numbers(600))
    assert untouched(attempts), attempts
    assert world.ask(AGENT, "slow 1", f"{session}-2").output_text == numbers(1)


def refused(world: Installed) -> None:
    """A new session, through the gateways' Service, gets 503 and when to come again."""
    with pytest.raises(openai.InternalServerError) as fault:
        world.client.responses.create(model=AGENT, input="one", timeout=60)
    assert fault.value.status_code == 503, fault.value
    assert float(fault.value.response.headers["retry-after"]) > 0


def test_an_api_server_that_is_away_for_a_minute(world: Installed, session: str) -> None:
    """What runs goes on, a warm sandbox is claimed, and who finds the pool empty waits."""
    only_with_its_own(world.node)
    with calling(world, AGENT, "slow 1000", session) as call, ThreadPoolExecutor(1) as pool:
        call.until(10)
        poll("a warm sandbox", lambda: warm(world) == 1, within=90)
        world.node.stop_apiserver()
        back = time.monotonic() + OUTAGE_SECONDS
        try:
            assert world.ask(AGENT, "slow 1", f"{session}-2").output_text == numbers(1)
            waits = pool.submit(world.ask, AGENT, "slow 1", f"{session}-3", ACQUIRE_SECONDS + 30)
            threading.Event().wait(back - time.monotonic())
            assert not waits.done(), waits.exception()
        finally:
            world.node.start_apiserver()
        returned = time.monotonic()
        assert call.runs, "the API server was to be away and back in mid-stream"
        assert waits.result(timeout=ACQUIRE_SECONDS + 60).output_text == numbers(1)
        print(f"a new session was answered {time.monotonic() - returned:.0f} s after the API server was back")
        attempts = call.whole(numbers(1000))
    assert untouched(attempts), attempts


def test_a_restarted_kubelet(world: Installed, session: str) -> None:
    only_with_its_own(world.node)
    with calling(world, AGENT, "slow 300", session) as call:
        call.until(10)
        world.node.restart_kubelet()
        assert world.ask(AGENT, "slow 1", f"{session}-2").output_text == numbers(1)
        poll("the pool is full again", lambda: warm(world) == 1, within=60)
        assert call.runs, "the kubelet was to be restarted in mid-stream"
        attempts = call.whole(numbers(300))
    assert untouched(attempts), attempts


def only_with_its_own(node: Node) -> None:
    if not node.ours:
        pytest.skip("the node's processes are another one's (scripts/cluster up): scripts/cluster down first")
