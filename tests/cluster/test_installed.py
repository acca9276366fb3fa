"""The chart on a real cluster: helm install, kubectl apply, calls by the stock client, helm test, helm uninstall.

On the node alone: the review agent, what a sandbox reaches, and models, whose server is a process beside it.
"""

from __future__ import annotations

import base64
import json
import os
import shlex
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from api import states
from chart import helm
from cluster import given, made, reach
from cluster.installed import AGENTS, PLATFORM, Installed, installed, plain, small
from cluster.node import plan
from cluster.node.node import Node
from cluster.plain_pod import PlainPods
from cluster.reviewed import ASKED, PLANTED
from fakes.models import Models, serving
from fakes.platform import poll
from moorage_operator import marks, objects, settings
from tree import ROOT

pytestmark = [pytest.mark.cluster, pytest.mark.each_change, pytest.mark.timeout(900)]

CREDENTIAL, ENDPOINT = "model-key", "scripted"
NOWHERE = "localhost/moorage-nowhere:1"
KEY_SECONDS = 120.0
"""From a changed Secret until gateways use it (docs/models.md)."""


@pytest.fixture(scope="module")
def models(node: Node) -> Iterator[Models]:
    """A scripted server of models, which pods reach at the node's address."""
    with serving(host=plan.HOST) as server:
        yield server


@pytest.fixture(scope="module")
def first_key() -> str:
    """The key of that server, as the Secret holds it at first."""
    return f"sk-first-{uuid.uuid4().hex}"


