"""A small repository with planted findings, for machines from which the package index cannot be reached.

Two tagged versions of an invented package: a dependency dropped and one added, a parameter removed, a changed function that no test
mentions. Made with git where there is one, as two plain folders otherwise; the review of both is the same.
"""

from pathlib import Path

from . import errors, model, repositories
from .budget import Budget
from .licences import RecordedLicences
from .repositories import Git
from .snapshots import Pair

VERSIONS = ("v1.0.0", "v1.1.0")
TITLE = "the built-in sample repository v1.0.0..v1.1.0"
LICENCES = {"tomlkit": "MIT", "python-dateutil": "Apache-2.0, BSD-3-Clause"}

_PROJECT = """\
[project]
name = "quayside"
version = "{version}"
license = "Apache-2.0"
requires-python = ">=3.11"
dependencies = ["packaging>=24", "{dependency}"]
"""

_INIT = '''\
"""Berths for boats."""

from quayside._harbour import Harbour, nearest
from quayside.tides import height_at

__all__ = ["Harbour", "height_at", "nearest"]
'''

_HARBOUR_OLD = """\
class Harbour:
    def __init__(self, name: str, berths: int = 10, *, strict: bool = False) -> None:
        self.name = name
        self.berths = berths
        self.strict = strict

    def book(self, boat: str, length: float) -> str:
        return f"{boat} lies in {self.name}"


def nearest(harbours: list[Harbour], latitude: float, longitude: float) -> Harbour:
    return harbours[0]
"""

_HARBOUR_NEW = """\
class Harbour:
    def __init__(self, name: str, berths: int = 10) -> None:
        self.name = name
        self.berths = berths

    def book(self, boat: str, length: float) -> str:
        if length > 40:
            raise ValueError(f"{boat} is too long for {self.name}")
        return f"{boat} lies in {self.name}"


def nearest(harbours: list[Harbour], latitude: float, longitude: float) -> Harbour:
    return harbours[0]
"""

_TIDES = '''\
def height_at(hour: float) -> float:
    """Height of the tide in metres."""
    return {height}
'''

_TEST = """\
from quayside import Harbour, nearest


def test_a_boat_gets_a_berth():
    assert Harbour("North").book("Petrel", 9.5) == "Petrel lies in North"


def test_the_nearest_harbour_is_found():
    north = Harbour("North")
    assert nearest([north], 54.3, 10.1) is north
"""


def files(version: str) -> dict[str, str]:
    """Path → content of one version."""
    old = version == VERSIONS[0]
    dependency = "python-dateutil>=2.9" if old else "tomlkit>=0.13"
    return {
        "pyproject.toml": _PROJECT.format(version=version[1:], dependency=dependency),
        "src/quayside/__init__.py": _INIT,
        "src/quayside/_harbour.py": _HARBOUR_OLD if old else _HARBOUR_NEW,
        "src/quayside/tides.py": _TIDES.format(height="2.0" if old else "2.0 if hour < 6 else 0.5"),
        "tests/test_harbour.py": _TEST,
    }


def compare(git: Git | None, scratch: Path, budget: Budget, notice: str) -> Pair:
    """Make the sample and both its versions ready for review."""
    lookup = RecordedLicences(LICENCES)
    if git is not None and (repository := made(git, scratch / "sample", budget)) is not None:
        pair = repositories.compare(git, str(repository), VERSIONS, lookup, scratch, budget)
        return Pair(TITLE, pair.old, pair.new, lookup, notice)
    old, new = (
        repositories.of_folder(_folder(scratch / "sample-folders" / v, v), model.Side(v, "a folder")) for v in VERSIONS
    )
    return Pair(TITLE, old, new, lookup, notice)


def made(git: Git, folder: Path, budget: Budget) -> Path | None:
    """The sample as a repository; None if git does not do it: the folders then serve."""
    folder.mkdir(parents=True)
    fixed = {
        f"GIT_{who}_{what}": value
        for who in ("AUTHOR", "COMMITTER")
        for what, value in (("NAME", "Sample"), ("EMAIL", "sample@example.invalid"), ("DATE", "2026-01-01T00:00:00Z"))
    }
    commands: list[tuple[str, ...]] = [("init", "--quiet", ".")]
    for version in VERSIONS:
        commands += [("add", "--all"), ("commit", "--quiet", "-m", version), ("tag", version)]
    try:
        for command in commands:
            if command[0] == "add":
                written = VERSIONS[0] if not (folder / "pyproject.toml").exists() else VERSIONS[1]
                _folder(folder, written)
            outcome, _ = git("-C", str(folder), *command, budget=budget, limit=budget.limits.clone_bytes, extra=fixed)
            if outcome.code != 0:
                return None
    except OSError as fault:
        raise errors.Unreachable("The workspace", "the sample could not be written") from fault
    return folder


def _folder(folder: Path, version: str) -> Path:
    for name, content in files(version).items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)
    return folder
