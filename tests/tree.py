"""The repository as the packaging tests look at it: which files are ours, and what the packages are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {
    "moorage_api": "crds",
    "moorage_gateway": "gateway",
    "moorage_sandbox": "sandbox-image",
    "moorage": "sdk",
    "moorage_local": "local",
    "moorage_operator": "operator",
}
KEPT_HIDDEN = {".ci", ".gitignore", ".github"}
MADE = {"__pycache__", "dist", "build", "node_modules"}  # folders that tools make, none of them ours


def files() -> Iterator[Path]:
    """Every file of ours. Read from the folder and not from git, so that a tree without its history is checked as well."""
    for folder, inner, names in os.walk(ROOT):
        inner[:] = sorted(n for n in inner if n not in MADE and not n.endswith(".egg-info") and _ours(n))
        if Path(folder).parent.name == "examples":
            inner[:] = [name for name in inner if name != "workspace"]
        for name in sorted(names):
            if _ours(name) and not name.endswith((".pyc", ".so")):
                yield Path(folder) / name


def texts(*suffixes: str) -> Iterator[tuple[Path, str]]:
    """Our text files (of these suffixes, or all), with what is in them."""
    for path in files():
        if suffixes and path.suffix not in suffixes:
            continue
        try:
            yield path, path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue


def modules(package: str) -> list[str]:
    """Dotted names of every module of a package, programs (`__main__`) left out: importing one may run it."""
    top = ROOT / PACKAGES[package]
    found = []
    for path in sorted((top / package).rglob("*.py")):
        parts = path.relative_to(top).with_suffix("").parts
        if "__main__" not in parts:
            found.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return found


def _ours(name: str) -> bool:
    return not name.startswith(".") or name in KEPT_HIDDEN
