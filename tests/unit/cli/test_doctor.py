"""What the doctor concludes from what a cluster and a gateway answer."""

from __future__ import annotations

import re
from typing import Any

import pytest

from moorage._errors import ApiStatusError, ConnectionLost
from moorage.cli.connection import Connection
from moorage.cli.doctor import command, findings, gateway, namespaces, network, platform, server, storage
from moorage.cli.doctor.asked import Answer, of_run
from moorage.cli.doctor.findings import Finding
from tree import ROOT
from unit.cli.doctoring import ABSENT, FORBIDDEN, LOST, items, said, told

pytestmark = pytest.mark.unit
WHERE = Connection("http://gateway", "key")


@pytest.mark.parametrize(
    ("code", "err", "outcome", "why"),
    [
        (0, "Warning: old", "answered", ""),
        (1, 'Error from server (Forbidden): x is forbidden: User "a" cannot', "forbidden", "Error from server (Forbidden)"),
        (1, 'Error from server (NotFound): namespaces "a" not found', "absent", "Error from server (NotFound)"),
        (1, "E1 memcache.go: a\nThe connection was refused\n", "refused", "The connection was refused"),
        (7, "", "refused", "kubectl ended with status 7"),
        (1, "x" * 5000, "refused", "x" * 300),
    ],
)  # fmt: skip
def test_how_kubectl_ended_says_what_the_answer_is(code: int, err: str, outcome: str, why: str) -> None:
    found = of_run(code, "out", err)
    assert found.outcome == outcome and found.why.startswith(why) and len(found.why) <= 300
    assert (found.text == "out") is (code == 0)


@pytest.mark.parametrize("text", ["", "[]", "{", '"a"', '{"items": 3}'])
def test_an_answer_of_another_shape_is_none(text: str) -> None:
    assert Answer("answered", text).items() is None


@pytest.mark.parametrize(
    ("answer", "level", "words"),
    [
        (said({"gitVersion": "v1.36.3"}), "ok", ["v1.36.3"]),
        (said({"gitVersion": "v1.30.0-gke.1"}), "ok", ["v1.30.0-gke.1"]),
        (said({"gitVersion": "v2.0.0"}), "ok", []),
        (said({"gitVersion": "v1.29.9"}), "wrong", ["too old", "1.30 or newer"]),
        (said({}), "could not look", []),
        (Answer("no kubectl", why="There is no kubectl on PATH."), "wrong", ["no kubectl", "Install kubectl", "KUBECONFIG"]),
        (LOST, "wrong", ["the connection broke", "kubectl config current-context"]),
        (FORBIDDEN, "could not look", ["/version"]),
    ],
)  # fmt: skip
def test_the_cluster(answer: Answer, level: str, words: list[str]) -> None:
    told(server.judge(answer), level, *words)


def test_the_oldest_version_is_the_charts() -> None:
    chart = (ROOT / "charts/moorage/Chart.yaml").read_text("utf-8")
    found = re.search(r'kubeVersion: ">=(\d+)\.(\d+)', chart)
    assert found is not None and (int(found[1]), int(found[2])) == server.OLDEST


def workload(component: str, kind: str = "Deployment", version: str = "7.7", **more: Any) -> dict[str, Any]:
    env = [
        {"name": "MOORAGE_NAMESPACES", "value": "team-a, team-b"},
        {"name": "MOORAGE_STORAGE_CLASS", "value": "fast"},
    ]
    env += [
        {"name": "MOORAGE_SANDBOX_IMAGE", "value": "r/sandbox:1"},
        {"name": "MOORAGE_REDIS_URL", "value": "redis://u:secret@x"},
    ]
    return {
        "kind": kind,
        "metadata": {
            "name": f"moorage-{component}", "generation": 2,
            "labels": {
                "app.kubernetes.io/component": component, "app.kubernetes.io/version": version, "helm.sh/chart": f"moorage-{version}"
            },
        },
        "spec": {"replicas": 2, "template": {"spec": {"containers": [{"image": f"r/{component}:{version}", "env": env}]}}},
        "status": {"availableReplicas": 2, "readyReplicas": 2, "observedGeneration": 2},
    } | more  # fmt: skip


WHOLE = (workload("operator"), workload("gateway"), workload("valkey", "StatefulSet"))


