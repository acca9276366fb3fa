"""The rendered chart as open checkers see it: checkov finds nothing without an inline reason, kubernetes-validate nothing at all.

Beside the matrix lies one file with known flaws, so that a scanner that sees nothing is seen.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from chart import rendered, scanners
from chart.scanners import Check

pytestmark = [pytest.mark.packaging, pytest.mark.timeout(600)]

OLDEST, NEWEST = "1.30.0", "1.37.0"  # the oldest that the docs promise, the newest that there is
OTHERS = {"HTTPRoute": "gateway.networking.k8s.io/v1", "ServiceMonitor": "monitoring.coreos.com/v1"}
"""Kinds that a cluster gets from elsewhere: their schemas are not Kubernetes' own."""
FLAWED = "flawed"


@pytest.fixture(scope="module")
def interpreter() -> Path:
    try:
        return scanners.python()
    except scanners.NoScanners as why:
        pytest.skip(str(why))


@pytest.fixture(scope="module")
def folder(texts: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each row of the matrix as a file, and the flawed one."""
    made = tmp_path_factory.mktemp("rendered")
    for name, text in {**texts, FLAWED: _flawed(texts["default"])}.items():
        (made / f"{name}.yaml").write_text(text, encoding="utf-8")
    return made


@pytest.fixture(scope="module")
def checks(interpreter: Path, folder: Path) -> list[Check]:
    """All that checkov says of all files: one run, since its start costs more than its work."""
    return scanners.checkov(interpreter, folder)


def _flawed(text: str) -> str:
    """The operator's Deployment with one skip taken out, the reason of another too, and a field misspelt."""
    operator = rendered.one(rendered.objects(text), "Deployment", "moorage-operator")
    template = operator["spec"]["template"]
    for meta in (operator["metadata"], template["metadata"]):
        notes = meta["annotations"]
        assert [notes.pop("checkov.io/skip5").partition("=")[0], notes["checkov.io/skip1"].partition("=")[0]] == [
            "CKV_K8S_38", "CKV_K8S_11",
        ]  # fmt: skip
        notes["checkov.io/skip1"] = "CKV_K8S_11"
    operator["spec"]["replica"] = operator["spec"].pop("replicas")
    return yaml.safe_dump(operator)


def test_checkov_finds_nothing_that_is_not_answered_by_a_reason_on_the_object(checks: list[Check]) -> None:
    ours = [one for one in checks if one.file != f"{FLAWED}.yaml"]
    assert [one for one in ours if one.word == "failed"] == []
    skipped = [one for one in ours if one.word == "skipped"]
    assert skipped and [one for one in skipped if not one.reason] == []


def test_checkov_looks_at_every_pod_of_every_row(checks: list[Check], texts: dict[str, str]) -> None:
    for name, text in texts.items():
        seen = {one.object for one in checks if one.file == f"{name}.yaml"}
        found = rendered.objects(text)
        pods = {
            f"{each['kind']}.{each['metadata']['namespace']}.{each['metadata']['name']}"
            for each in found
            if f"{each['kind']}/{each['metadata']['name']}" in {owner for owner, _, _ in rendered.pods(found)}
        }
        assert len(pods) >= 4 and pods <= seen, name


def test_checkov_sees_a_flaw_and_a_skip_without_a_reason(checks: list[Check]) -> None:
    flawed = [one for one in checks if one.file == f"{FLAWED}.yaml"]
    assert {one.id for one in flawed if one.word == "failed"} == {"CKV_K8S_38"}
    assert {one.id for one in flawed if one.word == "skipped" and not one.reason} == {"CKV_K8S_11"}


def test_every_object_is_one_of_the_oldest_and_the_newest_kubernetes(
    interpreter: Path, folder: Path, texts: dict[str, str]
) -> None:
    files = [folder / f"{name}.yaml" for name in texts]
    complaints = scanners.validate(interpreter, files, [OLDEST, NEWEST])
    unknown = {
        f"WARN {folder}/everything.yaml Couldn't find schema for kind {kind} with api version {group} for kubernetes version {version}"
        for kind, group in OTHERS.items()
        for version in ("1.30", "1.37")
    }
    assert {*complaints} == unknown


def test_a_misspelt_field_is_seen(interpreter: Path, folder: Path) -> None:
    (complaint,) = scanners.validate(interpreter, [folder / f"{FLAWED}.yaml"], [NEWEST])
    assert complaint.startswith("ERROR ") and "'replica' was unexpected" in complaint
