"""What a framework carries from one turn to the next: a file a response, on the session's workspace. Layer: SDK, under the adapters.

A turn starts from the file of the response that it continues (`previous_response_id`) and writes one of its own. So each attempt at a turn
starts from what its first one found (turns.md §3), and a conversation that branches has a state in each branch. Where the file is missing
(another session's response, an older one, a lost volume) the framework starts from the conversation's items, `ctx.history`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from moorage._context import Context

LIMIT = 16 * 1024 * 1024  # bytes of one turn's state
KEPT = 32  # files a session: the older branches start from their items
_SHORT = 32  # hex digits of a file's name


class Carried:
    """The state of one framework in one turn."""

    def __init__(self, ctx: Context, framework: str) -> None:
        self._folder = ctx.workspace / ".moorage" / framework
        self._own = ctx.response_id
        previous = ctx.request.get("previous_response_id")
        self._previous = previous if isinstance(previous, str) else None

    def load(self) -> Any:
        """What the turn before left; None when there is nothing that can be read."""
        if self._previous is None:
            return None
        try:
            return json.loads(self._file(self._previous).read_bytes())
        except (OSError, ValueError, RecursionError):
            return None

    def save(self, value: object) -> None:
        """Keeps `value` for the turns that continue this one. Raises TypeError, ValueError (no JSON, too much) or OSError."""
        data = json.dumps(value, ensure_ascii=False).encode()
        if len(data) > LIMIT:
            raise ValueError(
                f"the framework's state is {len(data)} bytes, at most {LIMIT} are kept:"
                " put files in the workspace and their names in the state"
            )
        self._folder.mkdir(parents=True, exist_ok=True)
        place = self._file(self._own)
        fresh = place.with_suffix(".new")
        with fresh.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(place)
        self._prune()

    def _file(self, response: str) -> Path:
        return self._folder / f"{hashlib.sha256(response.encode()).hexdigest()[:_SHORT]}.json"

    def _prune(self) -> None:
        aged = sorted(((each.stat().st_mtime_ns, each) for each in self._folder.glob("*.json")), reverse=True)
        for _, old in aged[KEPT:]:
            with contextlib.suppress(OSError):
                old.unlink()
