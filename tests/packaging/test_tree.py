"""What lies in the repository: generated files are fresh, and no file knows a registry or a machine."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tree import ROOT, texts

pytestmark = pytest.mark.packaging

# Modules are called so in go.mod and go.sum; it is their name, not where they are fetched from.
GO_NAMES = re.compile(r"\bgolang\.org/(?=x/|grpc\b|protobuf\b|genproto\b)")
# Spelled in halves, so that this file does not name them.
REGISTRIES = [
    f"{name}.{end}"
    for name, end in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("npmjs", "org"),
        ("yarnpkg", "com"),
        ("golang", "org"),
        ("crates", "io"),
        ("rubygems", "org"),
        ("ghcr", "io"),
        ("docker", "io"),
        ("docker", "com"),
        ("quay", "io"),
        ("gcr", "io"),
        ("anaconda", "org"),
        ("deb.debian", "org"),
        ("archive.ubuntu", "com"),
    )
]
# A folder of somebody's, as opposed to those of a sandbox (/home/agent, /workspace).
MACHINE = re.compile(r"/(?:ho" + r"me/(?!agent\b)[a-z]|Us" + r"ers/[A-Za-z]|ro" + r"ot/[a-z.]|wo" + r"rk/)")


def test_generated_files_are_what_the_code_makes() -> None:
    check = [sys.executable, "scripts/generate.py", "--check"]
    done = subprocess.run(check, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_no_file_names_a_package_registry() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {host}"
        for path, text in texts()
        for host in REGISTRIES
        if host in text and re.search(rf"\b{re.escape(host)}\b", GO_NAMES.sub("", text))
    ]
    assert found == []


def test_no_file_names_a_folder_of_some_machine() -> None:
    found = [f"{path.relative_to(ROOT)}: {hit[0]}" for path, text in texts() for hit in [MACHINE.search(text)] if hit]
    assert found == []


def test_every_door_can_be_opened() -> None:
    for name in ("dev", "test", "check", "generate", "bench", "cluster", "images"):
        door = ROOT / "scripts" / name
        assert door.stat().st_mode & 0o111, f"{door} is not executable"
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111
