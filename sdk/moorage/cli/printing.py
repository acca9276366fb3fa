"""What commands print: results on stdout, for people as tables or as JSON; all else on stderr. Layer: CLI."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def clean(text: object) -> str:
    """`text` without control characters: what an agent wrote must not steer the terminal."""
    return _CONTROLS.sub("", str(text))


def out(text: str, *, end: str = "\n") -> None:
    """To stdout, at once."""
    sys.stdout.write(text + end)
    sys.stdout.flush()


def note(text: str) -> None:
    """To stderr: progress and remarks."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def document(value: object) -> None:
    """One JSON document (or one line of JSON lines) on stdout."""
    out(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], *, empty: str) -> None:
    """A table of `rows`; `columns` maps a field to its heading. `empty` is said when there is none."""
    from rich.console import Console
    from rich.table import Table

    if not rows:
        note(empty)
        return
    made = Table(box=None, pad_edge=False, header_style="bold")
    for heading in columns.values():
        made.add_column(heading, overflow="fold")
    for row in rows:
        made.add_row(*(cell(row.get(field)) for field in columns))
    Console(markup=False, highlight=False).print(made)


def fields(value: Mapping[str, Any]) -> None:
    """One object, a field a line; nested ones as JSON."""
    width = max((len(name) for name in value), default=0)
    for name, each in value.items():
        out(f"{name.ljust(width)}  {cell(each)}")


def cell(value: object) -> str:
    """One value in words."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict | list):
        return clean(json.dumps(value, ensure_ascii=False))
    return clean(value)


def when(seconds: object) -> str:
    """A time of day in UTC from epoch seconds."""
    if not isinstance(seconds, int | float) or not seconds:
        return "-"
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
