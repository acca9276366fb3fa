"""A session's small state: one JSON file, written when a turn completes. Layer: agent server.

Each attempt at a turn starts from what the first one found (turns.md §3): the file keeps the value before and after its last turn,
and a turn that comes again reads the one before.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

LIMIT = 1024 * 1024


class StateFile:
    """The state of one session. A missing or broken file is an empty state: it is a cache of what the agent can make again."""

    def __init__(self, root: Path, session: str) -> None:
        self._path = root / "state" / f"{hashlib.sha256(session.encode()).hexdigest()[:32]}.json"

    def load(self, turn: str) -> dict[str, Any]:
        """The state that `turn` starts from."""
        kept = self._read()
        value = kept.get("before" if kept.get("turn") == turn else "after")
        return value if isinstance(value, dict) else {}

    def save(self, turn: str, before: dict[str, Any], after: dict[str, Any]) -> None:
        """Keeps `after`. Writes nothing when nothing changed. Raises TypeError or ValueError if JSON cannot hold it, OSError."""
        if before == after and self._read().get("turn") != turn:
            return
        text = json.dumps({"turn": turn, "before": before, "after": after}, allow_nan=False)
        if len(text) > LIMIT:
            raise ValueError(
                f"the state is {len(text)} bytes; at most {LIMIT} are kept, put larger things in the workspace"
            )
        self._path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._path.with_suffix(".new")
        with fresh.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._path)

    def _read(self) -> dict[str, Any]:
        try:
            kept = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return kept if isinstance(kept, dict) else {}
