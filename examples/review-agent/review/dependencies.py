"""Which packages a version needs, read from its metadata, and what changed between two versions."""

import ast
import configparser
import email.message
import email.parser
import email.policy
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement

from . import functions, licences, model
from .budget import Budget

EXTRA = re.compile(r"""\bextra\s*==\s*['"]([^'"]+)['"]""")
LONGEST = 200
Key = tuple[str, str | None]


@dataclass(frozen=True)
class Declared:
    """`needs`: (name, extra) → the requirement without its name. `licence` is the project's own."""

    source: str
    needs: Mapping[Key, str]
    licence: str | None = None
    notes: tuple[str, ...] = ()


def from_metadata(text: bytes, source: str) -> Declared:
    """From a PKG-INFO or METADATA file."""
    message = parse_metadata(text)
    lines = [str(v) for v in message.get_all("Requires-Dist", [])]
    return _declared(source, [(line, None) for line in lines], licences.of_metadata(message))


def is_reliable(text: bytes) -> bool:
    """Whether an sdist's PKG-INFO is bound to agree with its wheels (metadata 2.2 and `Requires-Dist` not dynamic)."""
    message = parse_metadata(text)
    try:
        version = tuple(int(n) for n in str(message.get("Metadata-Version", "1.0")).split("."))
    except ValueError:
        return False
    dynamic = {str(v).strip().lower() for v in message.get_all("Dynamic", [])}
    return version >= (2, 2) and "requires-dist" not in dynamic


def parse_metadata(text: bytes) -> email.message.Message:
    """Core metadata has the form of mail headers."""
    return email.parser.BytesParser(policy=email.policy.compat32).parsebytes(text)


def from_tree(root: Path) -> Declared:
    """From the files of a source tree, the first that says something. Nothing is executed: dynamic lists stay unknown."""
    for read in (_from_pyproject, _from_setup_cfg, _from_setup_py, _from_requirements):
        found = read(root)
        if found is not None:
            return found
    return Declared(
        "no metadata", {}, notes=("No file of the tree declares dependencies that can be read without running it.",)
    )


def compare(old: Declared, new: Declared, lookup: "licences.Licences", budget: Budget) -> model.Dependencies:
    """Added, changed and dropped requirements; a licence is looked up for the added and the changed ones."""
    changes = []
    for name, extra in sorted({*old.needs, *new.needs}, key=lambda k: (k[1] or "", k[0])):
        before, after = old.needs.get((name, extra)), new.needs.get((name, extra))
        if before == after:
            continue
        licence = lookup.of(name, after, budget) if after is not None else None
        changes.append(model.DependencyChange(name, before, after, extra, licence))
    notes = [*dict.fromkeys((*old.notes, *new.notes))]
    if old.licence and new.licence and old.licence != new.licence:
        notes.append(f"The licence of the project itself changed: {old.licence} → {new.licence}.")
    notes.extend(lookup.notes())
    source = new.source if old.source == new.source else f"{old.source} and {new.source}"
    unchanged = sum(old.needs.get(key) == value for key, value in new.needs.items())
    return model.Dependencies(source, tuple(changes), unchanged, tuple(notes))


def _declared(
    source: str, lines: Iterable[tuple[str, str | None]], licence: str | None = None, notes: tuple[str, ...] = ()
) -> Declared:
    """`lines` are requirements with the extra they belong to, where the marker does not say it."""
    needs: dict[Key, set[str]] = {}
    unclear = 0
    for line, group in lines:
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            unclear += 1
            continue
        marker = str(requirement.marker) if requirement.marker else ""
        extras = [group] if group else (EXTRA.findall(marker) or [None])
        for extra in extras:
            key = (re.sub(r"[-_.]+", "-", requirement.name).lower(), extra)
            needs.setdefault(key, set()).add(_rest(requirement, marker))
    if unclear:
        notes = (*notes, f"{unclear} lines of {source} are no valid requirements and are left out.")
    return Declared(source, {key: " or ".join(sorted(texts)) for key, texts in needs.items()}, licence, notes)


