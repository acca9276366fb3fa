"""`kubectl apply` of a HostedAgent, and what follows: pods, calls, faults, an end. One platform a module; every test its own agent."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from openai import NotFoundError

from cluster import reach
from cluster.desk import TENANT
from cluster.made import hosted_agents
from cluster.node import plan
from cluster.node.node import Node
from cluster.operated import Operated, operated
from cluster.plain_pod import PlainPods
from fakes.platform import poll
from moorage_api import tokens
from moorage_operator import marks, objects, settings

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
NAMESPACE, SECOND = "moorage-agents", "moorage-agents-of-others"


@pytest.fixture(scope="module")
def world(
    node: Node, agent_image: str, sandbox_image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Operated]:
    hosted_agents(node)
    folder = tmp_path_factory.mktemp("operated")
    with operated(node, agent_image, sandbox_image, folder, NAMESPACE, others={SECOND: "others"}) as made:
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

    world.until_ready_pods("looker", 4)
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
    before = world.until_ready_pods("guarded", 1)
    world.kubectl("delete", "pod", *before, "--wait=true", "--grace-period=0", "--force")
    assert world.until_ready_pods("guarded", 1) != before
    world.kubectl("delete", "networkpolicy", "moorage-guarded", "--wait=true")
    poll(
        "the policy is back",
        lambda: "moorage-guarded" in world.kubectl("get", "networkpolicy", "-o", "name"),
        within=30,
    )


def test_a_sandbox_reaches_the_gateway_and_nothing_else(world: Operated) -> None:
    """Enforced by the node's own translator (docs/cluster-tests.md). What it does not reach, the node and a pod without a policy do."""
    for name in ("caged", "neighbour"):
        world.apply(name)
    for name in ("caged", "neighbour"):
        world.until_ready(name)
    gateway = [url.removeprefix("http://") for url in (world.desk.announce, world.desk.egress)]
    pods = PlainPods(world.node, world.image, world.namespace)
    (neighbour,) = [one["status"]["podIP"] for one in world.pods("neighbour")]
    shim = f"{neighbour}:{objects.SHIM_PORT}"
    with reach.outside() as outside:
        there = [*reach.NODE, *reach.SERVERS, reach.started(pods, "listener"), outside]
        assert all(reach.here([*gateway, *there, shim]).values()), "somebody is there"
        found = reach.from_plain_pod(pods, "free", [*gateway, *there, reach.NAME], [shim])
        assert found == {**dict.fromkeys([*gateway, *there, reach.NAME], True), shim: False}, "to a shim only a gateway"
        reach.until_caged(world, "caged", gateway, [*there, reach.NAME, reach.METADATA, shim])
    pods.kubectl("delete", "pod", "listener", "free", "--wait=false")


def test_the_policy_is_the_operators_own_to_the_letter(world: Operated) -> None:
    world.apply("worded")
    world.until_ready("worded")
    (held,) = json.loads(world.kubectl("get", "networkpolicy", "-l", f"{marks.AGENT}=worded", "-o", "json"))["items"]
    made = objects.policy("worded", world.namespace, {}, settings.load(world.told))
    assert held["spec"] == made["spec"]
    ports = {int(url.rpartition(":")[2]) for url in (world.desk.announce, world.desk.egress)}
    (rule,) = held["spec"]["egress"]
    assert rule["to"] == [{"ipBlock": {"cidr": f"{plan.HOST}/32"}}] and {one["port"] for one in rule["ports"]} == ports


def test_one_name_in_the_namespaces_of_two_tenants_stays_apart(world: Operated) -> None:
    name, session = "namesake", "namesake-session"
    sides = {"first": world, "second": world.seen_from(SECOND)}
    for side, one in sides.items():
        one.apply(name, env=[{"name": "MODE", "value": side}])
    for side, one in sides.items():
        one.until_ready(name)
        assert one.ask(name, side, session).output_text == f"{side} ", "of the same name, and yet another session"
        assert json.loads(one.ask(name, "look", session).output_text)["mode"] == side
    answers = {side: one.ask(name, "again", f"{session}-{side}") for side, one in sides.items()}
    for side, one in sides.items():
        (other,) = sides.keys() - {side}
        with pytest.raises(NotFoundError):
            one.client.responses.retrieve(answers[other].id)
        with pytest.raises(NotFoundError):
            one.client.get(f"/agents/{name}/sessions/{session}-{other}", cast_to=object)
        shown = one.client.get(f"/sessions?agent={name}", cast_to=dict[str, Any])["data"]
        assert {found["id"] for found in shown} == {session, f"{session}-{side}"}
        held = {found["metadata"]["name"]: found for found in one.pods(name)}
        for mine in (session, f"{session}-{side}"):
            pod = held[one.sandbox(name, mine)]
            claims = [
                each["persistentVolumeClaim"] for each in pod["spec"]["volumes"] if "persistentVolumeClaim" in each
            ]
            assert {each["claimName"] for each in claims} <= {found["metadata"]["name"] for found in one.claims(name)}
        assert not held.keys() & {found["metadata"]["name"] for found in sides[other].pods(name)}

    world.apply("own")
    world.until_ready("own")
    with pytest.raises(NotFoundError):
        sides["second"].ask("own", "one", "own-session-1")
    sides["second"].kubectl("delete", "hostedagent", name, "--wait=true")
    poll("the other's pods are gone", lambda: not sides["second"].pods(name), within=60)
    assert world.ask(name, "more", session).output_text == "first more "


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
    before = world.until_ready_pods("steady", 3)
    version = world.agent("steady")["metadata"]["resourceVersion"]
    world.processes[-1].send_signal(signal.SIGKILL)
    world.processes[-1].wait()
    fresh = world.start()
    world.apply("after", pool={"min": 0, "max": 1})
    world.until_ready("after")
    assert fresh.poll() is None
    assert world.agent("steady")["metadata"]["resourceVersion"] == version, "an unchanged object was written"
    assert world.ready_pods("steady") == before  # the kubelet's word: no operator changes that
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
