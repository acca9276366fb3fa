"""What an agent is told beside its new input. Layer: SDK, public as `moorage.Context`."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Context:
    """One turn as its agent sees it.

    `history`: earlier items of the chain, oldest first. `session`: the session's id. `workspace`: the folder that stays with the
    session. `response_id`: this turn's response. `user`: the caller, as the platform verified it. `attempt`: 1, and more when an earlier
    attempt at this turn was lost. `metadata`: the request's own. `cancelled`: set when nobody waits for the answer any more; a
    blocking agent looks at it (`ctx.cancelled.is_set()`), a generator is closed, an async agent is cancelled. `state`: a small dict
    of JSON values kept with the session when the turn completes. `headers`: the caller's `x-client-*` headers and trace headers,
    lower case. `request`: the whole request body.
    """

    session: str
    workspace: Path
    response_id: str
    history: list[dict[str, Any]] = field(default_factory=list)
    user: str | None = None
    attempt: int = 1
    metadata: Mapping[str, str] = field(default_factory=dict)
    cancelled: threading.Event = field(default_factory=threading.Event)
    state: dict[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    request: Mapping[str, Any] = field(default_factory=dict)
