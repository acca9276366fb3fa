"""What is shipped: one wheel with exactly the five packages, and entry points that lead somewhere."""

from __future__ import annotations

import email
import importlib
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from tree import PACKAGES, ROOT

pytestmark = pytest.mark.packaging

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built by the locked hatchling in this environment."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    made = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert made.returncode == 0, made.stderr
    (one,) = folder.glob("*.whl")
    return zipfile.ZipFile(one)


def test_the_wheel_holds_the_five_packages_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert tops == {*PACKAGES, f"moorage-{PROJECT['version']}.dist-info"}


def test_every_package_says_that_it_is_typed(wheel: zipfile.ZipFile) -> None:
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(wheel.namelist())


def test_every_file_of_the_packages_is_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    ours = set()
    for package, top in PACKAGES.items():
        found = (ROOT / top / package).rglob("*")
        ours |= {p.relative_to(ROOT / top).as_posix() for p in found if p.is_file() and "__pycache__" not in p.parts}
    assert {name for name in wheel.namelist() if ".dist-info/" not in name} == ours


def test_the_wheel_says_what_it_is_and_under_which_licence(wheel: zipfile.ZipFile) -> None:
    head = email.message_from_bytes(wheel.read(f"moorage-{PROJECT['version']}.dist-info/METADATA"))
    assert (head["Name"], head["Version"]) == ("moorage", PROJECT["version"])
    assert head["License-Expression"] == "Apache-2.0" and head["Requires-Python"] == PROJECT["requires-python"]
    assert set(head.get_all("Provides-Extra", [])) == set(PROJECT["optional-dependencies"])
    assert "# Moorage" in str(head.get_payload())


def test_the_changelog_has_a_section_for_this_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    heads = [line.split()[1] for line in changelog.splitlines() if line.startswith("## ")]
    assert PROJECT["version"] in heads


def test_every_entry_point_leads_to_something_that_can_be_called() -> None:
    entries = [(name, target) for name, target in PROJECT["scripts"].items()]
    entries += [pair for group in PROJECT["entry-points"].values() for pair in group.items()]
    for name, target in entries:
        module, _, attribute = target.partition(":")
        assert callable(getattr(importlib.import_module(module), attribute)), name
    installed = {entry.value for entry in metadata.distribution("moorage").entry_points}
    assert installed == {target for _, target in entries}, "install the project again: its entry points changed"


def test_no_folder_of_ours_shadows_the_standard_library() -> None:
    roots = [
        *PACKAGES.values(),
        "tests",
        *(p.relative_to(ROOT).as_posix() for p in Path(ROOT / "tests").rglob("*") if p.is_dir()),
    ]
    assert [root for root in roots if (ROOT / root / "__init__.py").exists()] == []
