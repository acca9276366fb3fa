"""A session in a pod that a test wrote by hand: gateway code and shim are those of one machine; only the sandbox is a pod (issue 4 a)."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from cluster.desk import TENANT, Desk, desk
from cluster.node import plan
from cluster.node.node import Node
from cluster.sandbox_pod import SHIM_PORT, USER, SandboxPod
from fakes.platform import poll
from moorage_sandbox.config import ShimConfig

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
AGENT = "looker"
NAMESPACE = "moorage-hand-made"

# Says what it sees from inside; told to, it dies once in the middle of its answer.
HOST = """
import json, os, signal, socket
from pathlib import Path
from moorage import HostedAgent, text_of

def seen():
    def there(path):
        try:
            return sorted(os.listdir(path))
        except OSError as fault:
            return type(fault).__name__
    return {"pid": os.getpid(), "uid": os.getuid(), "token": there("/var/run/secrets"), "volume": there("/volume"),
            "config": there("/etc/moorage"), "socket": there("/run/moorage"), "home": os.environ["HOME"]}

def reached(where):
    host, _, port = where.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
        return True
    except OSError:
        return False

def agent(items, ctx):
    wanted = text_of(items)
    notes = Path("/workspace/notes.txt")
    if wanted == "look":
        yield json.dumps(seen())
    elif wanted.startswith("reach "):
        yield json.dumps({where: reached(where) for where in wanted.split()[1:]})
    elif wanted == "die":
        yield "before "
        mark = Path("/workspace/died")
        if not mark.exists():
            mark.write_text("once")
            os.kill(os.getpid(), signal.SIGKILL)
        yield "after"
    else:
        with notes.open("a") as file:
            file.write(wanted + "\\n")
        for line in notes.read_text().splitlines():
            yield line + " "

HostedAgent(agent=agent).serve()
"""


@dataclass
class Scene:
    """One gateway and one ready pod of the agent."""

    node: Node
    desk: Desk
    pod: str
    volume: Path

    @property
    def client(self) -> OpenAI:
        return OpenAI(base_url=f"{self.desk.url}/v1", api_key=self.desk.key, max_retries=0)

    def ask(self, text: str, session: str) -> Any:
        return self.client.responses.create(
            model=AGENT, input=text, extra_headers={"x-agent-session-id": session}, timeout=60
        )


@pytest.fixture
def scene(node: Node, sandbox_image: str, tmp_path: Path) -> Iterator[Scene]:
    name = f"hand-made-{secrets.token_hex(4)}"
    volume = node.place.folder / "volumes" / name
    volume.mkdir(parents=True)
    os.chown(volume, USER, USER)
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    size = {"storage": "64Mi"}
    objects: list[dict[str, Any]] = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}},
        {
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
            "spec": {
                "capacity": size, "accessModes": ["ReadWriteOnce"], "storageClassName": "", "hostPath": {"path": str(volume)},
                "claimRef": {"namespace": NAMESPACE, "name": name},
            },
        },
        {
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "", "volumeName": name, "resources": {"requests": size}},
        },
    ]  # fmt: skip
    with desk(tmp_path, AGENT) as one:
        born = one.birth(AGENT)
        shim = ShimConfig(
            sandbox=born.sandbox, tenant=TENANT, agent=AGENT, revision="r1", endpoint="", secret=born.secret, token=born.token,
            volume="/volume", gateways=(one.announce,),
        )  # fmt: skip
        made = SandboxPod(name, sandbox_image, {"host.py": HOST}, "host.py", shim, name)
        try:
            for each in [*objects, *made.objects(NAMESPACE)]:
                node.kubectl("apply", "-f", "-", given=json.dumps(each))
            address = ready(node, name)
            one.offer(AGENT, born, f"http://{address}:{SHIM_PORT}")
            yield Scene(node, one, name, volume)
        finally:
            node.kubectl("delete", "namespace", NAMESPACE, "--wait=true", "--timeout=60s")
            node.kubectl("delete", "persistentvolume", name, "--wait=true", "--timeout=60s")


def ready(node: Node, name: str) -> str:
    """The pod's address once it is Ready. AssertionError with what the cluster says of it otherwise."""
    try:
        return str(poll("the pod is Ready", lambda: ready_address(node, name), within=60))
    except AssertionError as fault:
        raise AssertionError(f"{fault}\n{node.kubectl('describe', 'pod', name, '-n', NAMESPACE)}") from fault


def ready_address(node: Node, name: str) -> str:
    """The pod's address once it is Ready; an AssertionError with what it says when it has ended."""
    status = json.loads(node.kubectl("get", "pod", name, "-n", NAMESPACE, "-o", "json"))["status"]
    if status.get("phase") == "Failed":
        logs = [node.kubectl("logs", name, "-n", NAMESPACE, "-c", part) for part in ("agent", "shim")]
        raise AssertionError(f"the pod ended: {json.dumps(status, indent=1)}\n{logs}")
    conditions = {one["type"]: one["status"] for one in status.get("conditions", [])}
    return str(status.get("podIP", "")) if conditions.get("Ready") == "True" else ""


def test_a_policy_leaves_a_sandbox_the_gateway_and_nothing_else(scene: Scene) -> None:
    """Enforced by the node's own translator (docs/cluster-tests.md)."""
    gateway = scene.desk.announce.removeprefix("http://")
    others = [f"{plan.HOST}:{plan.API_PORT}", f"{plan.API_SERVICE}:443", f"{plan.HOST}:{plan.KUBELET_PORT}"]
    asked = " ".join(["reach", gateway, *others])
    session = "hand-made-session-2"
    assert all(json.loads(scene.ask(asked, session).output_text).values()), "before the policy everything is near"

    host, _, port = gateway.rpartition(":")
    rule = {"to": [{"ipBlock": {"cidr": f"{host}/32"}}], "ports": [{"port": int(port)}]}
    policy = {
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "sandbox", "namespace": NAMESPACE},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"], "egress": [rule]},
    }  # fmt: skip
    scene.node.kubectl("apply", "-f", "-", given=json.dumps(policy))

    def now() -> dict[str, bool]:
        return dict(json.loads(scene.ask(asked, session).output_text))

    poll("the policy holds", lambda: not any(now()[other] for other in others), within=30)
    assert now() == {gateway: True, **dict.fromkeys(others, False)}


def test_a_session_lives_in_a_pod(scene: Scene) -> None:
    session = "hand-made-session-1"
    assert scene.ask("one", session).output_text == "one "
    assert scene.ask("two", session).output_text == "one two "
    assert (scene.volume / "workspace" / "notes.txt").read_text() == "one\ntwo\n", "the workspace is the volume"

    # What the agent sees of the pod: itself, its session's files, and nothing of the platform's.
    seen = json.loads(scene.ask("look", session).output_text)
    assert seen["uid"] == USER and seen["home"] == "/home/agent"
    assert (seen["token"], seen["volume"], seen["config"]) == ("FileNotFoundError", [], "FileNotFoundError")
    assert seen["socket"] == [], "nobody may come to init any more"

    # The process dies in the middle of an answer: the caller sees one whole answer, each part once.
    with scene.client.responses.stream(
        model=AGENT, input="die", extra_headers={"x-agent-session-id": session}, timeout=60
    ) as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert ("".join(deltas), final.status, final.output_text) == ("before after", "completed", "before after")
    record = scene.client.get(f"/agents/{AGENT}/responses/{final.id}/record", cast_to=dict[str, Any])
    assert [attempt["reason"] for attempt in record["attempts"]] == ["exit", "completed"]
