"""The pod of a toolbox' program: closed, bounded, no sandbox, and made anew for what it is made from. Pure."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from moorage_api import tokens
from moorage_api.kinds.stdio_server import StdioServer
from moorage_operator import marks, program_objects
from moorage_operator.program_objects import Program
from moorage_operator.settings import load
from unit.operating.test_objects import GIVEN, OWNER

pytestmark = pytest.mark.unit

SETTINGS = load(GIVEN)
SERVER: dict[str, Any] = {
    "command": "node", "args": ["server.js"], "image": "registry.example/notes:1", "workingDir": "inner",
    "env": [{"name": "MODE", "value": "x"}, {"name": "API_TOKEN", "secret": {"secret": "notes", "key": "token"}}],
}  # fmt: skip


def program(**more: Any) -> Program:
    server = StdioServer.model_validate({**SERVER, **more}, by_alias=True, by_name=False)
    return Program("tools", "acme", "t", "notes", server, OWNER)


def test_a_programs_pod_is_closed_bounded_and_no_sandbox() -> None:
    pod = program_objects.pod(program(), SETTINGS)
    spec, labels = pod["spec"], pod["metadata"]["labels"]
    assert not marks.is_sandbox(pod) and marks.OURS not in labels and labels[marks.PART] == marks.PROGRAM
    assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["seccompProfile"] == {
        "type": "RuntimeDefault"
    }
    assert spec["automountServiceAccountToken"] is False and "serviceAccountToken" not in json.dumps(spec)
    assert spec["dnsConfig"] == {"nameservers": ["127.0.0.1"]} and pod["metadata"]["ownerReferences"] == [OWNER]
    for one in [*spec["initContainers"], *spec["containers"]]:
        held = one["securityContext"]
        assert not held["allowPrivilegeEscalation"] and held["readOnlyRootFilesystem"]
        assert held["capabilities"] == {"drop": ["ALL"]} and {"cpu", "memory"} <= one["resources"]["limits"].keys()
    mounts = {each["name"]: each for each in spec["containers"][0]["volumeMounts"]}
    assert mounts["bridge"]["readOnly"] and mounts["home"]["mountPath"] == "/home/agent"
    assert all("sizeLimit" in each["emptyDir"] for each in spec["volumes"] if "emptyDir" in each)


def test_nothing_secret_stands_in_a_programs_objects() -> None:
    pod = program_objects.pod(program(), SETTINGS)
    key = SETTINGS.token_key.get_secret_value()
    shown = tokens.stdio_secret("acme", "t", "notes", key)
    said = json.loads(pod["metadata"]["annotations"][marks.CONFIG])
    assert said["token_sha256"] == tokens.secret_sha256(shown)
    assert key not in json.dumps(pod) and shown not in json.dumps(pod)
    assert said["env"]["MODE"] == "x" and "API_TOKEN" not in said["env"] and said["cwd"] == "/app/inner"
    assert (
        len(
            {
                tokens.stdio_secret(*whose, key)
                for whose in (("acme", "t", "notes"), ("acme", "t", "n"), ("b", "t", "notes"))
            }
        )
        == 3
    )


def test_only_gateways_reach_a_program_and_it_reaches_nothing() -> None:
    spec = program_objects.policy(program(), SETTINGS)["spec"]
    labels = program_objects.pod(program(), SETTINGS)["metadata"]["labels"]
    assert spec["podSelector"]["matchLabels"].items() <= labels.items()
    assert spec["policyTypes"] == ["Ingress", "Egress"] and spec["egress"] == []
    (rule,) = spec["ingress"]
    assert len(rule["from"]) == 1 and rule["ports"] == [{"protocol": "TCP", "port": 8100}]


@pytest.mark.parametrize(
    "other",
    [
        program(command="python"), program(args=[]), program(image="registry.example/notes:2"), program(env=[]),
        program(workingDir=""), program(resources={"memory": "1Gi"}), replace(program(), seen="another secret"),
    ],
)  # fmt: skip
def test_another_program_is_another_pod(other: Program) -> None:
    first = program_objects.made(program(), SETTINGS)
    assert program_objects.made(other, SETTINGS) != first == program_objects.made(program(), SETTINGS)
    assert other.name == program().name and len(other.name) <= 63