def by_check(found: list[Finding]) -> dict[str, Finding]:
    return {each.check: each for each in found}


def test_a_platform_that_is_well_is_told_with_images_and_versions() -> None:
    found = by_check(platform.judge("moorage", items(*WHOLE), "7.7"))
    assert set(found) == {"operator", "gateway", "valkey", "versions"}
    for name in ("operator", "gateway", "valkey"):
        told(found[name], "ok", "2 of 2", f"r/{name}:7.7", "chart moorage-7.7")
    told(found["versions"], "ok", "7.7")


def test_with_a_redis_of_ones_own_there_is_no_valkey_to_miss() -> None:
    assert "valkey" not in by_check(platform.judge("moorage", items(*WHOLE[:2]), "7.7"))


@pytest.mark.parametrize(
    ("changed", "level", "words"),
    [
        ({"status": {"availableReplicas": 1, "observedGeneration": 2}}, "wrong", ["1 of 2", "kubectl describe pods --namespace moorage"]),
        ({"status": {}}, "wrong", ["0 of 2", "kubectl logs --namespace moorage"]),
        ({"status": {"availableReplicas": 2, "observedGeneration": 1}}, "wrong", ["2 of 2"]),
        ({"spec": {"replicas": 0}}, "wrong", ["scaled to 0", "kubectl scale deployment moorage-gateway"]),
        ({"status": {"conditions": [{"type": "Available", "status": "False", "message": "too few"}]}}, "wrong", ["too few"]),
    ],
)  # fmt: skip
def test_a_part_that_is_not_available(changed: dict[str, Any], level: str, words: list[str]) -> None:
    answer = items(workload("operator"), workload("gateway", **changed))
    told(by_check(platform.judge("moorage", answer, "7.7"))["gateway"], level, *words)


@pytest.mark.parametrize(
    ("answer", "check", "level", "words"),
    [
        (items(), "operator", "wrong", ["helm install moorage charts/moorage --namespace other", "--namespace NAMESPACE"]),
        (items(), "gateway", "wrong", ["none in namespace other"]),
        (FORBIDDEN, "platform", "could not look", ["list deployments and statefulsets in namespace other"]),
        (items(workload("operator"), workload("gateway", version="7.6")), "versions", "wrong", ["moorage-gateway 7.6", "helm upgrade"]),
        (items(*(workload(p, version="7.6") for p in ("operator", "gateway"))), "versions", "wrong", ["moorage[cli]==7.6", "helm upgrade"]),
    ],
)  # fmt: skip
def test_a_platform_that_is_not_as_it_should_be(answer: Answer, check: str, level: str, words: list[str]) -> None:
    told(by_check(platform.judge("other", answer, "7.7"))[check], level, *words)


def test_the_operator_says_what_it_serves_and_nothing_else_of_it_is_taken() -> None:
    found = platform.told(items(*WHOLE))
    assert found == platform.Told(("team-a", "team-b"), "fast", "r/sandbox:1")
    assert platform.told(FORBIDDEN) == platform.told(items()) == platform.Told()
    assert "secret" not in repr((found, platform.judge("moorage", items(*WHOLE), "7.7")))


def test_what_the_operator_takes_from_elsewhere_is_not_looked_up() -> None:
    one = workload("operator")
    reference = {"name": "MOORAGE_STORAGE_CLASS", "valueFrom": {"configMapKeyRef": {"name": "a", "key": "b"}}}
    one["spec"]["template"]["spec"]["containers"][0]["env"] = [reference]
    assert platform.told(items(one)) == platform.Told()


