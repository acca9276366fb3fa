"""What a folder of source says of its program: the entry, the contract, the requirements. Layer: the floor; stdlib only.

One machine and a cluster's builds ask the same questions of the same folder, and get the same answers.

    SourceError   the source is missing, refused or incomplete; the message says which field and what to do
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from moorage_api.kinds.source import ENTRYPOINTS

Contract = Literal["moorage", "foundry", "agentcore"]

# What is looked for in a source that names no requirements, in this order.
FOUND = ("uv.lock", "pylock.toml", "requirements.lock", "requirements.txt", "pyproject.toml")

_IMPORTS: tuple[tuple[Contract, re.Pattern[str]], ...] = (
    ("moorage", re.compile(r"^\s*(from|import)\s+moorage\b", re.MULTILINE)),
    (
        "foundry",
        re.compile(
            r"^\s*(from|import)\s+(azure\.ai\.agentserver|agent_framework(_foundry_hosting|\.foundry))\b", re.MULTILINE
        ),
    ),
    ("agentcore", re.compile(r"^\s*(from|import)\s+bedrock_agentcore\b", re.MULTILINE)),
)


class SourceError(RuntimeError):
    """The source of an agent is missing, refused or incomplete."""


@dataclass(frozen=True)
class Requirements:
    """The file that says what a program needs. `locked`: uv's own lock, which is exported before it is installed."""

    named: str
    locked: bool = False

    @property
    def arguments(self) -> tuple[str, ...]:
        """What `uv pip install` is told."""
        return () if self.locked else ("-r", self.named)


def entrypoint(tree: Path, named: str | None) -> str:
    """The program: as the manifest names it, else the first of the usual names that is there. Raises SourceError."""
    if named is not None:
        if ":" not in named and not (tree / named).is_file():
            raise SourceError(f"spec.source.entrypoint: there is no file {named} in the source")
        return named
    for name in ENTRYPOINTS:
        if (tree / name).is_file():
            return name
    raise SourceError(f"the source has none of {', '.join(ENTRYPOINTS)}; name the program in spec.source.entrypoint")


def contract(tree: Path, entry: str, wanted: Contract | Literal["auto"]) -> Contract:
    """How the program is spoken to: as the manifest says, else by what the program imports; `moorage` when nothing tells."""
    if wanted != "auto":
        return wanted
    file = tree / (entry.partition(":")[0].replace(".", "/") + ".py" if ":" in entry else entry)
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "moorage"
    return next((name for name, pattern in _IMPORTS if pattern.search(text)), "moorage")


def requirements(tree: Path, named: str | None) -> Requirements | None:
    """The file of requirements: as the manifest names it, else the first of `FOUND`; None when there is none. Raises SourceError."""
    if named is not None:
        if not (tree / named).is_file():
            raise SourceError(f"spec.source.requirements: there is no file {named} in the source")
        return _of_file(named)
    for name in FOUND:
        if (tree / name).is_file() and (name != "uv.lock" or (tree / "pyproject.toml").is_file()):
            return _of_file(name)
    return None


def _of_file(name: str) -> Requirements:
    return Requirements(name, locked=Path(name).name == "uv.lock")
