"""The manifest of promises against the tests: no promise without its test or a reason, no test named that is not there."""

from __future__ import annotations

import ast
import functools
import re

import pytest

from requirements import GAPS, IDS, LATER, ROWS
from tree import ROOT

pytestmark = pytest.mark.packaging

TESTS = ROOT / "tests"


@functools.cache
def _functions(file: str) -> frozenset[str]:
    """Test functions of a file, in classes as well."""
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    return frozenset(
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    )


def test_every_id_has_exactly_one_place() -> None:
    places = [*ROWS, *GAPS, *LATER]
    assert sorted(places) == sorted(set(places)), "an id stands in two tables"
    assert set(places) == set(IDS)


@pytest.mark.parametrize("row", ROWS)
def test_a_promise_names_tests_that_are_there(row: str) -> None:
    assert ROWS[row].tests, "a promise without a test belongs into GAPS"
    for node in ROWS[row].tests:
        file, _, function = node.partition("::")
        assert (TESTS / file).is_file(), f"{row}: there is no tests/{file}"
        assert function in _functions(file), f"{row}: tests/{file} has no {function}"


def test_every_test_that_names_an_id_names_one_that_is_proved() -> None:
    named: dict[str, list[str]] = {}
    for path in TESTS.rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                for found in re.findall(r"\b[FTRS]\d{1,2}\b", ast.get_docstring(node) or ""):
                    named.setdefault(found, []).append(f"{path.relative_to(ROOT)}::{node.name}")
    assert {found: tests for found, tests in named.items() if found not in ROWS} == {}


@pytest.mark.parametrize("table", [GAPS, LATER], ids=["gaps", "later"])
def test_what_is_missing_says_why(table: dict[str, str]) -> None:
    assert [row for row, reason in table.items() if len(reason) < 8] == []


def test_every_threat_that_is_proved_is_on_the_security_page_with_tests_that_prove_it() -> None:
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    told = {row: rest.rpartition(" | ")[2] for row, rest in re.findall(r"^\| (T\d+) \|(.+) \|$", page, re.MULTILINE)}
    assert told.keys() == {row for row in ROWS if row.startswith("T")}
    for row, shown in told.items():
        links = re.findall(r"\(\.\./tests/([^)]+)\)", shown)
        assert links, f"{row} names no test"
        for link in links:
            assert any(node.startswith(link) for node in ROWS[row].tests), f"{row}: {link} is not what proves it"
