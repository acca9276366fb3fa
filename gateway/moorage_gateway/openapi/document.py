"""A whole OpenAPI document (3.0, 3.1): its operations as tools, and what it has that cannot be one, with the reason. Layer: pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from moorage_gateway.openapi.operations import Operation, operation
from moorage_gateway.openapi.schemas import NOTHING, Budget, Reserved, SchemaError, Schemas

MOST_OPERATIONS = 2000
METHODS = ("get", "put", "post", "delete", "patch", "head")
LONGEST_NAME = 128
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_.-]+")
_PATH = re.compile(r"/[A-Za-z0-9._~!$&'()*+,;=:@%/{}-]{0,1023}\Z")


class DocumentError(ValueError):
    """The document is none, or none of a known version; the message says what to do."""


@dataclass(frozen=True)
class Api:
    """What was read. `refused`: `METHOD path` → why it is no tool; `title`: what the API calls itself, empty where it does not say."""

    operations: tuple[Operation, ...]
    refused: dict[str, str]
    title: str = ""


def read(document: Any, reserved: Reserved = NOTHING) -> Api:
    """The operations of a parsed document, in its order; parameters that are `reserved` are no arguments: somebody else fills them in.
    Raises DocumentError; what is wrong with one operation is in `refused`."""
    if not isinstance(document, Mapping) or not isinstance(document.get("paths"), Mapping):
        raise DocumentError("This is no OpenAPI document: it has no paths.")
    version = str(document.get("openapi", document.get("swagger", "")))
    if not re.match(r"3\.[01]\.", version):
        raise DocumentError(
            f"OpenAPI {version[:16] or 'without a version'} is not read; give a document of 3.0 or 3.1."
        )
    found: dict[str, Operation] = {}
    refused: dict[str, str] = {}
    budget = Budget()
    for path, item in document["paths"].items():
        for method in METHODS:
            described = item.get(method) if isinstance(item, Mapping) else None
            if not isinstance(described, Mapping):
                continue
            where = _line(f"{method.upper()} {str(path)[:200]}")
            name = _name(described.get("operationId"), method, str(path))
            if len(found) + len(refused) >= MOST_OPERATIONS:
                raise DocumentError(
                    f"The document has more than {MOST_OPERATIONS} operations; give one of the part that is needed."
                )
            if name in found:
                refused[where] = f"has the name {name}, as {found[name].method} {found[name].path} does"
                continue
            try:
                if not _is_path(str(path)):
                    raise SchemaError("has a path that is none")
                shared = item.get("parameters")
                schemas = Schemas(document, budget, reserved)
                listed = shared if isinstance(shared, list) else []
                found[name] = operation(schemas, name, method, str(path), listed, described)
            except SchemaError as fault:
                refused[where] = _line(str(fault))
    told = document.get("info")
    title = told.get("title") if isinstance(told, Mapping) else None
    return Api(tuple(found.values()), refused, title if isinstance(title, str) else "")


def _line(text: str) -> str:
    """What a document says, as part of one line of a log."""
    return "".join(each if each.isprintable() else "?" for each in text)


def _is_path(path: str) -> bool:
    """Whether it is one, and none that a server could read as another: `%2e%2e` is `..` to some."""
    steps = unquote(path).replace("\\", "/").split("/")
    return _PATH.match(path) is not None and not {".", ".."} & set(steps)


def _name(identity: Any, method: str, path: str) -> str:
    text = identity if isinstance(identity, str) and identity.strip() else f"{method}_{path.strip('/')}"
    return _NOT_IN_A_NAME.sub("_", text).strip("_")[:LONGEST_NAME] or method
