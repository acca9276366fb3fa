"""The chart on a real cluster: helm install, kubectl apply, a call by the stock client, helm test, helm uninstall."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from chart import helm
from cluster import given
from cluster.installed import AGENTS, PLATFORM, Installed, installed, plain, small
from fakes.platform import poll
from moorage_operator import marks

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def release(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    """On the node, or on the cluster that KUBECONFIG names."""
    folder, theirs = tmp_path_factory.mktemp("installed"), given.given(os.environ)
    if theirs is None:
        node, parts, image = (request.getfixturevalue(name) for name in ("node", "parts", "agent_image"))
        with installed(node, image, folder, small(parts)) as made:
            yield made
        return
    try:
        found = given.images(os.environ)
        helm.binary()
    except (LookupError, helm.NoHelm) as why:
        pytest.skip(str(why))
    with installed(theirs, found["test-agent"], folder, plain(found)) as made:
        yield made


def test_an_agent_is_applied_and_called(release: Installed) -> None:
    release.apply("rememberer")
    release.until_ready("rememberer", within=120)
    for text, answer in (("one", "one "), ("two", "one two ")):
        assert release.ask("rememberer", text, "installed-session").output_text == answer
    url = release.node.kubectl("get", "hostedagent", "rememberer", "-n", AGENTS, "-o", "jsonpath={.status.url}")
    assert url == "http://agents.example/v1/agents/rememberer/responses"


def test_nothing_of_the_platforms_secrets_stands_in_what_an_agents_namespace_holds(release: Installed) -> None:
    found = json.loads(release.platform("get", "secrets", "-o", "json"))["items"]
    held = {
        f"{one['metadata']['name']}/{key}": base64.b64decode(text).decode()
        for one in found if one["type"] == "Opaque"
        for key, text in (one.get("data") or {}).items()
    }  # fmt: skip
    assert {"moorage-token-key/token-key", "moorage-valkey/password", "moorage-first-key/key"} <= held.keys()
    text = release.node.kubectl("get", "pods,jobs,pvc,serviceaccounts,hostedagents", "-n", AGENTS, "-o", "json")
    assert marks.SHIM in text, "a pod of an agent is there"
    for name, secret in held.items():
        assert secret not in text, name


def test_a_source_is_built_under_the_charts_own_rights_and_policies(release: Installed) -> None:
    """As far as this node goes: no name leads out of it. That what is built runs is tried with an operator beside the node."""
    body = {
        "apiVersion": "moorage.dev/v1alpha1", "kind": "HostedAgent", "metadata": {"name": "sourced"},
        "spec": {"source": {"git": {"url": "https://git.example/agents.git"}}},
    }  # fmt: skip
    release.node.kubectl("apply", "-n", AGENTS, "-f", "-", given=json.dumps(body))
    path = '{.status.conditions[?(@.type=="SourceResolved")].message}'

    def said() -> str:
        return release.node.kubectl("get", "hostedagent", "sourced", "-n", AGENTS, "-o", f"jsonpath={path}")

    poll("it says why", lambda: "kubectl delete job" in said(), within=200)
    assert "git.example" in said() or "package index" in said(), said()
    release.node.kubectl("delete", "hostedagent", "sourced", "-n", AGENTS, "--wait=true")
    poll("its build goes", lambda: not release.node.kubectl("get", "jobs", "-n", AGENTS, "-o", "name"), within=60)


def test_the_doctor_finds_nothing_wrong_and_its_probe_leaves_nothing(release: Installed) -> None:
    where = {"MOORAGE_URL": str(release.client.base_url), "MOORAGE_API_KEY": release.client.api_key}
    environment = os.environ | where | {"KUBECONFIG": str(release.node.kubeconfig)}
    command = [str(Path(sys.executable).parent / "moorage"), "doctor", "--namespace", PLATFORM, "--probe", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    found = {each["check"]: each for each in json.loads(done.stdout)["findings"]}
    assert done.returncode == 0 and {each["result"] for each in found.values()} == {"ok"}, done.stdout
    looked = {
        "operator",
        "gateway",
        "valkey",
        "versions",
        "network policies",
        f"namespace {AGENTS}",
        "Redis",
        "object store",
        "key",
    }
    assert looked <= set(found)
    left = release.node.kubectl("get", "jobs,pods,networkpolicies", "-A", "-l", "moorage.dev/doctor", "-o", "name")
    assert left == ""


def test_the_releases_own_test_passes(release: Installed) -> None:
    assert "Succeeded" in release.run("test", "moorage", "--timeout", "100s")


def test_uninstalled_it_leaves_only_the_agents_namespace(release: Installed) -> None:
    release.run("uninstall", "moorage", "--wait", "--timeout", "100s")
    left = release.node.kubectl("get", "clusterrole,clusterrolebinding", "-o", "name")
    assert "/moorage-operator" not in left
    assert AGENTS in release.node.kubectl("get", "namespace", "-o", "name"), (
        "people's objects are not the chart's to delete"
    )
    assert marks.MANAGER in release.node.kubectl("get", "pods", "-n", AGENTS, "-o", "json"), "sessions go on"
