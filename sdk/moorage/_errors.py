"""Every error the client raises. Layer: SDK, public.

MoorageError                 a sentence a person can act on
  ├─ ApiStatusError          the platform refused: status, code, the field it names
  ├─ ConnectionLost          the platform cannot be reached, or the connection broke off
  ├─ NotReady                an agent did not become ready in time, or cannot
  └─ Misuse                  what was asked cannot be sent: a folder, a manifest, a setting is wrong
"""

from __future__ import annotations

import json
from typing import Any


class MoorageError(Exception):
    """The root. `hint` is what to do next, empty when the message says it."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ApiStatusError(MoorageError):
    """An answer that is no success. `code` and `param` are the platform's own words."""

    def __init__(
        self, message: str, *, status: int, code: str = "", param: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message, hint=_HINTS.get(status, ""))
        self.status = status
        self.code = code
        self.param = param
        self.retry_after = retry_after


class ConnectionLost(MoorageError):
    """No answer, or one that broke off. `unreachable`: there was no connection at all, so nothing was sent."""

    def __init__(self, message: str, *, hint: str = "", unreachable: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.unreachable = unreachable


class NotReady(MoorageError):
    """The agent is deployed and not ready. `conditions` say why."""

    def __init__(self, message: str, *, conditions: list[dict[str, Any]], hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.conditions = conditions


class Misuse(MoorageError):
    """What was given cannot be used; nothing was sent."""


_HINTS = {
    401: "Give a key with --key or MOORAGE_API_KEY; `moorage login` keeps one.",
    403: "Use a key with the scope that this needs; `moorage keys list` shows yours.",
    429: "Wait a moment and try again.",
    503: "Wait a moment and try again.",
}


def of_answer(status: int, body: bytes, retry_after: str | None) -> ApiStatusError:
    """The error behind an answer of the platform, whatever its body is."""
    try:
        found = json.loads(body)["error"]
        message, code, param = str(found["message"]), str(found.get("code") or ""), found.get("param")
    except (ValueError, KeyError, TypeError):
        message, code, param = f"The platform answered {status}.", "", None
    try:
        wait = None if retry_after is None else float(retry_after)
    except ValueError:
        wait = None
    return ApiStatusError(message, status=status, code=code, param=param, retry_after=wait)
