"""The reference page of the command line, made from the commands themselves. Layer: CLI; `scripts/generate` writes what this returns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from moorage.cli.main import Brought, installed, make_app

_HEAD = """# Command line

Generated from the commands; do not edit. How they are used: [the guide](../guides/cli.md).

Every command takes `--json`, and `--url` and `--key` (else `MOORAGE_URL` and `MOORAGE_API_KEY`, else what `login` or `dev` kept).
Results are on stdout, all else on stderr. Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 130 interrupted.
"""
_EVERYWHERE = frozenset({"url", "key", "as_json", "help"})


def render(brought: Brought = installed) -> str:
    """The page as Markdown; the same commands give the same text."""
    root = typer.main.get_command(make_app(brought))
    sections = [_section(path, command) for path, command in _walk("moorage", root)]
    return _HEAD + "".join(sections)


def _walk(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    names = command.list_commands(None) if hasattr(command, "list_commands") else []
    if not names:
        yield path, command
    for name in names:
        inner = command.get_command(None, name)
        if inner is not None:
            yield from _walk(f"{path} {name}", inner)


def _section(path: str, command: Any) -> str:
    shown = [parameter for parameter in command.params if parameter.name not in _EVERYWHERE]
    arguments = [parameter for parameter in shown if parameter.param_type_name == "argument"]
    options = [parameter for parameter in shown if parameter.param_type_name == "option"]
    usage = " ".join([path, *(_argument(each) for each in arguments), *(["[OPTIONS]"] if options else [])])
    lines = ["", f"## {path}", "", (command.help or "").strip(), "", "```", usage, "```"]
    rows = [(f"`{_argument(each)}`", each) for each in arguments]
    rows += [(", ".join(f"`{name}`" for name in (*each.opts, *each.secondary_opts)), each) for each in options]
    if rows:
        lines += ["", "name | meaning | default", "---|---|---"]
        lines += [f"{name} | {(each.help or '').strip()} | {_default(each)}" for name, each in rows]
    return "\n".join(lines) + "\n"


def _argument(parameter: Any) -> str:
    name = str(parameter.metavar or parameter.name.upper()).strip("[]")
    return name if parameter.required else f"[{name}]"


def _default(parameter: Any) -> str:
    value = parameter.default
    if parameter.required:
        return "required"
    return "" if value in (None, False, "") or callable(value) or str(value) == "Sentinel.UNSET" else f"`{value}`"
