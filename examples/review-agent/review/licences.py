"""The licence of a package: what its metadata says, in one short line. What it does not say is unknown, never guessed."""

import email.message
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from packaging.requirements import InvalidRequirement, Requirement

from . import archives, dependencies, errors
from .budget import Budget
from .index import Index, ReleaseFile

LONGEST = 60
CLASSIFIER = "License :: "


class Licences(Protocol):
    """Where licences of dependencies are looked up. `of` returns None for an unknown one and never raises for it."""

    def of(self, name: str, rest: str, budget: Budget) -> str | None: ...

    def notes(self) -> list[str]: ...


class RecordedLicences:
    """A fixed table: the built-in sample and tests."""

    def __init__(self, table: Mapping[str, str]) -> None:
        self._table = table

    def of(self, name: str, rest: str, budget: Budget) -> str | None:
        """See `Licences`."""
        return self._table.get(name)

    def notes(self) -> list[str]:
        """A table has nothing to say about itself."""
        return []


class IndexLicences:
    """Asks the index for the newest release that the requirement allows; stops asking once the index does not answer."""

    def __init__(self, index: Index, scratch: Path) -> None:
        self._index = index
        self._scratch = scratch
        self._asked = 0
        self._left_out = 0
        self._unreachable: str | None = None

    def of(self, name: str, rest: str, budget: Budget) -> str | None:
        """See `Licences`."""
        if self._unreachable is not None or self._asked >= budget.limits.licence_lookups:
            self._left_out += 1
            return None
        self._asked += 1
        try:
            specifier = str(Requirement(f"{name}{rest.partition(' or ')[0]}").specifier)
        except InvalidRequirement:
            specifier = ""
        try:
            for file in self._index.newest(name, specifier, budget)[:1]:
                text = self._index.metadata(file, budget) or self._inside(file, budget)
                return of_metadata(dependencies.parse_metadata(text)) if text else None
        except errors.Unreachable as fault:
            self._unreachable = str(fault)
            self._left_out += 1
        except (errors.NotFound, errors.Hostile, errors.TooLarge):
            return None
        return None

    def notes(self) -> list[str]:
        """Why some licences are unknown, if the reason is not the package."""
        if not self._left_out:
            return []
        why = self._unreachable or "there are more changes than a review looks up"
        return [f"{self._left_out} licences were not looked up: {why}."]

    def _inside(self, file: ReleaseFile, budget: Budget) -> bytes | None:
        """The metadata out of the file itself, for an index that does not serve it separately."""
        folder = self._scratch / f"licence-{self._asked}"
        try:
            archive = self._index.download(file, folder, budget)
            unpacked = archives.unpack(archive, folder / "content", budget)
            return metadata_in(unpacked.root, file.is_wheel)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def metadata_in(root: Path, wheel: bool) -> bytes | None:
    """METADATA of an unpacked wheel or PKG-INFO of an unpacked sdist."""
    found = sorted(root.glob("*.dist-info/METADATA" if wheel else "*/PKG-INFO")) + sorted(root.glob("PKG-INFO"))
    return found[0].read_bytes() if found else None


def of_metadata(message: email.message.Message) -> str | None:
    """License-Expression, else a short License, else the classifiers, else the first line of a licence text."""
    expression = _line(message.get("License-Expression"))
    if expression:
        return expression
    text = str(message.get("License") or "").strip()
    if text and "\n" not in text and len(text) <= LONGEST and text.upper() != "UNKNOWN":
        return _line(text)
    classified = [str(c) for c in message.get_all("Classifier", []) if str(c).startswith(CLASSIFIER)]
    names = sorted({c.rpartition(" :: ")[2] for c in classified} - {"OSI Approved"})
    if names:
        return _line(", ".join(names))
    return _line(text.partition("\n")[0]) if text and text.upper() != "UNKNOWN" else None


def of_project_table(project: dict[str, Any]) -> str | None:
    """The `[project]` table of pyproject.toml: an expression, or the older `license.text`."""
    value = project.get("license")
    if isinstance(value, dict):
        value = value.get("text")
    return _line(value.strip().partition("\n")[0]) if isinstance(value, str) else None


def _line(value: object) -> str | None:
    text = " ".join(str(value or "").split())
    return (text if len(text) <= LONGEST else text[: LONGEST - 1] + "…") or None
