"""Each component with only its own extra installed: what it does not declare, it cannot import. And what an import costs.

A fresh interpreter gets an import hook that hides every installed distribution but those that the extra brings along, by the
metadata of what is installed (which the lock names); then every module of the component is imported.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tree import PACKAGES, ROOT, modules

pytestmark = pytest.mark.packaging

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LAUNCHER = ROOT / "sandbox-image" / "moorage_sandbox" / "launcher"

HIDING = """
import importlib, importlib.abc, importlib.util, json, sys
task = json.loads(sys.stdin.read())

class Hiding(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in task["hidden"]:
            raise ModuleNotFoundError(f"No module named {name!r} (not declared)", name=name)

sys.meta_path.insert(0, Hiding())
found = importlib.util.find_spec
# Who asks politely is told that it is not there.
importlib.util.find_spec = lambda name, *more: None if name.partition(".")[0] in task["hidden"] else found(name, *more)
failed = {}
for module in task["modules"]:
    try:
        importlib.import_module(module)
    except BaseException as fault:
        failed[module] = f"{type(fault).__name__}: {fault}"
print(json.dumps({"failed": failed, "loaded": sorted({name.partition(".")[0] for name in sys.modules}), "all": sorted(sys.modules)}))
"""


def _closure(extra: str | None) -> set[str]:
    """Canonical names of the distributions that `pip install moorage[extra]` brings, by the metadata of what is installed here."""
    seen: set[tuple[str, str]] = set()
    todo = [("moorage", ""), *([("moorage", extra)] if extra else [])]
    while todo:
        name, wanted = todo.pop()
        if (name, wanted) in seen:
            continue
        seen.add((name, wanted))
        for text in metadata.distribution(name).requires or []:
            need = Requirement(text)
            if need.marker is None or need.marker.evaluate({"extra": wanted}):
                inner = canonicalize_name(need.name)
                todo += [(inner, ""), *((inner, each) for each in need.extras)]
    return {name for name, _ in seen}


def _hidden(extra: str | None, component: str) -> list[str]:
    """Top-level modules that must not be seen: of undeclared distributions, and our other components."""
    allowed = _closure(extra)
    hidden = {
        top
        for top, owners in metadata.packages_distributions().items()
        if not any(canonicalize_name(owner) in allowed for owner in owners)
    }
    others = set() if component == "moorage_local" else set(PACKAGES) - {component, "moorage_api"}
    return sorted((hidden | others) - set(sys.stdlib_module_names))


def _import(names: list[str], hidden: list[str]) -> dict[str, list[str] | dict[str, str]]:
    task = json.dumps({"modules": names, "hidden": hidden})
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", HIDING],
        input=task,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str] | dict[str, str]] = json.loads(done.stdout.splitlines()[-1])
    return found


def _sdk(of_cli: bool) -> list[str]:
    return [name for name in modules("moorage") if (name.startswith("moorage.cli")) is of_cli]


@pytest.mark.parametrize(
    ("extra", "component", "names"),
    [
        pytest.param(None, "moorage_api", modules("moorage_api"), id="api"),
        pytest.param(None, "moorage", _sdk(of_cli=False), id="sdk"),
        pytest.param("cli", "moorage", _sdk(of_cli=True), id="cli"),
        pytest.param("gateway", "moorage_gateway", modules("moorage_gateway"), id="gateway"),
        pytest.param("sandbox", "moorage_sandbox", modules("moorage_sandbox"), id="sandbox"),
        pytest.param("operator", "moorage_operator", modules("moorage_operator"), id="operator"),
        pytest.param("local", "moorage_local", modules("moorage_local"), id="local"),
    ],
)
def test_a_component_needs_nothing_but_its_extra(extra: str | None, component: str, names: list[str]) -> None:
    assert _import(names, _hidden(extra, component))["failed"] == {}


def test_the_hook_hides_what_is_not_declared() -> None:
    hidden = _hidden(None, "moorage")
    assert {"fastapi", "redis", "minio", "typer", "pytest", "openai", "yaml"} <= set(hidden)
    assert set(_import(["redis", "moorage_gateway"], hidden)["failed"]) == {"redis", "moorage_gateway"}


def test_the_floor_needs_the_standard_library_and_pydantic_alone() -> None:
    loaded = set(_import(modules("moorage_api"), [])["loaded"])
    owners = metadata.packages_distributions()  # reads what every installed package says of itself: once
    # An environment with setuptools loads its hook at every start.
    foreign = {canonicalize_name(owner) for top in loaded for owner in owners.get(top, [])} - {"moorage", "setuptools"}
    assert foreign <= _needs("pydantic"), foreign


def _needs(name: str) -> set[str]:
    found = {name}
    for text in metadata.distribution(name).requires or []:
        need = Requirement(text)
        if need.marker is None or need.marker.evaluate({"extra": ""}):
            found |= _needs(canonicalize_name(need.name))
    return found


HEAVY = re.compile(
    r"(httpx2?|kubernetes|kopf|mcp|openai|pydantic|fastapi|starlette|redis|minio|aiohttp|typer|rich|yaml|opentelemetry\.sdk"
    r"|opentelemetry\.exporter|moorage_gateway|moorage_sandbox|moorage_local)(\.|$)"
)


def test_importing_the_sdk_loads_no_client_and_no_framework() -> None:
    loaded = _import(["moorage"], [])["all"]
    assert [name for name in loaded if HEAVY.match(name)] == []


def test_what_an_agent_process_imports_is_its_server_alone() -> None:
    loaded = _import(["moorage", "moorage.serve.server", "moorage.serve.app"], [])["all"]
    assert [name for name in loaded if HEAVY.match(name)] == []


def test_the_command_line_starts_without_any_client() -> None:
    loaded = _import(["moorage.cli.main"], [])["all"]
    assert [
        name
        for name in loaded
        if re.match(r"(httpx2?|pydantic|kubernetes|mcp|opentelemetry|moorage_gateway|moorage_local)(\.|$)", name)
    ] == []


@pytest.mark.parametrize("path", sorted(LAUNCHER.rglob("*.py")), ids=lambda path: str(path.name))
def test_the_launcher_imports_the_standard_library_alone(path: Path) -> None:
    tops = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            tops |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            tops.add(str(node.module).partition(".")[0])
    assert tops - set(sys.stdlib_module_names) - {"launcher"} == set()
