"""The objects of an agent: what they hold, and what must never be in them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moorage_api.kinds import parse
from moorage_api.kinds.quantities import octets
from moorage_api.provider.base import Revision
from moorage_api.wire.shim import ALIVE
from moorage_operator import marks, objects
from moorage_operator.settings import BadSetting, Settings, load

pytestmark = pytest.mark.unit

OWNER = {"apiVersion": "moorage.dev/v1alpha1", "kind": "HostedAgent", "name": "a", "uid": "u", "controller": True}
GIVEN = {
    "MOORAGE_REDIS_URL": "redis://:hunter2@redis:6379/0",
    "MOORAGE_TOKEN_KEY": "ab" * 32,
    "MOORAGE_NAMESPACE": "moorage",
    "MOORAGE_NAMESPACES": "agents, more",
    "MOORAGE_SANDBOX_IMAGE": "reg.example/sandbox:1",
    "MOORAGE_SANDBOX_URL": "http://10.0.0.9:8081",
    "MOORAGE_EGRESS_URL": "http://10.0.0.9:8082",
    "MOORAGE_GATEWAY_PODS": "app.kubernetes.io/component=gateway",
}


def settings(**more: str) -> Settings:
    return load(GIVEN | more)


def revision(**spec: Any) -> Revision:
    document = {
        "apiVersion": "moorage.dev/v1alpha1", "kind": "HostedAgent", "metadata": {"name": "a"},
        "spec": {"image": "reg.example/agent:1", **spec},
    }  # fmt: skip
    program = objects.Program("agents", "reg.example/agent:1", OWNER)
    return Revision("t", "a", "r1", parse(document).spec, "moorage", program)


def pod(**spec: Any) -> dict[str, Any]:
    return objects.pod(revision(**spec), "sb-1", "ws-1", {"sandbox": "sb-1"}, settings())


def test_both_containers_pass_restricted_pod_security() -> None:
    made = pod()["spec"]
    assert made["automountServiceAccountToken"] is False
    assert made["securityContext"]["runAsNonRoot"] and made["securityContext"]["seccompProfile"]
    for one in [*made["initContainers"], *made["containers"]]:
        held = one["securityContext"]
        assert not held["allowPrivilegeEscalation"] and held["capabilities"] == {"drop": ["ALL"]}, one["name"]
        assert held["readOnlyRootFilesystem"] and one["resources"]["limits"], one["name"]


def test_only_the_shim_sees_token_configuration_and_the_whole_volume() -> None:
    for one in [*pod()["spec"]["initContainers"], *pod()["spec"]["containers"]]:
        mounts = {mount["name"]: mount for mount in one["volumeMounts"]}
        if one["name"] == "shim":
            assert {"told", "volume"} <= mounts.keys()
        else:
            assert "told" not in mounts, one["name"]
        if one["name"] == "agent":
            assert {m["subPath"] for m in one["volumeMounts"] if m["name"] == "volume"} == {"workspace", "home"}
            assert mounts["launcher"]["readOnly"]


def test_the_agents_container_becomes_the_launcher_once_its_shim_has_brought_it(tmp_path: Path) -> None:
    place = tmp_path / "launcher"
    words = [sys.executable, "-c", objects.FIRST, "30", str(place), "pod"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as waiting:
        (fresh := tmp_path / "launcher.new").mkdir()
        (fresh / "__main__.py").write_text("import os, sys; print(os.getpid(), sys.argv[1:])")
        fresh.rename(place)
        said, _ = waiting.communicate(timeout=30)
    assert said.split(maxsplit=1) == [str(waiting.pid), "['pod']\n"]
    late = subprocess.run(
        [sys.executable, "-c", objects.FIRST, "0", str(tmp_path / "none")], capture_output=True, text=True, check=False
    )
    assert late.returncode == 1 and "no shim brought" in late.stderr


def test_a_session_that_wakes_on_files_of_its_own_waits_for_no_container() -> None:
    def first(**spec: Any) -> list[str]:
        made = objects.pod(revision(**spec), "sb-1", "ws-1", {}, settings(), used=True)["spec"]
        return [one["name"] for one in made["initContainers"]]

    assert first() == []
    assert first(egress=["package-index"]) == ["code"]
    assert first(workspace={"fileSystem": False}) == ["folders"], "its folders went with the former pod"


def test_the_manifest_reaches_the_pod() -> None:
    made = pod(
        resources={"cpu": "2", "memory": "1Gi"}, runtimeClassName="gvisor", nodeSelector={"disk": "ssd"},
        tolerations=[{"key": "gpu", "operator": "Exists"}], imagePullSecrets=["pull"], priorityClassName="high",
        env=[{"name": "MODE", "value": "fast"}], workspace={"mount": "/data"},
    )["spec"]  # fmt: skip
    assert (made["runtimeClassName"], made["nodeSelector"], made["priorityClassName"]) == (
        "gvisor",
        {"disk": "ssd"},
        "high",
    )
    assert made["tolerations"] == [{"key": "gpu", "operator": "Exists"}]
    assert made["imagePullSecrets"] == [{"name": "pull"}]
    agent = next(one for one in made["containers"] if one["name"] == "agent")
    assert agent["resources"]["limits"] == {"cpu": "2", "memory": "1Gi", "ephemeral-storage": "1Gi"}
    assert {"name": "MODE", "value": "fast"} in agent["env"]
    assert "/data" in [mount["mountPath"] for mount in agent["volumeMounts"]]


def test_an_agent_that_may_reach_the_package_index_is_told_how() -> None:
    made = pod(egress=["package-index"])["spec"]
    (first,) = [one for one in made["initContainers"] if one["name"] == "code"]
    assert "--index" in first["command"] and "--digest" not in first["command"]
    agent = next(one for one in made["containers"] if one["name"] == "agent")
    (mount,) = [one for one in agent["volumeMounts"] if one["name"] == "code"]
    assert (mount["mountPath"], mount["subPath"], mount["readOnly"]) == ("/opt/moorage-index", "index", True)
    given = agent["command"][agent["command"].index("--variables") + 1]
    assert given == "/opt/moorage-index/variables.json"
    for other in pod(egress=["api.example"])["spec"]["containers"]:
        assert "--variables" not in other["command"]


def disk(spec: dict[str, Any], part: str) -> dict[str, int]:
    """Container → its request or limit of ephemeral storage; KeyError where one has none."""
    every = [*spec.get("initContainers", ()), *spec["containers"]]
    return {one["name"]: octets(one["resources"][part]["ephemeral-storage"]) for one in every}


@pytest.mark.parametrize(
    "more",
    [{}, {"egress": ["package-index"]}, {"workspace": {"fileSystem": False, "size": "4Gi"}}],
    ids=["plain", "with an index", "with files of its own"],
)
def test_every_container_asks_for_disk_and_the_pod_for_as_much_as_its_folders_may_hold(more: dict[str, Any]) -> None:
    made = pod(**more)["spec"]
    assert all(disk(made, "requests").values())
    limits = disk(made, "limits")
    folders = [one["emptyDir"] for one in made["volumes"] if "emptyDir" in one]
    held = sum(octets(one["sizeLimit"]) for one in folders if one.get("medium") != "Memory")
    assert sum(limits[one["name"]] for one in made["containers"]) >= held, (
        "else a kubelet evicts it for what it may hold"
    )
    assert limits["agent"] == octets("1Gi"), "as its manifest says"


def test_a_pod_asks_for_what_the_operator_is_told_and_never_for_more_than_its_limits() -> None:
    told = settings(MOORAGE_SANDBOX_CPU_REQUEST="5m", MOORAGE_SANDBOX_MEMORY_REQUEST="48Mi")
    made = objects.pod(revision(), "sb-1", "ws-1", {"sandbox": "sb-1"}, told)["spec"]
    asked = {one["name"]: one["resources"]["requests"]["cpu"] for one in [*made["initContainers"], *made["containers"]]}
    assert asked.pop("shim") == "20m" and set(asked.values()) == {"5m"} and len(asked) >= 2
    few = pod(resources={"cpu": "20m", "memory": "40Mi", "ephemeralStorage": "32Mi"})["spec"]["containers"][0]
    assert few["resources"]["requests"] == few["resources"]["limits"]


def test_where_a_node_cannot_measure_disk_no_container_asks_for_it() -> None:
    made = objects.pod(revision(), "sb-1", "ws-1", {}, settings(MOORAGE_EPHEMERAL_STORAGE="false"))
    assert "ephemeral-storage" not in json.dumps(made["spec"])


def test_the_probes_of_a_pod_ask_different_things_and_only_a_shim_that_is_silent_for_minutes_is_killed() -> None:
    agent, shim = pod()["spec"]["containers"]
    assert not [name for name in agent if name.endswith("Probe")], "the shim judges it"
    alive, start, ready = (shim[f"{name}Probe"] for name in ("liveness", "startup", "readiness"))
    assert alive["periodSeconds"] * alive["failureThreshold"] >= 120 and alive["timeoutSeconds"] >= 5
    assert alive["httpGet"] == {"port": objects.SHIM_PORT, "path": ALIVE}, "a loop that stands still takes connections"
    assert start["periodSeconds"] * start["failureThreshold"] > settings().ready_seconds, "the operator gives up before"
    assert ready["periodSeconds"] * ready["failureThreshold"] < 10


def test_files_that_are_not_kept_lie_in_the_pod() -> None:
    made = pod(workspace={"fileSystem": False, "size": "2Gi"})["spec"]["volumes"]
    assert next(one for one in made if one["name"] == "volume")["emptyDir"] == {"sizeLimit": "2Gi"}


def test_the_policy_lets_only_the_gateways_ports_through() -> None:
    made = objects.policy("a", "agents", OWNER, settings())["spec"]
    assert made["podSelector"]["matchLabels"] == {marks.OURS: marks.MANAGER, marks.AGENT: "a"}
    assert [port["port"] for port in made["egress"][0]["ports"]] == [8081, 8082]
    peer = made["egress"][0]["to"][0]
    assert peer["podSelector"]["matchLabels"] == {"app.kubernetes.io/component": "gateway"}
    assert peer["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "moorage"}
    alone = settings(MOORAGE_GATEWAY_CIDR="10.0.0.9/32", MOORAGE_GATEWAY_PODS="")
    outside = objects.policy("a", "agents", OWNER, alone)
    assert outside["spec"]["ingress"][0]["from"] == [{"ipBlock": {"cidr": "10.0.0.9/32"}}]


def test_what_a_server_adds_is_no_difference() -> None:
    wanted = objects.policy("a", "agents", OWNER, settings())
    held = json.loads(json.dumps(wanted))
    held["metadata"] |= {"uid": "u", "resourceVersion": "7"}
    assert objects.covers(held, wanted)
    held["spec"]["egress"] = []
    assert not objects.covers(held, wanted)
    assert not objects.covers({**held, "spec": wanted["spec"], "metadata": {"name": "x"}}, wanted)


def narrowed(spec: dict[str, Any]) -> None:
    spec["podSelector"]["matchLabels"]["x"] = "y"


def chosen(spec: dict[str, Any]) -> None:
    spec["podSelector"]["matchExpressions"] = [{"key": "x", "operator": "Exists"}]


def widened(spec: dict[str, Any]) -> None:
    spec["egress"][0]["ports"][0]["endPort"] = 65535


@pytest.mark.parametrize("edited", [narrowed, chosen, widened])
def test_a_policy_that_says_a_word_more_does_not_stand(edited: Callable[[dict[str, Any]], None]) -> None:
    wanted = objects.policy("a", "agents", OWNER, settings())
    held = json.loads(json.dumps(wanted))
    held["metadata"] |= {"uid": "u", "resourceVersion": "7"}
    assert objects.stands(held, wanted)
    edited(held["spec"])
    assert not objects.stands(held, wanted)


def test_what_says_nothing_may_be_left_out_and_an_account_has_more_of_others() -> None:
    wanted = {"metadata": {"name": "x"}, "spec": {"ingress": [], "egress": [1]}}
    assert objects.stands({"metadata": {"name": "x", "uid": "u"}, "spec": {"egress": [1]}}, wanted)
    account = objects.account("a", "agents", OWNER)
    assert objects.stands({**account, "imagePullSecrets": [{"name": "pull"}]}, account)


def test_a_pod_can_be_read_back() -> None:
    made = pod(env=[{"name": "MODE", "value": "fast"}])
    assert json.loads(marks.text(made, "annotations", marks.SPEC))["env"] == [{"name": "MODE", "value": "fast"}]
    assert marks.is_ours(made) and marks.text(made, "labels", marks.SANDBOX) == "sb-1"


@pytest.mark.parametrize("missing", sorted(set(GIVEN) - {"MOORAGE_EGRESS_URL"}))
def test_a_missing_setting_is_named(missing: str) -> None:
    with pytest.raises(BadSetting, match=missing):
        load({name: text for name, text in GIVEN.items() if name != missing})


def test_a_wrong_setting_is_named_and_never_shown() -> None:
    with pytest.raises(BadSetting) as refused:
        load(GIVEN | {"MOORAGE_TOKEN_KEY": "hunter2"})
    assert "MOORAGE_TOKEN_KEY" in str(refused.value) and "hunter2" not in str(refused.value)
    assert "hunter2" not in repr(settings())
