"""What a revision runs on this machine: its code, its environment and how it is entered. Layer: local, frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from moorage_api.provider.base import Revision


@dataclass(frozen=True)
class Program:
    """`entry` is a file of `code` or `module:object`; `env` and `ca_file` come from the platform's package index settings."""

    code: Path
    python: Path
    entry: str
    mounts: tuple[tuple[Path, str], ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    ca_file: Path | None = None

    @staticmethod
    def of(revision: Revision) -> Program:
        """The program of a revision of this machine's. Raises TypeError for one of another kind."""
        if not isinstance(revision.program, Program):
            raise TypeError(f"{revision.key} was not made for this machine")
        return revision.program