def kept(name: str, *, default: bool = False, made: str = "2026-01-01T00:00:00Z", **more: Any) -> dict[str, Any]:
    notes = {storage.DEFAULT[0]: "true"} if default else {}
    return {
        "metadata": {"name": name, "annotations": notes, "creationTimestamp": made},
        "provisioner": "disks.example", "volumeBindingMode": "WaitForFirstConsumer", "reclaimPolicy": "Delete",
    } | more  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "named", "level", "words"),
    [
        (items(kept("a", default=True)), None, "ok", ["a (default) by disks.example", "WaitForFirstConsumer"]),
        (items(kept("a", default=True), kept("b")), "b", "ok", ["b (named)"]),
        (items(kept("a", default=True), kept("b", default=True, made="2026-01-02T00:00:00Z")), None, "ok", ["b (default)"]),
        (items(kept("a", default=True, volumeBindingMode="Immediate")), None, "ok", ["Immediate", "zone"]),
        (items(kept("a", default=True, reclaimPolicy="Retain")), None, "ok", ["Retain", "stay"]),
        (items(), None, "wrong", ["no storage class", "Install a provisioner"]),
        (items(kept("a")), None, "wrong", ["No storage class is the default", "has: a", "kubectl patch storageclass NAME"]),
        (items(kept("a", default=True, provisioner=storage.BY_HAND)), None, "wrong", ["makes no volumes by itself"]),
        (items(kept("a", provisioner=storage.BY_HAND)), "a", "wrong", ["a (named)", "makes no volumes"]),
        (items(kept("a")), "b", "wrong", ["no storage class b", "has: a"]),
        (FORBIDDEN, None, "could not look", ["list storageclasses"]),
    ],
)  # fmt: skip
def test_the_storage_class(answer: Answer, named: str | None, level: str, words: list[str]) -> None:
    told(storage.judge(answer, named), level, *words)


def space(phase: str = "Active", **labels: str) -> Answer:
    return said({"metadata": {"labels": labels}, "status": {"phase": phase}})


LABEL = "kubectl label namespace team pod-security.kubernetes.io/enforce=restricted --overwrite"


@pytest.mark.parametrize(
    ("answer", "level", "words"),
    [
        (space(**{namespaces.ENFORCE: "restricted"}), "ok", ["tenant team"]),
        (space(**{namespaces.ENFORCE: "restricted", namespaces.TENANT: "acme"}), "ok", ["tenant acme"]),
        (space(**{namespaces.ENFORCE: "baseline"}), "wrong", ["enforces baseline", LABEL]),
        (space(), "wrong", ["enforces nothing", LABEL]),
        (said({"metadata": {}}), "wrong", [LABEL]),
        (space("Terminating", **{namespaces.ENFORCE: "restricted"}), "wrong", ["being deleted"]),
        (ABSENT, "wrong", ["kubectl create namespace team", LABEL]),
        (FORBIDDEN, "could not look", ["get namespace team"]),
    ],
)
def test_a_namespace_of_agents(answer: Answer, level: str, words: list[str]) -> None:
    told(namespaces.judge("team", answer), level, *words)


@pytest.mark.parametrize(
    ("names", "level", "words"),
    [
        ("kube-flannel-ds\nkube-proxy", "wrong", ["kube-flannel-ds", "Calico"]),
        ("kube-flannel-ds\ncalico-node", "not tried", ["calico-node"]),
        ("canal", "not tried", ["canal"]),
        ("cilium", "not tried", ["cilium", "--probe"]),
        ("kube-proxy", "not tried", ["not known", "--probe"]),
        ("", "not tried", ["--probe"]),
    ],
)
def test_network_policies_without_a_probe(names: str, level: str, words: list[str]) -> None:
    told(network.judge(Answer("answered", names)), level, *words)


def test_network_policies_where_nothing_may_be_looked_at_were_not_tried() -> None:
    told(network.judge(FORBIDDEN), "not tried", "--probe")


REFUSED = ApiStatusError("The API key is not valid.", status=401)
READY = {"status": "ready", "redis": "ok", "store": "ok"}


