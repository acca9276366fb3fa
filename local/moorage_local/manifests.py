"""Manifests on disk: the files `FILES` in the folder given to `moorage dev`, and agents deployed through the API.

Layer: local; reads files, knows YAML. What a document means is `moorage_api.kinds`' to know.

    ManifestError   names file, document and field (from `moorage_api.kinds`)
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from moorage_api.kinds import (
    HostedAgent,
    ManifestError,
    ModelEndpoint,
    Object,
    Problem,
    Routine,
    Toolbox,
    parse,
    parse_all,
    parse_any,
)
from moorage_local.state import write_atomically

FILES = ("agent.yaml", "models.yaml", "toolboxes.yaml", "routines.yaml")
"""A document of any kind may stand in each."""
_ROUTINES = "routines"
_LARGEST = 1 << 20
_DOCUMENTS = 64
_ALIASES = 100
_DEPTH = 6
_SKIPPED = {".git", ".venv", "venv", "node_modules", "__pycache__", "tests"}


@dataclass(frozen=True)
class Found:
    """One agent with the file it stands in; `base` is where `source.path` begins (None: deployed through the API)."""

    agent: HostedAgent
    file: Path
    base: Path | None


@dataclass(frozen=True)
class FoundEndpoint:
    """One model endpoint with the file it stands in."""

    endpoint: ModelEndpoint
    file: Path


@dataclass(frozen=True)
class FoundToolbox:
    """One toolbox with the file it stands in."""

    toolbox: Toolbox
    file: Path


@dataclass(frozen=True)
class FoundRoutine:
    """One routine with the file it stands in."""

    routine: Routine
    file: Path


@dataclass(frozen=True)
class Reading:
    """What a folder holds: agents, model endpoints, toolboxes and routines by name, and what is wrong with the rest."""

    agents: dict[str, Found]
    endpoints: dict[str, FoundEndpoint]
    toolboxes: dict[str, FoundToolbox]
    routines: dict[str, FoundRoutine]
    errors: tuple[ManifestError, ...]


def read_folder(folder: Path) -> Reading:
    """Every manifest in the folder and below, to a small depth. A broken file does not hide the others."""
    agents: dict[str, Found] = {}
    endpoints: dict[str, FoundEndpoint] = {}
    toolboxes: dict[str, FoundToolbox] = {}
    routines: dict[str, FoundRoutine] = {}
    held: dict[str, Mapping[str, Found | FoundEndpoint | FoundToolbox | FoundRoutine]] = {
        HostedAgent.__name__: agents,
        ModelEndpoint.__name__: endpoints,
        Toolbox.__name__: toolboxes,
        Routine.__name__: routines,
    }
    errors: list[ManifestError] = []
    for path in _files(folder):
        try:
            listed = read_file(path)
        except ManifestError as error:
            errors.append(error)
            continue
        for one in listed:
            other = held[one.kind].get(one.name)
            if other is not None:
                problem = Problem("metadata.name", f"{one.name!r} is also in {other.file}; names are unique")
                errors.append(ManifestError([problem], where=str(path)))
            elif isinstance(one, HostedAgent):
                agents[one.name] = Found(one, path, path.parent)
            elif isinstance(one, ModelEndpoint):
                endpoints[one.name] = FoundEndpoint(one, path)
            elif isinstance(one, Toolbox):
                toolboxes[one.name] = FoundToolbox(one, path)
            else:
                routines[one.name] = FoundRoutine(one, path)
    return Reading(agents, endpoints, toolboxes, routines, tuple(errors))


def read_file(path: Path) -> list[Object]:
    """The objects of one file. Raises ManifestError naming it."""
    try:
        if path.stat().st_size > _LARGEST:
            raise ManifestError([Problem("", f"is larger than {_LARGEST} bytes")], where=str(path))
        documents = load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError([Problem("", f"cannot be read: {error}")], where=str(path)) from error
    except yaml.YAMLError as error:
        raise ManifestError([Problem("", f"is not YAML: {_place(error)}")], where=str(path)) from error
    except ManifestError as error:
        raise error.at(str(path)) from None
    if not any(document is not None for document in documents):
        raise ManifestError([Problem("", "is empty")], where=str(path))
    try:
        return parse_all(documents)
    except ManifestError as error:
        where = f"{path}, {error.where}" if error.where else str(path)
        raise error.at(where) from None


def load(text: str) -> list[Any]:
    """The documents of a YAML text: plain data only, few aliases. Raises yaml.YAMLError, ManifestError."""
    if text.count("*") + text.count("&") > _ALIASES:
        tokens = yaml.scan(text, Loader=yaml.SafeLoader)
        if sum(1 for token in tokens if isinstance(token, yaml.AliasToken)) > _ALIASES:
            raise ManifestError([Problem("", f"uses more than {_ALIASES} YAML aliases")])
    documents = list(yaml.safe_load_all(text))
    if len(documents) > _DOCUMENTS:
        raise ManifestError([Problem("", f"holds more than {_DOCUMENTS} documents")])
    return documents


def save(folder: Path, tenant: str, one: HostedAgent | Routine) -> None:
    """Keeps a manifest that came through the API."""
    data = one.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
    whole = {"apiVersion": one.api_version, "kind": one.kind, **data}
    write_atomically(_path(folder, tenant, one.name, one.kind), json.dumps(whole, indent=2).encode())


def forget(folder: Path, tenant: str, name: str, kind: str = HostedAgent.__name__) -> bool:
    """Drops a manifest that came through the API; False when there is none."""
    try:
        _path(folder, tenant, name, kind).unlink()
    except FileNotFoundError:
        return False
    return True


def saved(folder: Path) -> list[tuple[str, Found]]:
    """(tenant, agent) of all that came through the API; an unreadable file is left out."""
    found = []
    for path in sorted(folder.glob("*/*.json")):
        try:
            found.append((path.parent.name, Found(parse(json.loads(path.read_bytes())), path, None)))
        except (OSError, ValueError):
            continue
    return found


def saved_routines(folder: Path, tenant: str) -> dict[str, Routine]:
    """The routines that came through the API, by name; an unreadable file is left out."""
    found = {}
    for path in sorted((folder / tenant / _ROUTINES).glob("*.json")):
        try:
            one = parse_any(json.loads(path.read_bytes()))
        except (OSError, ValueError):
            continue
        if isinstance(one, Routine):
            found[one.name] = one
    return found


def _path(folder: Path, tenant: str, name: str, kind: str) -> Path:
    inner = folder / tenant / _ROUTINES if kind == Routine.__name__ else folder / tenant
    return inner / f"{name}.json"


def _files(folder: Path) -> list[Path]:
    if folder.is_file():
        return [folder]
    found: list[Path] = []
    for current, folders, files in os.walk(folder):
        here = Path(current)
        deep = len(here.relative_to(folder).parts) >= _DEPTH
        folders[:] = [] if deep else sorted(f for f in folders if f not in _SKIPPED and not f.startswith("."))
        found += [here / name for name in FILES if name in files]
    return found


def _place(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark is not None else str(problem)
