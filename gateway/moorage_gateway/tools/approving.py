"""Whether a call that a person must approve may be made, and what its agent reads where not. Layer: shapes and pure words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from moorage_api.ledger.approvals import MOST_ARGUMENTS, MOST_PENDING
from moorage_gateway.tools import results
from moorage_gateway.tools.servers import Whose

REQUEST = "dev.moorage/approvalRequest"
"""In `_meta` of an `approval_required`: the request's id."""


@dataclass(frozen=True)
class Approval:
    """A call as a person is asked about it. `place`: which server's tool it is there; `arguments`: JSON, whole."""

    fingerprint: str
    place: str
    call_id: str
    box: str
    tool: str
    arguments: str


@dataclass(frozen=True)
class Verdict:
    """`word`: APPROVED, REFUSED, PENDING or FULL; `id` of the request, and a refusal's `reason`."""

    word: str
    id: str = ""
    reason: str = ""


class Approves(Protocol):
    """What persons have said of calls."""

    async def look(self, whose: Whose, wanted: Approval) -> Verdict:
        """Asked again for the same call id, the same is said. Raises NothingSent."""


async def held(approves: Approves, whose: Whose, wanted: Approval) -> dict[str, Any] | None:
    """The result in place of the call's; None where it may be made now. Raises NothingSent."""
    not_called = f"'{wanted.tool}' was not called: a person must approve this call"
    if not whose.turn:
        return results.failed("approval_refused", f"approval_refused: {not_called}, which needs a turn to be asked in.")
    if len(wanted.arguments.encode()) > MOST_ARGUMENTS:
        text = f"approval_refused: {not_called}, and its arguments are longer than {MOST_ARGUMENTS} bytes. Ask for less at once."
        return results.failed("approval_refused", text)
    verdict = await approves.look(whose, wanted)
    match verdict.word:
        case "APPROVED":
            return None
        case "REFUSED":
            because = f" The reason given: {verdict.reason}" if verdict.reason else ""
            text = f"approval_refused: '{wanted.tool}' was not called: a person refused this call. Do not make it again.{because}"
            return results.failed("approval_refused", text)
        case "FULL":
            text = f"approval_refused: {not_called}, and {MOST_PENDING} calls wait for that. End your answer."
            return results.failed("approval_refused", text)
    text = (
        f"approval_required: {not_called} first. They are asked when your answer ends: say what you want to do and why, and end your "
        "answer. Once it is approved you are told so; make the same call then, with the same arguments, and try no other way."
    )
    told = results.failed("approval_required", text)
    told["_meta"][REQUEST] = verdict.id
    return told
