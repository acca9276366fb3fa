"""Calls of tools that a person must approve (`requireApproval` of a toolbox). Layer: engine.

    look       a call asks whether it may be made: yes, once; no; or a person has yet to say so
    asked      what a turn's calls wait for: `mcp_approval_request` items, put at the end of its output
    answered   a caller's `mcp_approval_response` items: granted here and nowhere else, so that no sandbox can grant itself anything

An agent of any framework gets a tool's result that says what happens, and in the next turn a message that says what was answered.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from moorage_api import names
from moorage_api.catalog import ToolboxEntry
from moorage_api.errors import ApiError, Kind
from moorage_api.ledger.approvals import MOST_KEPT, ApprovalLedger, Request
from moorage_api.ledger.script import LedgerError
from moorage_gateway import fields
from moorage_gateway.conversation import message
from moorage_gateway.journal.kinds import NothingSent
from moorage_gateway.refusals import unavailable
from moorage_gateway.sessions import Sessions
from moorage_gateway.tools.approving import Approval, Verdict
from moorage_gateway.tools.servers import Whose

MOST_REASON = 1000


class Approvals:
    """See `moorage_gateway.tools.approving.Approves`."""

    def __init__(self, ledger: ApprovalLedger, sessions: Sessions) -> None:
        self._ledger = ledger
        self._sessions = sessions

    async def look(self, whose: Whose, wanted: Approval) -> Verdict:
        """See Approves."""
        print_ = hashlib.sha256(orjson.dumps([wanted.place, wanted.fingerprint])).hexdigest()
        request = Request(print_, wanted.call_id, whose.turn, wanted.box, wanted.tool, wanted.arguments)
        try:
            word, id, reason = await self._ledger.look(whose.session, request, f"mcpa_{wanted.call_id}")
        except LedgerError as fault:
            raise NothingSent("the ledger does not answer") from fault
        return Verdict(word, id, reason)

    async def answered(self, session: str, items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """The items, and behind each answer a message that tells the agent of it. Raises ApiError."""
        found: list[dict[str, Any]] = []
        if sum(map(is_answer, items)) > MOST_KEPT:
            raise fields.refuse("input", f"answers more than {MOST_KEPT} requests for approval.")
        for index, item in enumerate(items):
            found.append(item)
            if is_answer(item):
                found.append(await self._answer(session, f"input[{index}]", item))
        return found

    async def _answer(self, session: str, param: str, item: dict[str, Any]) -> dict[str, Any]:
        approve, reason, id = item.get("approve"), item.get("reason"), str(item["approval_request_id"])
        if not isinstance(approve, bool):
            raise fields.refuse(f"{param}.approve", "must be true or false.")
        if reason is not None:
            fields.text(MOST_REASON)(f"{param}.reason", reason)
        with unavailable("Approvals cannot be recorded"):
            word, box, tool, arguments = await self._sessions.guarded(
                lambda: self._ledger.answer(session, id, approve=approve, reason=str(reason or ""))
            )
        if word != "OK":
            why = (
                "was answered otherwise before" if word == "ANSWERED" else "waits for an answer no more in this session"
            )
            text = f"The request {id} {why}: ask the agent again, and answer the request of that response."
            raise ApiError(Kind.INVALID_REQUEST, text, param=f"{param}.approval_request_id")
        what = f"The call of tool '{tool}' of toolbox '{box}' with the arguments {arguments or '(as asked)'}"
        if approve:
            return message("user", f"{what} was approved. Make that call now, once, with exactly these arguments.")
        because = f": {reason}" if reason else ""
        return message("user", f"{what} was refused{because}. Do not make it.")


async def asked(ledger: ApprovalLedger, session: str, response: str) -> list[dict[str, Any]]:
    """Items for a turn's output: what its calls wait for. Raises LedgerError."""
    return [
        {
            "type": "mcp_approval_request",
            "id": id,
            "server_label": str(each["box"]),
            "name": str(each["tool"]),
            "arguments": str(each["args"]),
        }
        for id, each in await ledger.asked(session, response)
    ]


def may_ask(spec: dict[str, Any], find: Callable[[str], ToolboxEntry | None]) -> bool:
    """Whether an agent of that manifest has a tool that a person must approve: else nobody need look. `find` by a toolbox' name."""
    boxes = [find(str(name)) for name in spec.get("toolboxes") or ()]
    return any(each.get("requireApproval") for box in boxes if box is not None for each in box.spec["upstreams"])


def is_answer(item: dict[str, Any]) -> bool:
    """Whether it answers a request that a gateway made; those that an agent makes by itself are the agent's own."""
    named = item.get("approval_request_id")
    return item.get("type") == "mcp_approval_response" and isinstance(named, str) and bool(names.APPROVAL.match(named))
