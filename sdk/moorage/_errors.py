"""Every error the client and `moorage.step` raise. Layer: SDK, public.

MoorageError                 a sentence a person can act on
  ├─ ApiStatusError          the platform refused: status, code, the field it names
  ├─ ConnectionLost          the platform cannot be reached, or the connection broke off
  ├─ NotReady                an agent did not become ready in time, or cannot
  ├─ Misuse                  what was asked cannot be sent: a folder, a manifest, a setting, a step is wrong
  ├─ StepFailed              a step's function raised, in this attempt or in the one that ran it
  ├─ OutcomeUnknown          a step was begun by an attempt that died; whether it happened is not known
  └─ AlreadyDone             an earlier attempt did something else under this step's name
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


class StepFailed(MoorageError):
    """The function of step `name` raised `type` (a class name) with `reason`. In the attempt that ran it the exception itself is
    `__cause__`."""

    def __init__(self, name: str, type: str, reason: str) -> None:
        super().__init__(f"Step {name!r} failed: {type}: {reason}")
        self.name = name
        self.type = type
        self.reason = reason


class OutcomeUnknown(MoorageError):
    """Step `name` was begun, and its attempt died before it was recorded how it ended. It does not run again by itself."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"Step {name!r} was begun in an earlier attempt, and whether it happened is not known.",
            hint="Look whether it has happened; where it has not, call the step again.",
        )
        self.name = name


class AlreadyDone(MoorageError):
    """An earlier attempt did something else under this step's name, which this attempt has not asked for: nothing was run.

    `arguments`: of that earlier step, `{"args": […], "kwargs": {…}}`, None where they were no JSON or too long to be kept. `known`: whether
    its outcome is; then `result` or `failure` is it.
    """

    def __init__(self, name: str, arguments: Any, *, known: bool, result: Any, failure: StepFailed | None) -> None:
        super().__init__(
            f"An earlier attempt did another step {name!r}, with {json.dumps(arguments)[:500]}; this one was not run.",
            hint="Go on from its result; where a second one is meant, call the step again.",
        )
        self.name = name
        self.arguments = arguments
        self.known = known
        self.result = result
        self.failure = failure


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