def _rest(requirement: Requirement, marker: str) -> str:
    """A requirement without its name and without the condition that says which extra it is for."""
    extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
    place = f" @ {requirement.url}" if requirement.url else ""
    clauses = [c for c in re.split(r"\s+and\s+", marker) if c and not EXTRA.search(c)]
    condition = f"; {' and '.join(clauses)}" if clauses else ""
    return (extras + str(requirement.specifier) + place + condition)[:LONGEST]


def _from_pyproject(root: Path) -> Declared | None:
    data = _toml(root / "pyproject.toml")
    project = data.get("project")
    if isinstance(project, dict):
        dynamic = project.get("dynamic", [])
        licence = licences.of_project_table(project)
        if "dependencies" in dynamic:
            inner = _from_setup_cfg(root) or _from_setup_py(root) or _from_requirements(root)
            note = "`pyproject.toml` computes its dependencies at build time; they were read from " + (
                inner.source + "." if inner else "nowhere."
            )
            return Declared(
                inner.source if inner else "`pyproject.toml`", inner.needs if inner else {}, licence, (note,)
            )
        lines = [(str(line), None) for line in _list(project.get("dependencies"))]
        extras = project.get("optional-dependencies")
        for extra, members in extras.items() if isinstance(extras, dict) else ():
            lines.extend((str(line), str(extra)) for line in _list(members))  # type: ignore[misc]
        return _declared("`pyproject.toml`", lines, licence)
    poetry = data.get("tool", {}).get("poetry") if isinstance(data.get("tool"), dict) else None
    return _from_poetry(poetry) if isinstance(poetry, dict) else None


def _from_poetry(poetry: dict[str, Any]) -> Declared:
    """Poetry's own constraint language is kept as it is written: it is compared, not interpreted."""
    needs: dict[Key, str] = {}
    table = poetry.get("dependencies")
    for name, value in table.items() if isinstance(table, dict) else ():
        if name.lower() == "python":
            continue
        text = value if isinstance(value, str) else value.get("version", "") if isinstance(value, dict) else ""
        optional = "optional" if isinstance(value, dict) and value.get("optional") else None
        needs[(re.sub(r"[-_.]+", "-", str(name)).lower(), optional)] = str(text)[:LONGEST]
    licence = poetry.get("license")
    return Declared("`pyproject.toml`", needs, licence if isinstance(licence, str) else None)


def _from_setup_cfg(root: Path) -> Declared | None:
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read_string((root / "setup.cfg").read_text("utf-8", "replace"))
    except (OSError, configparser.Error):
        return None
    lines: list[tuple[str, str | None]] = []
    if parser.has_option("options", "install_requires"):
        lines.extend((line, None) for line in _lines(parser.get("options", "install_requires")))
    if parser.has_section("options.extras_require"):
        for extra, text in parser.items("options.extras_require"):
            lines.extend((line, extra) for line in _lines(text))
    return _declared("`setup.cfg`", lines) if lines else None


def _from_setup_py(root: Path) -> Declared | None:
    """Only lists written out in the call of `setup` itself."""
    path = root / "setup.py"
    tree = functions.parse(path) if path.is_file() else None
    lines: list[tuple[str, str | None]] = []
    for node in ast.walk(tree) if tree else ():
        if not (isinstance(node, ast.keyword) and node.arg in ("install_requires", "extras_require")):
            continue
        try:
            value = ast.literal_eval(node.value)
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            note = f"`setup.py` computes `{node.arg}`; it cannot be known without running it."
            return Declared("`setup.py`", {}, notes=(note,))
        if isinstance(value, dict):
            lines.extend((str(line), str(extra)) for extra, members in value.items() for line in _list(members))
        else:
            lines.extend((str(line), None) for line in _list(value))
    return _declared("`setup.py`", lines) if lines else None


def _from_requirements(root: Path) -> Declared | None:
    try:
        text = (root / "requirements.txt").read_text("utf-8", "replace")
    except OSError:
        return None
    lines = [line.partition(" --hash")[0].rstrip(" \\") for line in _lines(text) if not line.startswith("-")]
    return _declared("`requirements.txt`", [(line.partition(" #")[0], None) for line in lines])


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else []
