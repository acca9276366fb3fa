"""`moorage doctor` on a real API server: what it says is missing is so, and the commands that it prints mend it."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.node.control import ControlPlane
from moorage.cli.doctor import definitions

pytestmark = [pytest.mark.api, pytest.mark.timeout(300)]
ROOT = Path(__file__).resolve().parents[2]
MOORAGE = Path(sys.executable).parent / "moorage"
PLATFORM, AGENTS = "moorage", "team-a"
READER = "doctors-reader"
CRD = "CRD hostedagents.moorage.dev"
MODELS = "CRD modelendpoints.moorage.dev"
TOOLS = "CRD toolboxes.moorage.dev"
TIMED = "CRD routines.moorage.dev"
# As docs/operate.md says.
RIGHTS = """
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: doctor}
rules:
  - {apiGroups: [apiextensions.k8s.io], resources: [customresourcedefinitions], verbs: [get]}
  - {apiGroups: [storage.k8s.io], resources: [storageclasses], verbs: [list]}
  - {apiGroups: [apps], resources: [daemonsets, deployments, statefulsets], verbs: [list]}
  - {apiGroups: [""], resources: [namespaces], verbs: [get]}
"""


@pytest.fixture(scope="module")
def empty(programs: None) -> Iterator[ControlPlane]:
    """A server of its own, which nobody told of Moorage."""
    with ControlPlane.started(Path(tempfile.mkdtemp(prefix="moorage-doctor-"))) as started:
        yield started


class Doctor:
    """Runs it; `findings` by what was looked at."""

    def __init__(self, kubeconfig: Path, scratch: Path) -> None:
        self._env = {k: v for k, v in os.environ.items() if not k.startswith("MOORAGE_")}
        self._env |= {"KUBECONFIG": str(kubeconfig), "XDG_CONFIG_HOME": str(scratch)}
        self.findings: dict[str, dict[str, Any]] = {}
        self.code = -1

    def look(self, *arguments: str) -> None:
        """One run."""
        command = [str(MOORAGE), "doctor", "--json", *arguments]
        done = subprocess.run(command, env=self._env, capture_output=True, text=True, timeout=120, check=False)
        self.code = done.returncode
        self.findings = {each["check"]: each for each in json.loads(done.stdout)["findings"]}

    def level(self, check: str) -> str:
        """Of one thing."""
        return str(self.findings[check]["result"])

    def mend(self, check: str, **names: str) -> None:
        """Does what it says: every kubectl command, with `names` filled in."""
        commands = [line for line in self.findings[check]["mend"] if line.startswith("kubectl")]
        assert commands, self.findings[check]
        for line in commands:
            for word, name in names.items():
                line = line.replace(word, name)
            subprocess.run(shlex.split(line), cwd=ROOT, env=self._env, capture_output=True, timeout=60, check=True)


@pytest.fixture
def doctor(empty: ControlPlane, tmp_path: Path) -> Doctor:
    return Doctor(empty.kubeconfig, tmp_path)


def apply(plane: ControlPlane, *bodies: dict[str, Any]) -> None:
    plane.kubectl("apply", "-f", "-", given=json.dumps({"apiVersion": "v1", "kind": "List", "items": bodies}))


def deployment(part: str, version: str) -> dict[str, Any]:
    own = {"app.kubernetes.io/name": "moorage", "app.kubernetes.io/component": part}
    named = {**own, "app.kubernetes.io/version": version, "helm.sh/chart": f"moorage-{version}"}
    env = [{"name": "MOORAGE_NAMESPACES", "value": AGENTS}]
    return {
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": f"moorage-{part}", "namespace": PLATFORM, "labels": named},
        "spec": {
            "replicas": 2, "selector": {"matchLabels": own},
            "template": {
                "metadata": {"labels": own},
                "spec": {"containers": [{"name": part, "image": f"registry.example/moorage-{part}:{version}", "env": env}]},
            },
        },
    }  # fmt: skip


def become_available(plane: ControlPlane, part: str) -> None:
    """What the controller of Deployments would say, which does not run here."""
    status = {"status": {"observedGeneration": 1, "replicas": 2, "readyReplicas": 2, "availableReplicas": 2}}
    plane.kubectl(
        "patch", "deployment", f"moorage-{part}", "-n", PLATFORM, "--subresource=status", "--type=merge", "-p", json.dumps(status)
    )  # fmt: skip


def test_on_an_empty_server_it_says_what_is_missing_and_its_commands_mend_it(
    empty: ControlPlane, doctor: Doctor
) -> None:
    doctor.look("--agents", AGENTS)
    levels = {check: each["result"] for check, each in doctor.findings.items()}
    assert doctor.code == 1 and levels == {
        "cluster": "ok", CRD: "wrong", MODELS: "wrong", TOOLS: "wrong", TIMED: "wrong", "operator": "wrong", "gateway": "wrong",
        "storage class": "wrong", f"namespace {AGENTS}": "wrong", "network policies": "not tried", "gateway URL": "not tried",
    }  # fmt: skip
    assert doctor.findings["operator"]["mend"][0].startswith("helm install moorage charts/moorage --namespace moorage ")
    assert definitions.UPGRADE in doctor.findings[CRD]["mend"]

    doctor.mend(CRD)
    doctor.mend(f"namespace {AGENTS}")
    empty.kubectl("wait", "--for=condition=Established", f"crd/{CRD.removeprefix('CRD ')}", "--timeout=30s")
    kept = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": "disks"},
        "provisioner": "disks.example",
    }
    apply(empty, kept)
    doctor.look("--agents", AGENTS)
    assert (doctor.level(CRD), doctor.level(f"namespace {AGENTS}")) == ("ok", "ok"), doctor.findings
    assert doctor.level("storage class") == "wrong", "it is not the default"
    doctor.mend("storage class", NAME="disks")

    version = str(doctor.findings[CRD]["message"]).partition("(")[2].partition(")")[0]
    empty.kubectl("create", "namespace", PLATFORM)
    apply(empty, deployment("operator", version), deployment("gateway", version))
    doctor.look()
    assert doctor.level("operator") == "wrong" and "0 of 2" in doctor.findings["operator"]["message"]
    become_available(empty, "operator")
    become_available(empty, "gateway")
    doctor.look()
    assert doctor.code == 0, doctor.findings
    assert f"namespace {AGENTS}" in doctor.findings, "the operator says which namespaces it serves"
    assert "registry.example/moorage-gateway" in doctor.findings["gateway"]["message"]


def test_an_older_definition_is_seen_and_its_command_upgrades_it(empty: ControlPlane, doctor: Doctor) -> None:
    held = yaml.safe_load((ROOT / "charts/moorage/crds/hostedagents.moorage.dev.yaml").read_text())
    root = held["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    del root["properties"]["status"]["properties"]["source"]
    empty.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", given=json.dumps(held))
    doctor.look()
    assert doctor.level(CRD) == "wrong" and "older" in doctor.findings[CRD]["message"]
    assert "status.source" in doctor.findings[CRD]["message"]
    doctor.mend(CRD)
    doctor.look()
    assert doctor.level(CRD) == "ok", doctor.findings[CRD]


def test_an_account_without_rights_is_told_what_it_may_not_and_needs_no_more_than_reading(
    empty: ControlPlane, tmp_path: Path
) -> None:
    config = yaml.safe_load(empty.kubeconfig.read_text())
    config["users"][0]["user"]["as"] = READER
    config["users"][0]["user"]["as-groups"] = ["system:authenticated"]
    theirs = tmp_path / "kubeconfig"
    theirs.write_text(yaml.safe_dump(config))
    doctor = Doctor(theirs, tmp_path)
    doctor.look("--agents", "default")
    blind = {check for check, each in doctor.findings.items() if each["result"] == "could not look"}
    assert (doctor.code, blind) == (0, {CRD, MODELS, TOOLS, TIMED, "platform", "storage class", "namespace default"})

    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "doctor"}}
    subject = {"kind": "User", "name": READER, "apiGroup": "rbac.authorization.k8s.io"}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "doctor"}
    apply(empty, yaml.safe_load(RIGHTS), {**role, "subjects": [subject], "roleRef": reference})
    doctor.look("--agents", "default", "--probe", "--probe-image", "registry.example/python3")
    blind = {check for check, each in doctor.findings.items() if each["result"] == "could not look"}
    assert blind == {"network policies"}, "only the probe makes something"
    assert "may not create" in doctor.findings["network policies"]["message"]