@pytest.fixture(scope="module")
def release(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    """On the node, or on the cluster that KUBECONFIG names."""
    folder, theirs = tmp_path_factory.mktemp("installed"), given.given(os.environ)
    if theirs is None:
        node, parts, image, models, key = (
            request.getfixturevalue(name) for name in ("node", "parts", "agent_image", "models", "first_key")
        )
        values = small(parts) | {"models": {"secrets": [CREDENTIAL], "allowedUpstreams": [models.named]}}
        with installed(node, image, folder, values) as made:
            give_model(made, models, key)  # mounted by the time that it is asked for
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


def test_moorage_logs_names_the_command_that_shows_what_agents_print(release: Installed) -> None:
    """Asked by a session, and by an agent; the commands are run as they stand there."""
    release.apply("printer")
    release.until_ready("printer", within=120)
    assert release.ask("printer", "aloud", "printer-session").output_text == "aloud "
    release.until_ready_pods("printer", 2)  # kubectl shows none of them while one is starting
    for target in ("printer-session", "printer"):
        done = moorage(release, "logs", target, "--tail", "1000")
        (command,) = [line for line in done.stderr.splitlines() if line.startswith("kubectl ")]
        assert done.returncode == 1 and done.stdout == "", done
        shown = ("printer-session", "noted aloud")
        poll(f"{command} shows it", lambda command=command, shown=shown: shown in printed(release, command), every=0.5)
    release.kubectl("delete", "hostedagent", "printer", "--wait=true")


def printed(release: Installed, command: str) -> list[tuple[str, str]]:
    """(session, line) of what a `kubectl logs` shows of a shim's container, whether or not it says whose each line is."""
    shown = release.node.kubectl(*shlex.split(command)[1:]).splitlines()
    lines = [json.loads(line[line.index("{") :]) for line in shown if '"line":' in line]
    return [(one["session"], one["line"]) for one in lines]


def moorage(release: Installed, *words: str) -> subprocess.CompletedProcess[str]:
    """The command line as whoever operates the release has it."""
    where = {"MOORAGE_URL": str(release.client.base_url), "MOORAGE_API_KEY": release.client.api_key}
    environment = os.environ | where | {"KUBECONFIG": str(release.node.kubeconfig)}
    command = [str(Path(sys.executable).parent / "moorage"), *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def test_kubectl_shows_agents_as_it_is_written_down(release: Installed) -> None:
    """Against the golden files of `api/test_kubectl.py`, which writes them: pods that run, and a kubelet that finds no image."""
    place = states.Place(release.namespace, release.image, NOWHERE)
    for manifest in place.manifests():
        release.kubectl("apply", "-f", "-", given=manifest)
    for name in states.COMES_TO:
        until_told(release, name)
    states.compare(states.seen(release.kubectl, place))
    release.kubectl("delete", "hostedagent", *states.COMES_TO, "--wait=true")


def until_told(release: Installed, agent: str) -> None:
    """Waits until its status says what it comes to."""
    wanted = states.COMES_TO[agent]
    try:
        poll(f"{agent} comes to {wanted}", lambda: states.state(release.agent(agent)) == wanted, within=120)
    except AssertionError as fault:
        shown = release.kubectl("describe", "hostedagent", agent)
        raise AssertionError(f"{fault}\n{shown}\n{release.logs()}") from fault


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


@pytest.fixture(scope="module")
def review_image(node: Node, sandbox_image: str) -> str:
    """The review agent as an image."""
    return made.review_image(node)


def test_the_review_agent_reviews_the_sample(release: Installed, review_image: str, tmp_path: Path) -> None:
    """`examples/review-agent/agent.yaml` with an image for its source, which a cluster is not given by a path. No index is in reach."""
    manifest = yaml.safe_load((ROOT / "examples" / "review-agent" / "agent.yaml").read_text())
    del manifest["spec"]["source"]
    manifest["spec"]["image"] = review_image
    (tmp_path / "agent.yaml").write_text(yaml.safe_dump(manifest))
    name = manifest["metadata"]["name"]
    release.kubectl("apply", "-f", str(tmp_path / "agent.yaml"))
    release.until_ready(name, within=120)
    answer = release.ask(name, ASKED, "review-session", timeout=300)
    missing = [fact for fact in PLANTED if fact not in answer.output_text]
    assert not missing, f"{missing}\n{answer.output_text}\n{answer.error}\n{release.logs()}"
    release.kubectl("delete", "hostedagent", name, "--wait=true")


def test_a_sandbox_reaches_two_ports_of_the_gateways_and_nothing_else(release: Installed, node: Node) -> None:
    """Enforced by the node's own translator (docs/cluster-tests.md). Whatever it does not reach, the node does."""
    for name in ("caged", "neighbour"):
        release.apply(name)
    for name in ("caged", "neighbour"):
        release.until_ready(name, within=120)
    addresses = {part: release.parts(part)[0]["status"]["podIP"] for part in ("gateway", "operator", "valkey")}
    service = release.platform("get", "service", "moorage-gateway-sandbox", "-o", "jsonpath={.spec.clusterIP}")
    inside = [f"{where}:{port}" for where in (service, addresses["gateway"]) for port in (8081, 8082)]
    public = [release.address, f"{addresses['gateway']}:8080"]
    parts = [f"{addresses['gateway']}:8083", f"{addresses['operator']}:8084", f"{addresses['valkey']}:6379"]
    shim = f"{release.pods('neighbour')[0]['status']['podIP']}:{objects.SHIM_PORT}"
    pods = PlainPods(node, release.image, AGENTS)
    with reach.outside() as outside:
        free = [*reach.NODE, *reach.SERVERS, reach.started(pods, "listener"), outside, *public]
        there = [*free, *parts, shim]
        assert all(reach.here([*inside, *there]).values()), "somebody is there"
        seen = reach.from_plain_pod(pods, "free", [*inside, *free, reach.NAME], [*parts, shim])
        own = {**dict.fromkeys([*inside, *free, reach.NAME], True), **dict.fromkeys([*parts, shim], False)}
        assert seen == own, "of a pod beside them, only what the chart's own policies close is closed"
        reach.until_caged(release, "caged", inside, [*there, reach.NAME, reach.METADATA])

    (held,) = json.loads(release.kubectl("get", "networkpolicy", "-l", f"{marks.AGENT}=caged", "-o", "json"))["items"]
    assert held["spec"] == objects.policy("caged", AGENTS, {}, told(release))["spec"]
    assert {one["port"] for rule in held["spec"]["egress"] for one in rule["ports"]} == {8081, 8082}
    pods.kubectl("delete", "pod", "listener", "free", "--wait=false")
    release.kubectl("delete", "hostedagent", "caged", "neighbour", "--wait=true")


def told(release: Installed) -> settings.Settings:
    """What the release's operator is told, but for what is secret."""
    deployment = json.loads(release.platform("get", "deployment", "moorage-operator", "-o", "json"))
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    said = {one["name"]: one["value"] for one in container["env"] if "value" in one}
    unsaid = {"MOORAGE_REDIS_URL": "redis://unused", "MOORAGE_TOKEN_KEY": "00" * 32, "MOORAGE_NAMESPACE": PLATFORM}
    return settings.load(said | unsaid)


def test_a_model_is_asked_with_the_secrets_key_and_with_the_next_once_it_changed(
    release: Installed, models: Models, first_key: str
) -> None:
    release.apply("modelled", models=[ENDPOINT])
    release.until_ready("modelled", within=120)
    gateways = {one["metadata"]["uid"] for one in release.parts("gateway")}
    assert asked_with(release, models, first_key)
    second_key = f"sk-second-{uuid.uuid4().hex}"
    give_key(release, second_key)
    assert asked_with(release, models, second_key)
    assert {one["metadata"]["uid"] for one in release.parts("gateway")} == gateways, "without a restart"
    counts = [each["restartCount"] for one in release.parts("gateway") for each in one["status"]["containerStatuses"]]
    assert set(counts) == {0}

    shown = everything_shown(release, "modelled")
    for key in (first_key, second_key):
        assert key not in shown and base64.b64encode(key.encode()).decode() not in shown


def give_model(release: Installed, models: Models, key: str) -> None:
    """The server as a ModelEndpoint of the agents' namespace, and its key."""
    give_key(release, key)
    spec = {
        "protocol": "compatible",
        "baseUrl": f"{models.url}/v1",
        "credential": {"secret": CREDENTIAL, "key": "api-key"},
    }
    body = {"apiVersion": "moorage.dev/v1alpha1", "kind": "ModelEndpoint", "metadata": {"name": ENDPOINT}, "spec": spec}
    release.kubectl("apply", "-f", "-", given=json.dumps(body))


def give_key(release: Installed, key: str) -> None:
    """Server side: else the key would stand in an annotation."""
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": CREDENTIAL}, "stringData": {"api-key": key}}
    release.kubectl("apply", "--server-side", "-f", "-", given=json.dumps(body))


def asked_with(release: Installed, models: Models, key: str) -> bool:
    """Waits until the agent's question comes to the server with this key, and its answer back. AssertionError with the last one."""
    said = ""

    def answered() -> bool:
        nonlocal said
        text = f"hello {uuid.uuid4().hex}"
        said = release.ask("modelled", f"model {text}", "modelled-session").output_text
        shown = [each["headers"].get("authorization") for each in models.asked if each["text"] == text]
        return shown == [f"Bearer {key}"] and said.endswith(f"to {text}")

    try:
        return bool(poll("it is asked with the key", answered, within=KEY_SECONDS, every=2))
    except AssertionError as fault:
        found = release.kubectl("get", "modelendpoint", ENDPOINT, "-o", "yaml")
        raise AssertionError(f"{fault}\n{said}\n{found}\n{release.logs()}") from fault


def everything_shown(release: Installed, agent: str) -> str:
    """Every object but Secrets, what the platform's parts logged, and the environments of a sandbox's processes."""
    kinds = (
        "pods,hostedagents,modelendpoints,deployments,statefulsets,replicasets,jobs,configmaps,networkpolicies,events"
    )
    shown = [release.kubectl("get", kinds, "-o", "json"), release.platform("get", kinds, "-o", "json")]
    shown += [
        release.platform("logs", "-l", f"app.kubernetes.io/component={part}", "--tail=-1", "--prefix")
        for part in ("gateway", "operator")
    ]
    shown.append(release.ask(agent, "environment", "modelled-session").output_text)
    assert "OPENAI_API_KEY" in shown[-1]
    pod = release.sandbox(agent, "modelled-session")
    shown.append(release.kubectl("logs", pod, "--all-containers", "--tail=-1"))
    for container in ("agent", "shim"):
        within = ("-n", release.namespace, "-c", container)
        shown.append(release.node.kubectl("exec", pod, *within, "--", "python3", "-c", ENVIRONMENTS))
        assert "PATH=" in shown[-1]
    return "\n".join(shown)


ENVIRONMENTS = """
import pathlib
for path in pathlib.Path("/proc").glob("[0-9]*/environ"):
    try:
        print(path.read_bytes().replace(bytes(1), b" ").decode())
    except OSError:
        pass
"""


def test_the_doctor_finds_nothing_wrong_and_its_probe_leaves_nothing(release: Installed) -> None:
    done = moorage(release, "doctor", "--namespace", PLATFORM, "--probe", "--json")
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
