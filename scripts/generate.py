"""Writes what is made from the code: the manifest's schema and the pages of `docs/reference/`. Called by `scripts/generate`.

`--check` writes nothing and ends with 1, naming each file that differs. The same code gives the same bytes on any machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from pydantic_core import PydanticUndefined

from moorage.cli import reference
from moorage_api import errors, schema
from moorage_gateway import settings
from moorage_gateway.routes.control import Services, create_control_app

ROOT = Path(__file__).resolve().parent.parent

# A number's unit is told by the end of its name.
_UNITS = {
    "_port": "port",
    "_seconds": "seconds",
    "_bytes": "bytes",
    "_grace": "seconds",
    "_buffer": "bytes",
    "_floor": "bytes a second",
    "_rate": "requests a second",
    "_burst": "requests",
    "_requests": "requests",
    "_concurrency": "requests",
    "_connections": "connections",
    "_queue": "spans",
    "_depth": "levels",
    "_containers": "objects and arrays",
    "_count": "lines",
}

_SETTINGS_HEAD = """# Settings of a gateway

Generated from `gateway/moorage_gateway/settings.py`; edit there. How they are used: [operate](../operate.md).

`moorage-gateway` reads them from its environment, once. A missing or wrong one ends the start with exit code 2 and its name, never
its value. `moorage dev` sets its gateway's by itself and reads none of these.
"""

_ERRORS_HEAD = """# Errors

Generated from `crds/moorage_api/errors.py`; edit there.

Every refusal is one of these, with the body `{"error": {"message", "type", "param", "code"}}`. `code` is the kind below, or a more exact
one. *Retry*: the same request may be sent again; such an answer has `Retry-After` in seconds. A 408, a 409, and an error of 500 or more
that must not be repeated carry `x-should-retry: false`, which the stock client obeys.

| kind | status | type | retry |
|---|---|---|---|
"""


def generated() -> dict[str, str]:
    """Every generated file: path from the repository's root → its whole text."""
    return schema.generated() | {
        "docs/reference/settings.md": settings_page(),
        "docs/reference/cli.md": reference.render(),
        "docs/reference/openapi.json": openapi(),
        "docs/reference/errors.md": errors_page(),
    }


def settings_page() -> str:
    """The page of settings: a section for each comment that groups fields in the source."""
    fields = settings.Settings.model_fields
    lines = [_SETTINGS_HEAD]
    for title, names in _groups(list(fields)):
        lines += [f"## {title}", "", "| variable | default | unit | meaning |", "|---|---|---|---|"]
        for name in names:
            meaning = " ".join((fields[name].description or "").split()).replace("|", "\\|")
            lines.append(
                f"| `{settings.PREFIX}{name.upper()}` | {_default(fields[name])} | {_unit(name, fields[name])} | {meaning} |"
            )
        lines.append("")
    return "\n".join(lines)


def _groups(names: list[str]) -> list[tuple[str, list[str]]]:
    """Field names under the comment above them. A class has no comments at run time, so its source is read."""
    groups: list[tuple[str, list[str]]] = []
    for line in inspect.getsource(settings.Settings).splitlines():
        if title := re.fullmatch(r"    # (.+)", line):
            groups.append((title[1], []))
        elif (field := re.match(r"    (\w+): ", line)) and field[1] in names:
            groups[-1][1].append(field[1])
    if [name for _, inside in groups for name in inside] != names:
        raise RuntimeError("settings.py: a field stands before the first group comment, or twice")
    return groups


def _default(info: Any) -> str:
    if info.is_required():
        return "required"
    if info.default is PydanticUndefined:
        return "made at start"
    if info.default is None or info.default == ():
        return "–"
    if isinstance(info.default, SecretStr):
        raise RuntimeError("a secret must not have a default")
    value = str(info.default).lower() if isinstance(info.default, bool) else info.default
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _unit(name: str, info: Any) -> str:
    if info.annotation not in (int, float):
        return "–"
    return next((unit for end, unit in _UNITS.items() if f"_{name}".endswith(end)), "–")


def errors_page() -> str:
    """The table of refusals."""
    rows = [
        f"| `{kind.value}` | {answer.status} | `{answer.type}` | {'yes' if answer.retry else 'no'} |"
        for kind, answer in errors.TABLE.items()
    ]
    return _ERRORS_HEAD + "\n".join(rows) + "\n"


def openapi() -> str:
    """The control API's document. Its routes are made around services that are never called here."""
    absent: dict[str, Any] = {field.name: None for field in dataclasses.fields(Services)}
    app = create_control_app(Services(**absent))
    return json.dumps(app.openapi(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def stale(root: Path, files: dict[str, str]) -> list[str]:
    """Paths whose text on disk is not the generated one."""
    return [path for path, text in files.items() if _text(root / path) != text]


def _text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


def main(write: Callable[[str], object] = sys.stderr.write) -> int:
    """The command. Exit 0 when all is written, or with `--check` when nothing is stale."""
    parser = argparse.ArgumentParser(prog="scripts/generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="only compare; exit 1 when a file is stale")
    options = parser.parse_args()
    files = generated()
    behind = stale(ROOT, files)
    if options.check:
        for path in behind:
            write(f"{path} is stale: run scripts/generate\n")
        return 1 if behind else 0
    for path in behind:
        (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / path).write_text(files[path], encoding="utf-8")
        write(f"wrote {path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
