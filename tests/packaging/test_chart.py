"""The chart: rendered by the real helm over a matrix of values, compared with golden files, and refused where it must be.

MOORAGE_GOLDEN=write writes the golden files anew; read the difference before you commit it.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from chart import api, helm, rendered
from chart.matrix import GOLDEN, HA, IMAGES, MATRIX
from moorage_gateway import settings as gateway_settings
from moorage_operator import settings as operator_settings
from tree import ROOT

pytestmark = pytest.mark.packaging

REFUSED = {
    "no image": ([], "There is no image of"),
    "a folder and two gateways": ([*IMAGES, "--set", "gateway.replicas=2"], "/gateway/replicas"),
    "a folder and a scaler": ([*IMAGES, "--set", "gateway.autoscaling.enabled=true"], "/gateway/autoscaling/enabled"),
    "S3 without a bucket": ([*IMAGES, "--set", "store.kind=s3"], "set store.s3.endpoint, store.s3.bucket"),
    "no Redis at all": ([*IMAGES, "--set", "valkey.enabled=false"], "set redis.url"),
    "a password in a URL": ([*IMAGES, "--set", "valkey.enabled=false,redis.url=redis://:x@redis.example"], "/redis/url"),
    "a secret among settings": ([*IMAGES, "--set", "gateway.settings.S3_SECRET_KEY=x"], "invalid propertyName 'S3_SECRET_KEY'"),
    "an upstream without a port": ([*IMAGES, "--set", "models.allowedUpstreams={models.example}"], "/models/allowedUpstreams/0"),
    "a misspelt value": ([*IMAGES, "--set", "gateway.replica=1"], "'replica' not allowed"),
    "an ingress without a host": ([*IMAGES, "--set", "ingress.enabled=true"], "set ingress.host"),
    "a route without a parent": ([*IMAGES, "--set", "httpRoute.enabled=true"], "set httpRoute.parentRefs"),
}  # fmt: skip


@pytest.fixture(params=MATRIX)
def found(request: pytest.FixtureRequest, texts: dict[str, str]) -> list[rendered.Object]:
    """The objects of one row."""
    return rendered.objects(texts[request.param])


def test_helm_finds_nothing_to_complain_of(binary: Path) -> None:
    for values in MATRIX.values():
        done = helm.run(binary, "lint", "--strict", helm.CHART, *values)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", MATRIX)
def test_the_chart_renders_what_is_written_down(texts: dict[str, str], name: str) -> None:
    file, made = GOLDEN / f"{name}.yaml", rendered.golden(texts[name])
    if os.environ.get("MOORAGE_GOLDEN") == "write":
        file.write_text(made, encoding="utf-8")
    assert made == file.read_text(encoding="utf-8")


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_work_is_refused_with_a_sentence(binary: Path, case: str) -> None:
    values, sentence = REFUSED[case]
    done = helm.template(binary, values)
    assert done.returncode != 0 and sentence in done.stderr


def test_every_secret_is_made_anew_for_every_installation(texts: dict[str, str], binary: Path) -> None:
    def secrets(text: str) -> list[str]:
        return [v for each in rendered.objects(text) if each["kind"] == "Secret" for v in each["data"].values()]

    first, second = secrets(texts["default"]), secrets(helm.template(binary, MATRIX["default"]).stdout)
    assert len(first) == 3 and len({*first, *second}) == 6


def test_rights_are_named_one_by_one_and_reach_no_shell_and_of_secrets_only_named_ones(
    found: list[rendered.Object],
) -> None:
    rules = [(each, rule) for each in found if each["kind"] in ("Role", "ClusterRole") for rule in each["rules"]]
    assert rules
    for owner, rule in rules:
        assert "*" not in {word for words in rule.values() for word in words}
        if "secrets" in rule.get("resources", ()):
            assert rule["resourceNames"] and {*rule["verbs"]} <= {"get", "patch"} and rule["resources"] == ["secrets"]
            assert "patch" not in rule["verbs"] or rule["resourceNames"] == ["moorage-gateway-credentials"]
        assert not {"pods/exec", "pods/attach", "pods/ephemeralcontainers", "nodes"} & {*rule.get("resources", ())}
        assert not {"escalate", "bind", "impersonate", "deletecollection"} & {*rule["verbs"]}
        if owner["kind"] == "ClusterRole":
            assert rule["verbs"] == ["get"] and (rule.get("resourceNames") or rule.get("nonResourceURLs"))


def test_no_secret_can_be_read_until_one_is_named(texts: dict[str, str]) -> None:
    reach = {
        name: {each for one in rendered.objects(text) if one["kind"] in ("Role", "ClusterRole") for rule in one["rules"]
               if "secrets" in rule.get("resources", ()) for each in rule["resourceNames"]}
        for name, text in texts.items()
    }  # fmt: skip
    assert reach.pop("everything") == {"openai", "anthropic", "tracker", "moorage-gateway-credentials"}
    assert set(map(len, reach.values())) == {0}


def test_the_page_says_the_rights_that_the_chart_gives_and_no_other(texts: dict[str, str]) -> None:
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8").split("## Rights")[1].split("\n## ")[0]
    rows = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in page.splitlines() if "`" in line]
    said = {
        (where, what, " that " in text, verb)
        for where, text, verbs in (row for row in rows if len(row) == 3)
        for what in re.findall(r"`([^`]+)`", text.split(" that ")[0])
        for verb in verbs.split(", ")
    }
    served = {"team-a": "each served namespace", "team-b": "each served namespace"}
    given: dict[str, set[tuple[str, str, bool, str]]] = {}
    for one in rendered.objects(texts["everything"]):
        for rule in one["rules"] if one["kind"] in ("Role", "ClusterRole") else ():
            space = one["metadata"].get("namespace", "")
            where = "cluster" if one["kind"] == "ClusterRole" else served.get(space, "its own namespace")
            given.setdefault(space, set()).update(
                (where, what, "resourceNames" in rule, verb)
                for what in [*rule.get("resources", ()), *rule.get("nonResourceURLs", ())]
                for verb in rule["verbs"]
            )
    assert given["team-a"] == given["team-b"]
    assert set().union(*given.values()) == said


def test_only_the_operator_has_rights_and_a_token(found: list[rendered.Object]) -> None:
    subjects = {s["name"] for each in found if each["kind"].endswith("RoleBinding") for s in each["subjects"]}
    tokens = {spec["serviceAccountName"] for _, _, spec in rendered.pods(found) if spec["automountServiceAccountToken"]}
    assert subjects == tokens == {"moorage-operator"}


def test_every_pod_fits_restricted_pod_security(found: list[rendered.Object]) -> None:
    for name, _, spec in rendered.pods(found):
        pod = spec["securityContext"]
        assert (
            pod["runAsNonRoot"] and pod["runAsUser"] >= 10000 and pod["seccompProfile"] == {"type": "RuntimeDefault"}
        ), name
        assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & {*spec}, name
        assert {*(key for volume in spec.get("volumes", ()) for key in volume)} <= {
            "name", "emptyDir", "secret", "configMap", "persistentVolumeClaim", "projected",
        }, name  # fmt: skip
        shown = [each for volume in spec.get("volumes", ()) for each in volume.get("projected", {}).get("sources", ())]
        assert all([*each] == ["serviceAccountToken"] and each["serviceAccountToken"]["audience"] for each in shown), (
            name
        )
        assert not shown or name == "Deployment/moorage-gateway", (
            "no other pod has a token, and none that is for the cluster itself"
        )
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name
            assert container["resources"]["requests"] and container["resources"]["limits"]["memory"], name


def test_every_pod_has_a_policy_for_both_directions(found: list[rendered.Object]) -> None:
    policies = [each["spec"] for each in found if each["kind"] == "NetworkPolicy"]
    for name, labels, _ in rendered.pods(found):
        mine = [p for p in policies if p["podSelector"]["matchLabels"].items() <= labels.items()]
        assert [p["policyTypes"] for p in mine] == [["Ingress", "Egress"]], name


def test_the_control_port_is_behind_no_service_unless_metrics_are_asked_for(texts: dict[str, str]) -> None:
    for name, text in texts.items():
        services = [each for each in rendered.objects(text) if each["kind"] == "Service"]
        control = [s["metadata"]["name"] for s in services for p in s["spec"]["ports"] if p["targetPort"] == "control"]
        assert control == (["moorage-gateway-metrics"] if name == "everything" else [])


def test_the_gateway_and_the_operator_accept_the_settings_they_are_given(found: list[rendered.Object]) -> None:
    specs = {name: rendered.environment(spec, found) for name, _, spec in rendered.pods(found)}
    of_fields = {
        "MOORAGE_NAMESPACE": "platform",
        "MOORAGE_TOKEN_KEY": "a" * 64,
        "MOORAGE_CONSENT_KEYS": "a" * 64,
        "MOORAGE_REDIS_URL": "redis://x",
    }

    def given(pod: str) -> dict[str, str]:
        return {name: of_fields.get(name, "given") if value is None else value for name, value in specs[pod].items()}

    for pod in ("Deployment/moorage-gateway", "Job/moorage-first-key"):
        ours = {name for name in given(pod) if name.startswith("MOORAGE_")}
        assert ours <= {f"MOORAGE_{field.upper()}" for field in gateway_settings.Settings.model_fields}
        gateway_settings.load(given(pod))
    operator = given("Deployment/moorage-operator")
    ours = {name for name in operator if name.startswith("MOORAGE_")}
    assert ours <= {f"MOORAGE_{field.upper()}" for field in operator_settings.Settings.model_fields}
    read = operator_settings.load(operator)
    gateways = rendered.one(found, "Deployment", "moorage-gateway")["spec"]["selector"]["matchLabels"]
    assert read.gateway_pods == gateways
    roles = {each["metadata"]["namespace"] for each in found if each["metadata"]["name"] == "moorage-operator-agents"}
    assert roles == {*read.namespaces}


def test_a_volume_outlives_the_release_only_where_that_is_asked_for(texts: dict[str, str]) -> None:
    def kept(name: str) -> tuple[bool, str]:
        found = rendered.objects(texts[name])
        claim = rendered.one(found, "PersistentVolumeClaim", "moorage-store")
        policy = rendered.one(found, "StatefulSet", "moorage-valkey")["spec"]["persistentVolumeClaimRetentionPolicy"]
        return "helm.sh/resource-policy" in claim["metadata"].get("annotations", {}), policy["whenDeleted"]

    assert kept("default") == (False, "Delete")
    assert kept("everything") == (True, "Retain")


def test_the_key_of_checkpoints_outlives_the_release_where_they_do(binary: Path) -> None:
    def kept(*settings: str | Path) -> bool:
        text = helm.template(binary, [*IMAGES, *settings]).stdout
        made = rendered.one(rendered.objects(text), "Secret", "moorage-token-key")
        return made["metadata"].get("annotations", {}).get("helm.sh/resource-policy") == "keep"

    assert not kept()
    assert kept(*HA) and kept("--set", "store.folder.keep=true") and kept("--set", "store.folder.existingClaim=mine")


@pytest.mark.parametrize("page", ["install", "operate", "models", "toolboxes", "routines", "checkpoints", "security"])
def test_values_that_a_page_names_are_the_charts(page: str) -> None:
    values = yaml.safe_load((helm.CHART / "values.yaml").read_text(encoding="utf-8"))
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    said = [*re.findall(r"`([^`\n]+)`", text), *re.findall(r"--set(?:-\w+)? '?(\S+)", text)]
    named = {path for each in said for path in re.findall(r"(?<![\w./-])[a-z][A-Za-z]+(?:\.[A-Za-z_]\w*)+", each)}
    assert [path for path in sorted(named) if path.split(".")[0] in values and not _is_value(values, path)] == []


NO_VALUES = frozenset({"toolboxes.yaml", "models.yaml", "workloadIdentity.token"})
"""Names of files, and a field of a ModelEndpoint."""


def _is_value(values: Any, path: str) -> bool:
    name, _, rest = path.partition(".")
    if path in NO_VALUES or not isinstance(values, dict) or values == {}:  # a mapping or a list of the reader's own
        return True
    return name in values and (not rest or _is_value(values[name], rest))


def test_the_notes_name_three_commands_on_objects_that_exist(binary: Path, texts: dict[str, str]) -> None:
    done = helm.run(binary, "install", "moorage", helm.CHART, "--dry-run=client", "--namespace", "platform", *IMAGES)
    assert done.returncode == 0, done.stderr
    notes = done.stdout.partition("NOTES:")[2]
    assert re.findall(r"^(\d)\. ", notes, re.MULTILINE) == ["1", "2", "3"]
    found = rendered.objects(texts["default"])
    assert rendered.one(found, "Secret", *re.findall(r"get secret (\S+)", notes))
    service = rendered.one(found, "Service", *re.findall(r"svc/(\S+)", notes))
    assert f"8080:{service['spec']['ports'][0]['port']} " in notes


def test_the_schema_describes_exactly_the_values_there_are() -> None:
    schema = json.loads((helm.CHART / "values.schema.json").read_text(encoding="utf-8"))
    values = yaml.safe_load((helm.CHART / "values.yaml").read_text(encoding="utf-8"))

    def compare(part: dict[str, Any], value: Any, path: str) -> list[str]:
        part = schema["$defs"]["resources"] if "$ref" in part else part
        if "properties" not in part or part is schema["$defs"]["resources"]:
            return []
        wrong = [f"{path}.{name}" for name in {*part["properties"]} ^ {*value}]
        return wrong + [w for name in value for w in compare(part["properties"][name], value[name], f"{path}.{name}")]

    assert [each for each in compare(schema, values, "") if each != ".global"] == []


def test_the_charts_version_is_the_projects() -> None:
    chart = yaml.safe_load((helm.CHART / "Chart.yaml").read_text(encoding="utf-8"))
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert (chart["version"], chart["appVersion"]) == (version, version)


def test_an_upgrade_keeps_the_secrets_that_an_installation_made(
    binary: Path, texts: dict[str, str], tmp_path: Path
) -> None:
    def secrets(text: str) -> dict[str, Any]:
        return {e["metadata"]["name"]: e["data"] for e in rendered.objects(text) if e["kind"] == "Secret"}

    with api.serving(rendered.objects(texts["default"]), tmp_path) as kubeconfig:
        options = ["--is-upgrade", "--dry-run=server", "--disable-openapi-validation", "--kubeconfig", kubeconfig]
        done = helm.template(binary, [*MATRIX["default"], *options])
    assert done.returncode == 0, done.stderr
    assert secrets(done.stdout) == secrets(texts["default"]) and len(secrets(done.stdout)) == 3