@pytest.mark.parametrize(
    ("seen", "check", "level", "words"),
    [
        (gateway.Seen(READY, 3), "gateway URL", "ok", ["http://gateway"]),
        (gateway.Seen(READY, 3), "Redis", "ok", []),
        (gateway.Seen(READY, 3), "object store", "ok", []),
        (gateway.Seen(READY, 3), "key", "ok", ["valid", "agents that may be used: 3"]),
        (gateway.Seen(READY, REFUSED), "key", "wrong", ["not valid", "--key"]),
        (gateway.Seen(READY, ApiStatusError("Not this.", status=403)), "key", "could not look", ["Not this."]),
        (gateway.Seen(READY, ConnectionLost("It broke.")), "key", "could not look", ["It broke."]),
        (gateway.Seen(READY | {"store": "OSError"}, 3), "object store", "wrong", ["OSError", "kubectl logs", "deployment/moorage-gateway"]),
        (gateway.Seen(READY | {"redis": "TimeoutError"}, 3), "Redis", "wrong", ["TimeoutError", "redis.*"]),
        (gateway.Seen({"status": "unready", "gateway": "draining"}, 3), "gateway URL", "wrong", ["draining"]),
        (gateway.Seen(ConnectionLost("Nothing answers.")), "gateway URL", "wrong", ["Nothing answers.", "kubectl port-forward"]),
        (gateway.Seen(ApiStatusError("Unknown host.", status=421)), "gateway URL", "wrong", ["Unknown host.", "gateway.hosts"]),
    ],
)  # fmt: skip
def test_the_gateway(seen: gateway.Seen, check: str, level: str, words: list[str]) -> None:
    told(by_check(gateway.judge(seen, WHERE, "moorage", "moorage-gateway"))[check], level, *words)


def test_without_a_key_a_refusal_is_no_fault() -> None:
    found = by_check(gateway.judge(gateway.Seen(READY, REFUSED), Connection("http://gateway", None), "moorage", "g"))
    told(found["key"], "not tried", "--key")


@pytest.mark.parametrize(
    ("levels", "code", "summary"),
    [
        (["ok"], 0, "1 ok"),
        (["ok", "could not look", "not tried", "ok"], 0, "2 ok, 1 could not look, 1 not tried"),
        (["ok", "wrong"], 1, "1 ok, 1 wrong"),
    ],
)
def test_only_what_is_wrong_fails(levels: list[Any], code: int, summary: str) -> None:
    found = [Finding("a", level, "b", ("c",)) for level in levels]
    assert (findings.code(found), findings.summary(found)) == (code, summary)


class Cluster:
    """Answers by the kind that is asked for; keeps what was asked."""

    def __init__(self, **answers: Answer) -> None:
        self.answers = {"--raw": said({"gitVersion": "v1.36.3"})} | answers
        self.asked: list[tuple[str, ...]] = []

    def __call__(self, *arguments: str, given: str = "", within: float | None = None) -> Answer:
        self.asked.append(arguments)
        return self.answers.get(arguments[1].replace(",", "_"), FORBIDDEN)


def test_what_may_not_be_looked_at_is_told_line_by_line_and_is_no_failure() -> None:
    found = command.examine(Cluster(), None, command.Wish("moorage", ("team",)), "7.7")
    assert {each.level for each in found} == {"ok", "could not look", "not tried"} and findings.code(found) == 0
    assert len([each for each in found if each.level == "could not look"]) == 7


def test_without_a_cluster_only_the_gateway_is_asked() -> None:
    ask = Cluster(**{"--raw": Answer("no kubectl", why="There is no kubectl on PATH.")})
    asked: list[Connection] = []

    def look(where: Connection) -> gateway.Seen:
        asked.append(where)
        return gateway.Seen(READY, 1)

    found = command.examine(ask, WHERE, command.Wish("moorage"), "7.7", look)
    assert [each.check for each in found] == ["cluster", "gateway URL", "Redis", "object store", "key"]
    assert len(ask.asked) == 1 and asked == [WHERE]


def test_it_only_reads_no_secret_and_what_the_operator_serves() -> None:
    ask = Cluster(deployments_statefulsets=items(*WHOLE), storageclasses=items(kept("fast")))
    found = by_check(command.examine(ask, None, command.Wish("moorage", ("team-b", "mine")), "7.7"))
    assert {words[0] for words in ask.asked} == {"get"}
    assert not [words for words in ask.asked if "secret" in " ".join(words)]
    assert [words[2] for words in ask.asked if words[1] == "namespace"] == ["team-b", "mine", "team-a"]
    told(found["storage class"], "ok", "fast (named)")


def test_a_probe_that_does_not_know_where_or_what_is_not_tried() -> None:
    found = by_check(command.examine(Cluster(), None, command.Wish("moorage", probe=True), "7.7"))
    told(found[network.CHECK], "not tried", "--agents")
    found = by_check(command.examine(Cluster(), None, command.Wish("moorage", ("team",), probe=True), "7.7"))
    told(found[network.CHECK], "not tried", "--probe-image")
