"""`scripts/test` gives each tier only the files that name its marks: so each mark stands in its own file, and each test has a tier's."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import run
from tree import ROOT

pytestmark = pytest.mark.packaging

TESTS = ROOT / "tests"
TIERS = {name for tier in (*run.TIERS, run.CLUSTER) for name in run.marks(tier.expression)}
GROUPS = TIERS | {"sweep", "index", "routines", "each_change", "long"}
MARK = re.compile(rf"\bmark\.(?:{'|'.join(sorted(GROUPS))})\b|add_marker|pytest_collection_modifyitems")


def _of_module(path: Path) -> set[str]:
    """The marks in the `pytestmark` of a file: those that each of its tests has."""
    found: set[str] = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and any(
            isinstance(to, ast.Name) and to.id == "pytestmark" for to in node.targets
        ):
            found |= {each.attr for each in ast.walk(node.value) if isinstance(each, ast.Attribute)}
    return found


def test_every_test_file_is_of_a_tier() -> None:
    assert [str(path) for path in TESTS.rglob("test_*.py") if not _of_module(path) & TIERS] == []


def test_marks_are_put_in_the_files_of_their_tests_alone() -> None:
    others = [path for path in TESTS.rglob("*.py") if not path.name.startswith("test_")]
    assert [str(path) for path in others if MARK.search(path.read_text("utf-8"))] == []
    assert all(
        re.search(rf'^ +"{name}: ', (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE) for name in GROUPS
    )


@pytest.mark.parametrize(
    ("expression", "marks"),
    [
        ("unit and not long", ["unit"]),
        ("cluster and each_change and not long", ["cluster", "each_change"]),
        ("index", ["index"]),
        ("crash or sim", []),
        ("not (crash or sim)", []),
    ],
)
def test_an_expression_is_given_every_file_that_may_have_its_tests(expression: str, marks: list[str]) -> None:
    given = run.files(expression)
    assert run.marks(expression) == marks and given
    for path in TESTS.rglob("test_*.py"):
        text = path.read_text("utf-8")
        assert (str(path.relative_to(ROOT)) in given) == all(f"mark.{mark}" in text for mark in marks), path


def test_who_names_tests_is_given_no_others() -> None:
    assert run.named(["--", "tests/unit"]) and run.named(["-x", "tests/packaging/test_tiers.py::test_x"])
    assert not run.named(["-x", "-k", "valkey", "--durations=20"])


@pytest.mark.parametrize("tier", run.TIERS, ids=lambda tier: tier.name)
def test_what_a_tier_begins_with_is_there_and_nothing_is_lost(tier: run.Tier) -> None:
    paths = run.files(tier.expression)
    given = run.in_order(paths, tier.first)
    assert sorted(given) == sorted(paths)
    assert [Path(path).stem for path in given[: len(tier.first)]] == [f"test_{name}" for name in tier.first]


@pytest.mark.parametrize("name", ["test_installed", "test_faults", "test_call_sweep"])
def test_ci_runs_of_the_cluster_what_can_break_at_each_change(name: str) -> None:
    """In its docs by that word: what is installed, what can die under a call, and twenty points of the crash sweep."""
    assert f"tests/cluster/{name}.py" in run.files(run.EACH_CHANGE.expression)
