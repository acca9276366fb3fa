"""`kubectl apply` of a HostedAgent, and what follows: pods, calls, faults, an end. One platform a module; every test its own agent."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from cluster.desk import TENANT
from cluster.made import hosted_agents
from cluster.node import plan
from cluster.node.node import Node
from cluster.operated import Operated, operated
from fakes.platform import poll
from moorage_api import tokens
from moorage_operator import marks

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def world(
    node: Node, agent_image: str, sandbox_image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Operated]:
    hosted_agents(node)
    with operated(node, agent_image, sandbox_image, tmp_path_factory.mktemp("operated"), "moorage-agents") as made:
        yield made


def test_an_applied_agent_answers_in_a_pod_of_its_own(world: Operated) -> None:
    world.apply("looker", pool={"min": 2, "max": 3})
    world.until_ready("looker")
    assert world.ask("looker", "one", "looker-session-1").output_text == "one "
    assert world.ask("looker", "two", "looker-session-1").output_text == "one two "
    assert world.ask("looker", "other", "looker-session-2").output_text == "other ", (
        "another session, another workspace"
    )
    seen = json.loads(world.ask("looker", "look", "looker-session-1").output_text)
    assert seen["workspace"] == ["notes.txt", "seed.txt"], "seeded from the image"

    poll("the pool is full again", lambda: len(world.ready_pods("looker")) == 4, within=60)
    shown = world.kubectl("get", "hostedagents", "looker", "--no-headers").split()
    assert shown[:2] == ["looker", "True"] and shown[-2] == f"{world.desk.url}/v1/agents/looker/responses"
    wanted = {"warm": 2, "active": 0, "idle": 2, "hibernated": 0}
    poll("the status counts", lambda: world.agent("looker")["status"]["sessions"] == wanted)

    one = next(
        pod for pod in world.pods("looker") if pod["metadata"]["name"] == world.sandbox("looker", "looker-session-1")
    )
    text = json.dumps(one["spec"]) + json.dumps(one["metadata"])
    opens = tokens.sandbox_secret(one["metadata"]["name"], world.token_key)
    for secret in (world.token_key, world.desk.key, world.desk.redis_url, opens):
        assert secret and secret not in text, "nothing in a pod's object opens anything"
    assert tokens.secret_sha256(opens) in text, "of what is shown to its shim it has the hash"
    agent = next(c for c in one["spec"]["containers"] if c["name"] == "agent")
    assert {mount["name"] for mount in agent["volumeMounts"]} == {"control", "launcher", "tmp", "volume"}


def test_a_killed_agent_and_a_deleted_pod_cost_the_caller_nothing(world: Operated) -> None:
    world.apply("mortal")
    world.until_ready("mortal")
    assert world.ask("mortal", "die", "mortal-session-1").output_text == "before after"
    assert world.ask("mortal", "kept", "mortal-session-1").output_text == "kept "

    sandbox = world.sandbox("mortal", "mortal-session-1")
    deltas: list[str] = []
    with world.client.responses.stream(
        model="mortal", input="slow 40", extra_headers={"x-agent-session-id": "mortal-session-1"}, timeout=120
    ) as stream:
        for event in stream:
            if event.type == "response.output_text.delta":
                deltas.append(event.delta)
                if len(deltas) == 5:
                    world.kubectl("delete", "pod", sandbox, "--wait=false", "--grace-period=1")
        final = stream.get_final_response()
    assert "".join(deltas) == "".join(f"{n} " for n in range(40)) == final.output_text
    assert world.sandbox("mortal", "mortal-session-1") not in ("", sandbox)
    record: dict[str, Any] = world.client.get(f"/agents/mortal/responses/{final.id}/record", cast_to=dict[str, Any])
    assert len(record["attempts"]) == 2 and record["attempts"][-1]["reason"] == "completed"
    assert world.ask("mortal", "too", "mortal-session-1").output_text == "kept too ", "the workspace came along"


def test_what_was_edited_by_hand_is_put_right(world: Operated) -> None:
    world.apply("guarded")
    world.until_ready("guarded")
    before = world.ready_pods("guarded")
    world.kubectl("delete", "pod", *before, "--wait=true", "--grace-period=0", "--force")
    poll("the pool is full again", lambda: len(world.ready_pods("guarded")) == 1, within=60)
    assert world.ready_pods("guarded") != before
    world.kubectl("delete", "networkpolicy", "moorage-guarded", "--wait=true")
    poll(
        "the policy is back",
        lambda: "moorage-guarded" in world.kubectl("get", "networkpolicy", "-o", "name"),
        within=30,
    )


def test_a_sandbox_reaches_the_gateway_and_nothing_else(world: Operated) -> None:
    world.apply("caged")
    world.until_ready("caged")
    gateway = world.desk.announce.removeprefix("http://")
    others = [f"{plan.HOST}:{plan.API_PORT}", f"{plan.API_SERVICE}:443", f"{plan.HOST}:{plan.KUBELET_PORT}"]
    asked = " ".join(["reach", gateway, *others])

    def caged() -> bool:
        seen = dict(json.loads(world.ask("caged", asked, "caged-session-1").output_text))
        return seen == {gateway: True, **dict.fromkeys(others, False)}

    poll("the policy holds", caged, within=30)


def test_a_broken_agent_says_why_and_the_old_revision_goes_on(world: Operated) -> None:
    world.apply("risky")
    world.until_ready("risky")
    assert world.ask("risky", "one", "risky-session-1").output_text == "one "
    world.apply("risky", env=[{"name": "MODE", "value": "broken"}])
    poll("it says so", lambda: world.condition("risky").get("status") == "False", within=90)
    assert "parrot" in world.condition("risky")["message"]
    assert world.ask("risky", "two", "risky-session-1").output_text == "one two "
    assert world.ask("risky", "one", "risky-session-2").output_text == "one ", "new sessions stay on what works"

    world.apply("risky", env=[{"name": "MODE", "value": "mended"}])
    world.until_ready("risky")
    assert json.loads(world.ask("risky", "look", "risky-session-3").output_text)["mode"] == "mended"


def test_an_image_that_is_not_there_is_named(world: Operated) -> None:
    world.apply("nowhere", image="localhost/moorage-nowhere:1")
    poll("it says so", lambda: world.condition("nowhere").get("status") == "False", within=60)
    assert "moorage-nowhere:1" in world.condition("nowhere")["message"]
    world.kubectl("delete", "hostedagent", "nowhere")
    poll("nothing is left", lambda: not world.pods("nowhere"), within=60)


def test_another_operator_finds_everything_as_it_is(world: Operated) -> None:
    world.apply("steady", pool={"min": 2, "max": 2})
    world.until_ready("steady")
    assert world.ask("steady", "one", "steady-session-1").output_text == "one "
    wanted = {"warm": 2, "active": 0, "idle": 1, "hibernated": 0}
    poll("the pool is full again", lambda: world.agent("steady")["status"]["sessions"] == wanted, within=60)
    before, version = world.ready_pods("steady"), world.agent("steady")["metadata"]["resourceVersion"]
    world.processes[-1].send_signal(signal.SIGKILL)
    world.processes[-1].wait()
    fresh = world.start()
    world.apply("after", pool={"min": 0, "max": 1})
    world.until_ready("after")
    assert fresh.poll() is None
    assert world.agent("steady")["metadata"]["resourceVersion"] == version, "an unchanged object was written"
    assert world.ready_pods("steady") == before
    assert world.ask("steady", "two", "steady-session-1").output_text == "one two "


def test_a_deleted_agent_leaves_only_what_sessions_own(world: Operated) -> None:
    world.apply("passing")
    world.until_ready("passing")
    world.ask("passing", "one", "passing-session-1")
    poll("the claim is marked", lambda: any(marks.bound(one, TENANT) for one in world.claims("passing")), within=30)
    world.kubectl("delete", "hostedagent", "passing", "--wait=true")
    poll("no pod is left", lambda: not world.pods("passing"), within=60)
    poll("one claim is left", lambda: len(world.claims("passing")) == 1, within=60)
    assert "moorage-passing" not in world.kubectl("get", "serviceaccount,networkpolicy", "-o", "name")
    world.client.delete("/agents/passing/sessions/passing-session-1", cast_to=object)
    poll("its files went with the session", lambda: not world.claims("passing"), within=60)
