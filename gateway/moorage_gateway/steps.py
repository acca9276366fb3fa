"""The call kind of steps: side effects of the agent's own code, made in its sandbox and recorded here (turns.md §6). Layer: engine.

    POST /steps/begin   {"name": N, "arguments": {…} | null}        → {"state": S, …}, S one of
        run        "step": its name for `end`; the attempt runs it now
        free       outside of a turn: run it, nothing is recorded
        completed  "outcome": {"result": …} or {"error": {"type", "message"}}, as an earlier attempt reported it
        outcome_unknown                        it was begun, and nobody reported how it ended
        already_done_in_earlier_attempt        "call": what an earlier attempt did under this name; "outcome": how it ended, null if unknown
    POST /steps/end     {"step": S, "result": …} or {"step": S, "error": {"type", "message"}}   → {"state": "recorded"}

Who runs it is the attempt: one that is dead reports no more, so its lease only covers a report under way.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from moorage_api.ledger.journal import MAX_CALL, Permits
from moorage_api.wire.calls import MAX_STEP_NAME, STEPS
from moorage_gateway.journal.answers import Answer, error
from moorage_gateway.journal.kinds import Asked, CallRefused, Report

FAILED = "step_failed"
"""What the span of a step says whose function raised."""
LENGTH = 40  # hex digits of a fingerprint: 160 bits
_JSON = (("content-type", "application/json"),)


class Steps:
    """Begins and ends steps."""

    prefix = STEPS

    def prepare(self, asked: Asked) -> Step | Report:
        """See CallKind."""
        body = _body(asked)
        match asked.target:
            case "/steps/begin":
                return _begin(body)
            case "/steps/end":
                return _end(body)
        raise _refused(404, "not_found", "Steps are begun at /steps/begin and ended at /steps/end; use moorage.step().")


@dataclass(frozen=True)
class Step:
    """One step to begin. `call`: its name and arguments as JSON, empty where that is too long to be shown."""

    name: str
    fingerprint: str
    call: str

    @property
    def permits(self) -> Permits:
        """What a step does is not known here."""
        return "once"

    @property
    def bounded(self) -> None:
        """It costs nothing that is counted."""
        return None

    @property
    def tool(self) -> str:
        """Steps of one name are one tool."""
        return f"step {self.name}"

    @property
    def what(self) -> dict[str, str]:
        """See Prepared."""
        return {"kind": "step", "name": self.name}

    def hand(self, mark: str) -> Answer:
        """See Handed."""
        return _told({"state": "run", "step": mark} if mark else {"state": "free"})

    def unknown(self) -> Answer:
        """See Prepared."""
        return _told({"state": "outcome_unknown"})

    def earlier(self, call: str, answer: Answer | None) -> Answer:
        """See Prepared."""
        outcome = None if answer is None else json.loads(answer.body)["outcome"]
        found = json.loads(call) if call else None
        return _told({"state": "already_done_in_earlier_attempt", "call": found, "outcome": outcome})


def _begin(body: dict[str, Any]) -> Step:
    name, arguments = body.get("name"), body.get("arguments")
    if not isinstance(name, str) or not 1 <= len(name) <= MAX_STEP_NAME or not name.isprintable():
        raise _refused(400, "invalid_request", f"A step has a name of 1 to {MAX_STEP_NAME} printable characters.")
    call = _dump({"name": name, "arguments": arguments})
    print_ = hashlib.sha256(b"step\n" + call).hexdigest()[:LENGTH]
    shown = call.decode()
    return Step(name, print_, shown if len(shown) <= MAX_CALL else "")


def _end(body: dict[str, Any]) -> Report:
    mark = body.get("step")
    if not isinstance(mark, str) or ("result" in body) == ("error" in body):
        raise _refused(
            400, "invalid_request", 'A step ends with its "step" from begin, and either "result" or "error".'
        )
    if "error" in body:
        said = body["error"] if isinstance(body["error"], dict) else {}
        outcome = {"error": {part: str(said.get(part, "")) for part in ("type", "message")}}
    else:
        outcome = {"result": body["result"]}
    answer = _told({"state": "completed", "outcome": outcome})
    fault = FAILED if "error" in outcome else ""
    return Report(mark, answer, _told({"state": "recorded"}), {"kind": "step"}, fault)


def _body(asked: Asked) -> dict[str, Any]:
    try:
        found = json.loads(asked.body)
    except (ValueError, RecursionError) as fault:
        raise _refused(400, "invalid_json", f"The body is not JSON: {fault}.") from None
    if asked.method != "POST" or not isinstance(found, dict):
        raise _refused(400, "invalid_request", "Steps are begun and ended by POST, with a JSON object.")
    return found


def _dump(value: Any) -> bytes:
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    except (ValueError, RecursionError):
        raise _refused(400, "invalid_json", "NaN, infinities and nesting beyond reason are no JSON.") from None


def _told(value: dict[str, Any]) -> Answer:
    return Answer(200, _JSON, _dump(value))


def _refused(status: int, code: str, message: str) -> CallRefused:
    return CallRefused(error(status, "invalid_request_error", code, message))
