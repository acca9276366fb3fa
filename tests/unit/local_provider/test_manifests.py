"""Manifest files: found in a tree, read with bounds, refused naming file, document and field."""

from __future__ import annotations

from pathlib import Path

import pytest

from moorage_api.kinds import ManifestError
from moorage_local import manifests

pytestmark = pytest.mark.unit

HEAD = "apiVersion: moorage.dev/v1alpha1\nkind: HostedAgent\n"


def write(folder: Path, name: str, spec: str = "  source: {path: .}\n") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "agent.yaml"
    path.write_text(f"{HEAD}metadata: {{name: {name}}}\nspec:\n{spec}")
    return path


def test_every_manifest_below_the_folder_is_found_with_its_own_base(tmp_path: Path) -> None:
    write(tmp_path / "one", "one")
    write(tmp_path / "deep" / "two", "two")
    write(tmp_path / ".venv" / "three", "three")
    reading = manifests.read_folder(tmp_path)
    assert sorted(reading.agents) == ["one", "two"] and reading.errors == ()
    assert reading.agents["two"].base == tmp_path / "deep" / "two"


def test_a_broken_file_is_named_and_hides_no_other(tmp_path: Path) -> None:
    write(tmp_path / "good", "good")
    bad = write(tmp_path / "bad", "bad", "  source: {path: .}\n  idleTimeout: 5m\n")
    reading = manifests.read_folder(tmp_path)
    assert list(reading.agents) == ["good"]
    text = str(reading.errors[0])
    assert text.startswith(str(bad)) and "it belongs to spec.session.idleTimeout" in text


def test_a_second_document_is_named_by_number(tmp_path: Path) -> None:
    path = write(tmp_path, "one")
    path.write_text(path.read_text() + f"---\n{HEAD}metadata: {{name: two}}\nspec: {{source: {{path: .}}, turn: 3}}\n")
    with pytest.raises(ManifestError, match=r"agent\.yaml, document 2: spec\.turn"):
        manifests.read_file(path)


def test_one_name_in_two_files_is_refused(tmp_path: Path) -> None:
    first = write(tmp_path / "a", "same")
    write(tmp_path / "b", "same")
    reading = manifests.read_folder(tmp_path)
    assert reading.agents["same"].file == first and f"is also in {first}" in str(reading.errors[0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "is not YAML: line"),
        ("", "is empty"),
        ("!!python/object/apply:os.system [ls]", "is not YAML"),
        ("x: &a [1]\ny: [" + ", ".join(["*a"] * 200) + "]", "aliases"),
        ("---\n".join(["a: 1\n"] * 70), "documents"),
        ("kind: hosted\nname: x\n", "Foundry"),
        ("\0", "is not YAML"),
    ],
)
def test_a_hostile_or_foreign_file_is_refused_with_a_reason(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "agent.yaml").write_text(text)
    with pytest.raises(ManifestError, match=message):
        manifests.read_file(tmp_path / "agent.yaml")


def test_an_alias_bomb_does_not_grow(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 40)]
    (tmp_path / "agent.yaml").write_text("\n".join(lines))
    with pytest.raises(ManifestError, match="aliases"):
        manifests.read_file(tmp_path / "agent.yaml")


def test_a_manifest_of_the_api_is_kept_and_forgotten(tmp_path: Path) -> None:
    agent = manifests.read_file(write(tmp_path / "x", "kept", "  source: {bundle: '" + "a" * 64 + "'}\n"))[0]
    manifests.save(tmp_path / "state", "dev", agent)
    assert [(tenant, found.agent) for tenant, found in manifests.saved(tmp_path / "state")] == [("dev", agent)]
    assert manifests.forget(tmp_path / "state", "dev", "kept") and not manifests.forget(
        tmp_path / "state", "dev", "kept"
    )
    assert manifests.saved(tmp_path / "state") == []
