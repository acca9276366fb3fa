"""What earlier runs have seen: a file of the session's workspace, which lasts from run to run."""

import json
from pathlib import Path
from typing import Any

NOTHING = {"issues": [], "commit": ""}


def read(workspace: str | Path) -> dict[str, Any]:
    """The issues by their paths, and the newest commit; nothing before the first run."""
    try:
        return dict(json.loads((Path(workspace) / "seen.json").read_text()))
    except FileNotFoundError:
        return dict(NOTHING)


def write(workspace: str | Path, news: dict[str, Any]) -> None:
    """Adds what this run has seen. Whole or not at all."""
    known = read(workspace)
    commit = news["commits"][0]["id"] if news["commits"] else known["commit"]
    fresh = Path(workspace) / "seen.json.new"
    fresh.write_text(json.dumps({"issues": sorted({*known["issues"], *news["issues"]}), "commit": commit}))
    fresh.replace(Path(workspace) / "seen.json")
