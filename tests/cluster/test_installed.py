"""The chart on a real cluster: helm install, kubectl apply, a call by the stock client, helm test, helm uninstall."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from chart import helm
from cluster.conftest import ROOT
from cluster.node import images, plan
from cluster.node.node import Node
from fakes.platform import poll
from moorage_operator import marks

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
PLATFORM = "moorage-platform"
AGENTS = "moorage-team"
PARTS = {"gateway": "gateway", "operator": "operator", "valkey": "valkey-image"}


@dataclass
class Installed:
    """A release and where it is reached: its Service's own address, since this machine is the node."""

    node: Node
    helm: Path
    client: OpenAI

    def run(self, *words: str) -> str:
        done = helm.run(
            self.helm, *words, "--namespace", PLATFORM, environment={"KUBECONFIG": str(self.node.kubeconfig)}
        )
        assert done.returncode == 0, f"helm {' '.join(words)}: {done.stdout}\n{done.stderr}\n{self.state()}"
        return done.stdout

    def state(self) -> str:
        return "\n".join(
            self.node.kubectl("get", "pods,events", "-n", name, "-o", "wide") for name in (PLATFORM, AGENTS)
        )


@pytest.fixture(scope="module")
def installed(
    node: Node, sandbox_image: str, agent_image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installed]:
    try:
        binary = helm.binary()
    except helm.NoHelm as why:
        pytest.skip(str(why))
    named = {"sandbox": sandbox_image}
    for part, folder in PARTS.items():
        named[part] = f"localhost/moorage-{part}:test"
        archive = plan.cache() / f"{part}-test.oci.tar"
        images.build(named[part], ROOT / folder / "Dockerfile", ROOT, images.BASE, archive)
        node.load(archive)
    values: dict[str, Any] = {
        **{part: {"image": image} for part, image in named.items()},
        "namespaces": [{"name": AGENTS, "tenant": "acme", "create": True}],
        "networkPolicy": {"apiServer": {"ports": [plan.API_PORT]}},
    }
    # Small, for one node; it cannot measure ephemeral storage.
    values["operator"] |= {"ephemeralStorage": False}
    values["gateway"] |= {"publicUrl": "http://agents.example"}
    file = tmp_path_factory.mktemp("values") / "values.json"
    file.write_text(json.dumps(values))
    made = Installed(node, binary, OpenAI(base_url="http://none", api_key="none"))
    try:
        made.run(
            "install", "moorage", str(helm.CHART), "--create-namespace", "-f", str(file), "--wait", "--timeout", "110s"
        )
        address = node.kubectl("get", "service", "moorage-gateway", "-n", PLATFORM, "-o", "jsonpath={.spec.clusterIP}")
        secret = json.loads(node.kubectl("get", "secret", "moorage-first-key", "-n", PLATFORM, "-o", "json"))
        key = base64.b64decode(secret["data"]["key"]).decode()
        made.client = OpenAI(base_url=f"http://{address}:8080/v1", api_key=key, max_retries=0)
        yield made
    finally:
        helm.run(
            binary,
            "uninstall",
            "moorage",
            "--namespace",
            PLATFORM,
            "--wait",
            environment={"KUBECONFIG": str(node.kubeconfig)},
        )
        for name in (AGENTS, PLATFORM):
            node.kubectl("delete", "namespace", name, "--ignore-not-found", "--wait=true", "--timeout=120s")


def test_an_agent_is_applied_and_called(installed: Installed, agent_image: str) -> None:
    body = {
        "apiVersion": "moorage.dev/v1alpha1", "kind": "HostedAgent", "metadata": {"name": "rememberer"},
        "spec": {"image": agent_image, "workspace": {"size": "32Mi"}},
    }  # fmt: skip
    installed.node.kubectl("apply", "-n", AGENTS, "-f", "-", given=json.dumps(body))

    def ready() -> bool:
        found = json.loads(installed.node.kubectl("get", "hostedagent", "rememberer", "-n", AGENTS, "-o", "json"))
        return any(
            one["type"] == "Ready" and one["status"] == "True"
            for one in (found.get("status") or {}).get("conditions", [])
        )

    try:
        poll("the agent is Ready", ready, within=120)
    except AssertionError as fault:
        logs = installed.node.kubectl("logs", "-n", PLATFORM, "-l", "app.kubernetes.io/component=operator", "--tail=30")
        raise AssertionError(f"{fault}\n{installed.state()}\n{logs}") from fault
    for text, answer in (("one", "one "), ("two", "one two ")):
        made = installed.client.responses.create(
            model="rememberer", input=text, extra_headers={"x-agent-session-id": "installed-session"}, timeout=90
        )
        assert made.output_text == answer
    url = installed.node.kubectl("get", "hostedagent", "rememberer", "-n", AGENTS, "-o", "jsonpath={.status.url}")
    assert url == "http://agents.example/v1/agents/rememberer/responses"


def test_the_releases_own_test_passes(installed: Installed) -> None:
    assert "Succeeded" in installed.run("test", "moorage", "--timeout", "100s")


def test_uninstalled_it_leaves_only_the_agents_namespace(installed: Installed) -> None:
    installed.run("uninstall", "moorage", "--wait", "--timeout", "100s")
    left = installed.node.kubectl("get", "clusterrole,clusterrolebinding", "-o", "name")
    assert "/moorage-operator" not in left
    assert AGENTS in installed.node.kubectl("get", "namespace", "-o", "name"), (
        "people's objects are not the chart's to delete"
    )
    assert marks.MANAGER in installed.node.kubectl("get", "pods", "-n", AGENTS, "-o", "json"), "sessions go on"
