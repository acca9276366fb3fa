"""Sessions that sleep: on their claim, then in a checkpoint alone, over a folder and over S3; an agent of which nothing runs then; and what
a pod that is told to end leaves in the store."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from cluster.made import hosted_agents
from cluster.node.node import Node
from cluster.operated import Operated, operated
from fakes.platform import poll
from fakes.s3 import S3Server, gateway_settings, s3_server

__all__ = ["s3_server"]

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(420)]

QUICK = {"idleTimeout": "3s"}
ARCHIVE = "MOORAGE_ARCHIVE_SECONDS"
LATE, SOON = {ARCHIVE: "3600"}, {ARCHIVE: "5"}
"""Not while a test looks; and within seconds, for sessions that go to sleep from then on."""


@pytest.fixture(scope="module", params=["folder", "s3"])
def world(
    request: pytest.FixtureRequest,
    node: Node,
    agent_image: str,
    sandbox_image: str,
    tmp_path_factory: pytest.TempPathFactory,
    s3_server: S3Server,
) -> Iterator[Operated]:
    """A platform that archives late, until a test says otherwise."""
    hosted_agents(node)
    more = LATE | (gateway_settings(s3_server.made()) if request.param == "s3" else {})
    folder = tmp_path_factory.mktemp("sleeping")
    with operated(node, agent_image, sandbox_image, folder, f"moorage-sleep-{request.param}", more=more) as made:
        yield made


def status(world: Operated, agent: str, session: str) -> str:
    """Of one session, as its owner is told."""
    found: dict[str, Any] = world.client.get(f"/agents/{agent}/sessions/{session}", cast_to=dict[str, Any])
    return str(found["status"])


def volume(world: Operated, agent: str) -> tuple[str, str]:
    """Name and uid of an agent's only claim."""
    (one,) = world.claims(agent)
    assert not one["metadata"].get("deletionTimestamp"), one
    return str(one["metadata"]["name"]), str(one["metadata"]["uid"])


def test_an_idle_session_leaves_no_pod_then_no_claim_and_wakes_with_its_files_each_time(world: Operated) -> None:
    agent, session = "sleeper", "sleeper-session-1"
    world.desk.again(LATE)
    world.apply(agent, pool={"min": 0, "max": 1}, session=QUICK)
    world.until_ready(agent)
    first = world.ask(agent, "one", session)
    assert first.output_text == "one "
    own = volume(world, agent)
    poll("it hibernates", lambda: status(world, agent, session) == "hibernated", within=60)
    poll("no pod is left", lambda: not world.pods(agent), within=60)
    assert status(world, agent, session) == "hibernated" and volume(world, agent) == own, "its claim is kept"

    world.desk.again(SOON)
    second = world.ask(agent, "two", session, previous=first.id)
    assert second.output_text == "one two "
    assert volume(world, agent) == own, "woken on its own claim"

    poll("it is archived", lambda: status(world, agent, session) == "archived", within=90)
    poll("no claim is left", lambda: not world.claims(agent) and not world.pods(agent), within=60)
    third = world.ask(agent, "three", session, previous=second.id)
    assert third.output_text == "one two three "
    assert not set(volume(world, agent)) & set(own), "woken on a fresh claim"
    history = json.loads(world.ask(agent, "told", session, previous=third.id).output_text)
    assert history == ["one", "one ", "two", "one two ", "three", "one two three "]
    found: dict[str, Any] = world.client.get(f"/sessions/{session}/checkpoints", cast_to=dict[str, Any])
    assert found["data"][0]["reason"] == "hibernate" and found["data"][0]["quiet"]


def test_a_warm_pod_takes_an_archived_session(world: Operated) -> None:
    agent, session = "warmed", "warmed-session-1"
    world.desk.again(SOON)
    world.apply(agent, pool={"min": 1, "max": 2}, session=QUICK)
    world.until_ready(agent)
    assert world.ask(agent, "one", session).output_text == "one "
    poll("it is archived", lambda: status(world, agent, session) == "archived", within=90)

    def alone() -> bool:
        """Only the pool's pod, on the pool's claim."""
        return len(world.ready_pods(agent)) == 1 and len(world.claims(agent)) == 1

    poll("its claim is gone", alone, within=60)
    (warm,) = world.ready_pods(agent)
    assert world.ask(agent, "two", session).output_text == "one two "
    assert world.sandbox(agent, session) == warm


def test_a_deleted_pod_leaves_its_files_in_the_store_and_its_session_wakes_from_there_without_its_claim(
    world: Operated,
) -> None:
    agent, session = "told", "told-session-1"
    world.desk.again(LATE)
    world.apply(agent, pool={"min": 0, "max": 1})
    world.until_ready(agent)
    first = world.ask(agent, "one", session)
    path = f"/sessions/{session}/checkpoints"
    asked: dict[str, Any] = world.client.post(path, cast_to=dict[str, Any])
    second = world.ask(agent, "two", session, previous=first.id)
    assert stored(world, agent, session) == [asked["id"]], "nothing has saved its second note yet"

    name, _ = own = volume(world, agent)
    # With the pod's own grace, which `kubectl` waits for: what it saves is in the store by then.
    world.kubectl("delete", "pod", world.sandbox(agent, session), "--wait=true", "--timeout=60s")
    newest, before = stored(world, agent, session)
    assert before == asked["id"] and newest > before
    found: dict[str, Any] = world.client.get(path, cast_to=dict[str, Any])
    assert (found["data"][0]["id"], found["data"][0]["reason"]) == (newest, "hibernate") and found["data"][0]["quiet"]

    poll("it hibernates", lambda: status(world, agent, session) == "hibernated", within=60)
    world.kubectl("delete", "pvc", name, "--wait=true", "--timeout=60s")
    third = world.ask(agent, "three", session, previous=second.id)
    assert third.output_text == "one two three ", "of the newest checkpoint: the one before has its first note alone"
    assert not set(volume(world, agent)) & set(own), "woken on a fresh claim"


def stored(world: Operated, agent: str, session: str) -> list[str]:
    """Checkpoints in the store, newest first, read whole."""
    return world.desk.whole_checkpoints(agent, session, world.token_key)
