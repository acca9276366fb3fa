"""From plain data (a parsed YAML or JSON document) to an object of a kind, and from what is wrong to words a person can act
on.

Layer: the floor; pure. Called by the file reader of `moorage dev`, by `moorage up` and by the gateway's deploy route.
Every problem names its field by the path in the document (`spec.session.idleTimeout`), and a misspelt field gets the
nearest real one.

    ManifestError   what is wrong with one document: one `Problem` a field
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from moorage_api.kinds import secret_shapes
from moorage_api.kinds.agent import API_VERSION, KIND, HostedAgent
from moorage_api.kinds.model_endpoint import ModelEndpoint
from moorage_api.kinds.routine import Routine
from moorage_api.kinds.toolbox import Toolbox

MAX_PROBLEMS = 20

Object: TypeAlias = HostedAgent | ModelEndpoint | Toolbox | Routine
KINDS: dict[str, type[HostedAgent] | type[ModelEndpoint] | type[Toolbox] | type[Routine]] = {
    kind.__name__: kind for kind in (HostedAgent, ModelEndpoint, Toolbox, Routine)
}
"""Every kind a manifest may be of, by its name: a new one is one file beside this and one line here."""

T = TypeVar("T", HostedAgent, ModelEndpoint, Toolbox, Routine)


@dataclass(frozen=True)
class Problem:
    """One thing wrong: `field` is its path (empty: the document as a whole)."""

    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


class ManifestError(ValueError):
    """A document that is not valid.

    `problems` is never empty; `where` names file and document if known.
    """

    def __init__(self, problems: Sequence[Problem], *, where: str = "") -> None:
        self.problems = tuple(problems)
        self.where = where
        text = "; ".join(str(problem) for problem in self.problems)
        super().__init__(f"{where}: {text}" if where else text)

    @property
    def field(self) -> str | None:
        """The path of the first wrong field, or None."""
        return next((problem.field for problem in self.problems if problem.field), None)

    def at(self, where: str) -> ManifestError:
        """The same error, naming file and document."""
        return ManifestError(self.problems, where=where)


def parse(document: Any) -> HostedAgent:
    """The agent of one document; raises ManifestError naming every wrong field."""
    _checked(document, (KIND,))
    return _validated(document, HostedAgent)


def parse_any(document: Any) -> Object:
    """The object of one document, of whatever kind; raises ManifestError naming every wrong field."""
    kind = _checked(document, tuple(KINDS))
    if kind == ModelEndpoint.__name__:
        return _validated(document, ModelEndpoint)
    if kind == Toolbox.__name__:
        return _validated(document, Toolbox)
    if kind == Routine.__name__:
        return _validated(document, Routine)
    return _validated(document, HostedAgent)


def parse_all(documents: Sequence[Any]) -> list[Object]:
    """The objects of a file of several documents; empty documents are skipped.

    An error names the document by number if there are several.
    """
    found: list[Object] = []
    for number, document in enumerate(documents, start=1):
        if document is None:
            continue
        try:
            found.append(parse_any(document))
        except ManifestError as error:
            raise (error.at(f"document {number}") if len(documents) > 1 else error) from None
    _distinct(found)
    return found


def warnings_of(agent: HostedAgent) -> list[str]:
    """What is allowed but worth a word: variables that look like secrets."""
    found = []
    for index, variable in enumerate(agent.spec.env):
        why = secret_shapes.suspicion(variable.name, variable.value)
        if why is not None:
            found.append(f"spec.env[{index}] ({variable.name}): {why}; {secret_shapes.WHERE_INSTEAD}")
    return found


def notes_outside_kubernetes(agent: HostedAgent) -> list[str]:
    """Fields that only Kubernetes heeds and that this manifest sets."""
    spec = agent.spec
    given = {
        "runtimeClassName": spec.runtime_class_name,
        "nodeSelector": spec.node_selector,
        "tolerations": spec.tolerations,
        "imagePullSecrets": spec.image_pull_secrets,
        "priorityClassName": spec.priority_class_name,
        "workspace.storageClassName": spec.workspace.storage_class_name,
    }
    return [f"spec.{name} has no effect outside Kubernetes" for name, value in given.items() if value]


def _distinct(objects: Sequence[Object]) -> None:
    seen: set[tuple[str, str]] = set()
    for one in objects:
        if (one.kind, one.name) in seen:
            raise ManifestError([Problem("metadata.name", f"{one.name!r} is used by two documents")])
        seen.add((one.kind, one.name))


def _validated(document: Any, model: type[T]) -> T:
    try:
        return model.model_validate(document, by_alias=True, by_name=False)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=True)
        raise ManifestError([_problem(dict(detail), model) for detail in details[:MAX_PROBLEMS]]) from None


def _checked(document: Any, kinds: Sequence[str]) -> str:
    """The kind of a document, one of these. Raises ManifestError."""
    if not isinstance(document, dict):
        raise ManifestError([Problem("", "a manifest is a mapping with apiVersion, kind, metadata and spec")])
    _recognise(document, kinds)
    return str(document["kind"])


def _recognise(document: dict[str, Any], kinds: Sequence[str]) -> None:
    kind = document.get("kind")
    template = document.get("template")
    if kind == "hosted" or (isinstance(template, dict) and template.get("kind") == "hosted"):
        raise ManifestError(
            [
                Problem(
                    "kind",
                    "this is a Foundry agent file (kind: hosted), not a Moorage manifest; keep it, and put a manifest "
                    f"beside it: apiVersion: {API_VERSION}, kind: {KIND}, metadata.name, spec.source.path: . and "
                    "spec.contract: foundry",
                )
            ]
        )
    problems = []
    if document.get("apiVersion") != API_VERSION:
        problems.append(Problem("apiVersion", f"must be {API_VERSION} (found: {_shown(document.get('apiVersion'))})"))
    if not isinstance(kind, str) or kind not in kinds:
        problems.append(Problem("kind", f"must be {' or '.join(kinds)} (found: {_shown(kind)})"))
    if problems:
        raise ManifestError(problems)


def _problem(detail: dict[str, Any], model: type[BaseModel]) -> Problem:
    location: tuple[int | str, ...] = detail["loc"]
    field = _path(location)
    match detail["type"]:
        case "extra_forbidden":
            return Problem(field, _unknown(location, model))
        case "missing":
            return Problem(field, "is required")
        case "value_error":
            return Problem(field, str(detail["ctx"]["error"]))
        case "literal_error":
            return Problem(field, f"must be {detail['ctx']['expected']} (found: {_shown(detail.get('input'))})")
        case "string_type":
            hint = "; put it in quotes" if isinstance(detail.get("input"), (int, float, bool)) else ""
            return Problem(field, f"must be a string (found: {_shown(detail.get('input'))}){hint}")
        case "model_type" | "model_attributes_type":
            return Problem(field, f"must be a mapping of fields (found: {_shown(detail.get('input'))})")
        case "list_type":
            return Problem(field, f"must be a list (found: {_shown(detail.get('input'))})")
        case _:
            # The value itself is left out: it may be long, and in `env` it may be a secret.
            return Problem(field, str(detail["msg"])[0].lower() + str(detail["msg"])[1:])


def _path(location: Sequence[int | str]) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, bool):
        return str(value).lower()
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _unknown(location: Sequence[int | str], root: type[BaseModel]) -> str:
    name = str(location[-1])
    fields = _fields_at(location[:-1], root)
    near = difflib.get_close_matches(name.lower(), [field.lower() for field in fields], n=1, cutoff=0.6)
    same = next((field for field in fields if field.lower() == near[0]), None) if near else None
    if same is None:
        plain = name.replace("_", "").lower()
        same = next((field for field in fields if field.lower() == plain), None)
    if same is not None:
        return f"is not a field here; did you mean {same}?"
    home = next((path for path, field in _all_fields(root, "") if field.lower() == name.replace("_", "").lower()), None)
    if home is not None:
        return f"is not a field here; it belongs to {home}"
    return f"is not a field here; there are: {', '.join(sorted(fields))}" if fields else "is not a field here"


def _fields_at(location: Sequence[int | str], root: type[BaseModel]) -> list[str]:
    model: type[BaseModel] | None = root
    for part in location:
        if isinstance(part, int) or model is None:
            continue
        field = next((info for info in model.model_fields.values() if info.alias == part), None)
        model = _model_in(field.annotation) if field is not None else None
    return [info.alias or name for name, info in model.model_fields.items()] if model is not None else []


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (list, Union, types.UnionType):
        return next((found for part in get_args(annotation) if (found := _model_in(part)) is not None), None)
    return None


def _all_fields(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, str]]:
    for name, info in model.model_fields.items():
        alias = info.alias or name
        path = f"{prefix}.{alias}" if prefix else alias
        yield path, alias
        inner = _model_in(info.annotation)
        if inner is not None:
            yield from _all_fields(inner, path)
