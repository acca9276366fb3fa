"""The locks: every version with its hashes, no address of any index; and every declared dependency in the first."""

from __future__ import annotations

import json
import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tree import ROOT, texts

pytestmark = pytest.mark.packaging

LOCKS = {path.relative_to(ROOT).as_posix(): text for path, text in texts(".lock")}
PINNED = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)(?: ; .+?)? \\$")
HASH = re.compile(r"^    --hash=sha256:[0-9a-f]{64}( \\)?$")


def _pins(lock: str) -> dict[str, int]:
    """Name → number of hashes. Fails on a line that is neither a pin, a hash nor a remark."""
    found: dict[str, int] = {}
    name = ""
    for line in LOCKS[lock].splitlines():
        if pin := PINNED.match(line):
            name = canonicalize_name(pin[1])
            found.setdefault(name, 0)
        elif HASH.match(line):
            found[name] += 1
        else:
            assert re.match(r"\s*#", line), f"what is this line doing in the lock? {line}"
    return found


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pin_has_hashes_and_nothing_else_stands_in_the_lock(lock: str) -> None:
    pins = _pins(lock)
    assert pins and [name for name, hashes in pins.items() if not hashes] == []


@pytest.mark.parametrize("lock", LOCKS)
def test_the_lock_names_no_index(lock: str) -> None:
    said = LOCKS[lock].replace("--no-emit-index-url", "")
    assert re.search(r"://|--(extra-)?index|--find-links|--trusted-host", said) is None


def test_locks_of_npm_hold_hashes_and_no_address() -> None:
    locks = [text for path, text in texts(".json") if path.name == "package-lock.json"]
    assert locks
    for lock in locks:
        assert "://" not in lock, "not even whom to give money to: an address is one to be asked"
        packages = {name: each for name, each in json.loads(lock)["packages"].items() if name}
        assert (
            packages and [name for name, each in packages.items() if not each["integrity"].startswith("sha512-")] == []
        )


def test_every_declared_dependency_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    declared = [
        *project["project"]["dependencies"],
        *project["dependency-groups"]["dev"],
        *project["build-system"]["requires"],
    ]
    declared += [each for extra in project["project"]["optional-dependencies"].values() for each in extra]
    names = {canonicalize_name(Requirement(each).name) for each in declared} - {"moorage"}
    assert len(names) > 20 and names - set(_pins("requirements.lock")) == set()
