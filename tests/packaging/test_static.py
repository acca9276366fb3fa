"""bandit over the packages, hadolint over the Dockerfiles: all that they find is answered here by a reason. mypy, ruff: `scripts/check`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from tree import PACKAGES, ROOT, files

pytestmark = [pytest.mark.packaging, pytest.mark.timeout(300)]

BIN = Path(sys.executable).parent
WITHIN = 240.0
INSIDE = "a place inside a sandbox, where /tmp is its own"
ANSWERED = {
    ("gateway/moorage_gateway/app.py", "B104"): "compares; nothing is bound there",
    ("gateway/moorage_gateway/package_index.py", "B310"): "the URL of the index is the platform's own setting",
    ("local/moorage_local/enclosure.py", "B108"): INSIDE,
    ("local/moorage_local/programs.py", "B108"): INSIDE,
    ("local/moorage_local/staging.py", "B108"): "covered by a tmpfs that only this process and its children see",
    (
        "local/moorage_local/state.py",
        "B108",
    ): "a folder of a private mode is made there, for a socket whose path must be short",
    ("operator/moorage_operator/objects.py", "B108"): INSIDE,
    ("operator/moorage_operator/program_objects.py", "B104"): "answers on a pod's address, which its policy closes",
    ("operator/moorage_operator/program_objects.py", "B108"): INSIDE,
    ("operator/moorage_operator/settings.py", "B104"): "health answers on a pod's address, which its policy closes",
    ("sandbox-image/moorage_sandbox/launcher/dwelling.py", "B108"): INSIDE,
    ("sdk/moorage/serve/server.py", "B104"): "compares; nothing is bound there",
    ("sdk/moorage/serve/settings.py", "B104"): "an image's own server, which its platform must reach",
}
"""File and check → why what bandit sees there is none. One that it no longer sees is to be taken out."""


def bandit(*places: Path) -> Counter[tuple[str, str]]:
    """What it finds of middle and high severity: file and check."""
    command = [BIN / "bandit", "--quiet", "--recursive", "--severity-level", "medium", "--format", "json", *places]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WITHIN, cwd=ROOT, check=False)
    found = json.loads(done.stdout)
    assert not found["errors"] and found["metrics"]["_totals"]["loc"] > 0, done.stdout[-2000:] + done.stderr[-2000:]
    return Counter((one["filename"], one["test_id"]) for one in found["results"])


def hadolint(dockerfiles: Sequence[Path]) -> str:
    """What it says, a line each."""
    command = [BIN / "hadolint", "--no-color", *dockerfiles]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WITHIN, cwd=ROOT, check=False)
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


def test_bandit_finds_nothing_that_is_not_answered_by_a_reason() -> None:
    places = [(ROOT / folder / name).relative_to(ROOT) for name, folder in PACKAGES.items()]
    assert bandit(*places).keys() == ANSWERED.keys()


def test_bandit_sees_a_flaw(tmp_path: Path) -> None:
    (tmp_path / "flawed.py").write_text(
        "import subprocess\nsubprocess.run('ls ' + input(), shell=True)\n", encoding="utf-8"
    )
    assert [check for _, check in bandit(tmp_path)] == ["B602"]


def test_hadolint_finds_nothing_in_any_dockerfile() -> None:
    found = [path for path in files() if path.name == "Dockerfile"]
    assert len(found) >= 4
    assert hadolint(found) == ""


def test_hadolint_sees_a_flaw(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM debian:latest\nRUN cd /tmp\n", encoding="utf-8")
    assert "DL3007" in hadolint([tmp_path / "Dockerfile"])
