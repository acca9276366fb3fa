"""`moorage login`: keep URL and key for later commands. Layer: CLI."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from moorage.cli import connection, options, printing


def login(
    url: options.Url = None,
    key: options.Key = None,
    show: Annotated[bool, typer.Option("--show", help="Only say what is kept, without the key.")] = False,
    as_json: options.Json = False,
) -> None:
    """Check a platform's URL and key, and keep them. Without --key it is asked for, or read from stdin."""
    path = connection.config_path(os.environ)
    if show:
        kept = connection.find(url, key, os.environ)
        _say({"url": kept.url, "key": bool(kept.key), "file": str(path)}, as_json)
        return
    where = connection.find(url, None, os.environ).url
    if key is None:
        key = typer.prompt("API key", hide_input=True, err=True) if sys.stdin.isatty() else sys.stdin.readline().strip()
    with options.client(where, key or None) as client:
        agents = len(client.list_agents())
    connection.save(path, where, key or None)
    _say({"url": where, "key": bool(key), "file": str(path), "agents": agents}, as_json)


def _say(found: dict[str, object], as_json: bool) -> None:
    if as_json:
        printing.document(found)
    else:
        printing.fields(found)
