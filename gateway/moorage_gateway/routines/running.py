"""A run's turn: accepted, looked at, cancelled. Layer: gateway; the only part of routines that touches turns.

A run is a background turn in the routine's session, in the name of its owner. What names the turn follows from the run and its try, so
that whoever accepts it a second time, after a loss too, meets the first one.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

import orjson

from moorage_api import names, templates
from moorage_api.errors import ApiError
from moorage_api.wire import headers as wire
from moorage_gateway import conversation, request
from moorage_gateway.auth import INVOKE, ROUTINE, Principal
from moorage_gateway.clock import Clock
from moorage_gateway.journal.carrying import Carrying
from moorage_gateway.routes.doors import SessionDoor, TurnsDoor
from moorage_gateway.routines.known import Known
from moorage_gateway.routines.state import MOST_TEXT, Last, Run, State, Turn, is_invocation
from moorage_gateway.turns.service import StoredTurn, TurnRequest

LIMITS = request.JsonLimits(size=2**20, depth=64, containers=20_000)


class Running:
    """Turns of runs. Every method that waits raises ApiError."""

    def __init__(self, turns: TurnsDoor, sessions: SessionDoor, carrying: Carrying, clock: Clock) -> None:
        self._turns = turns
        self._sessions = sessions
        self._carrying = carrying
        self._clock = clock

    async def accept(self, tenant: str, known: Known, state: State, run: Run) -> str:
        """The response of the run's newest try: its turn is persisted when this returns."""
        caller = Principal(tenant, owner(known), scopes=frozenset({INVOKE}))
        place = await self._sessions.resolve(
            caller,
            known.spec.agent,
            session_id=session_of(known, run),
            previous_response_id=None,
            conversation=None,
        )
        response = names.derived_response_id(place.partition, run.id, str(run.number))
        if await self._turns.get(response, tenant=tenant) is not None:
            return response
        raw = orjson.dumps(asked(known, state, run))
        create = request.parse_create(raw, LIMITS)
        trace = trace_of(tenant, run.id)
        turn = TurnRequest(
            response_id=response,
            body=create.body,
            input_items=conversation.with_ids(create.items, response),
            stream=False,
            background=True,
            store=True,
            idempotency_key=f"routine/{run.id}/{run.number}",
            retry_count=0,
            body_hash=hashlib.sha256(raw).hexdigest(),
            headers={wire.TRACEPARENT: f"00-{trace}-{trace[16:]}-01"},
            trace_id=trace,
            created_at=self._clock.now_ms() // 1000,
            timeout_s=known.spec.timeout_minutes * 60.0,
            carries=run.number > 1,
        )
        return await self._turns.accept(caller, place, turn)

    def response(self, tenant: str, known: Known, run: Run) -> str:
        """The id that a run's newest try has, accepted or not."""
        partition = names.partition(tenant, known.spec.agent, owner(known), session_of(known, run))
        return names.derived_response_id(partition, run.id, str(run.number))

    async def carry(self, tenant: str, run: Run) -> None:
        """A try has failed and another follows: steps that were completed are given on to it. Raises LedgerError, StoreUnavailable."""
        partition = names.partition_of(run.responses[-1]) if run.responses else None
        if partition is None:  # none of its tries was accepted
            return
        failed, following = (names.derived_response_id(partition, run.id, str(run.number + more)) for more in (0, 1))
        await self._carrying.give(tenant, failed, following)

    async def look(self, tenant: str, response: str) -> Turn:
        """How a turn stands."""
        return stands(await self._turns.get(response, tenant=tenant))

    async def ended(self, tenant: str, response: str) -> Turn:
        """How it ended: waits for that."""
        await self._turns.wait(response, tenant=tenant)
        return await self.look(tenant, response)

    async def cancel(self, tenant: str, response: str) -> None:
        """Stops it: the agent is asked to end, then it is ended."""
        await self._turns.cancel(response, tenant=tenant)


def owner(known: Known) -> str:
    """In whose name a routine runs."""
    return known.spec.owner or f"{ROUTINE}{known.name}"


def session_of(known: Known, run: Run) -> str:
    """The session of a run: the routine's, or its own."""
    return f"routine-{known.name}" if known.spec.session == "persistent" else f"routine-{known.name}-{run.id[4:]}"


def trace_of(tenant: str, run: str) -> str:
    """The trace of a run: all its tries are in it."""
    return hashlib.sha256(f"trace/{tenant}/{run}".encode()).hexdigest()[:32]


def asked(known: Known, state: State, run: Run) -> dict[str, Any]:
    """The create body of a try: the routine's input, filled; a further try is told how the one before it ended."""
    filled = templates.filled(known.spec.items or known.spec.input or "", known_of(known, state.last, run))
    items = filled if isinstance(filled, list) else [{"type": "message", "role": "user", "content": filled}]
    if run.number > 1:
        said = (
            f"This is try {run.number} of one run of the routine {known.name}. The one before failed: {run.error}. What it did has "
            "happened: steps that it completed are answered with the results they had, and for the rest look at the workspace."
        )
        items = [{"type": "message", "role": "developer", "content": said}, *items]
    return {"model": known.spec.agent, "input": items, "background": True, "store": True}


def known_of(known: Known, last: Last | None, run: Run) -> dict[str, str]:
    """What a template may name."""
    found = {"scheduledTime": shown(run.slot), "routine": known.name}
    if last is not None:
        found |= {
            "lastRun.outcome": last.outcome,
            "lastRun.scheduledTime": shown(last.slot),
            "lastRun.endedAt": shown(last.ended),
            "lastRun.responseId": "" if is_invocation(last.response) else last.response,
            "lastRun.output": last.output,
            "lastRun.error": last.error,
        }
    return found


def shown(instant: int) -> str:
    """An instant as people and agents read it."""
    return datetime.fromtimestamp(instant // 1000, UTC).isoformat().replace("+00:00", "Z")


def stands(found: StoredTurn | None) -> Turn:
    """A stored turn in a routine's words."""
    if found is None:
        return Turn("missing")
    if not found.ended:
        return Turn("open")
    response = found.response
    output, error = _text(response)[:MOST_TEXT], str((response.get("error") or {}).get("message") or "")[:MOST_TEXT]
    match response.get("status"):
        case "completed":
            return Turn("completed", output)
        case "cancelled":
            return Turn("cancelled", output, error or "it was cancelled")
        case status:
            return Turn("failed", output, error or f"its response is {status}")


def _text(response: dict[str, Any]) -> str:
    """All that the agent said."""
    parts = [
        str(part.get("text", ""))
        for item in response.get("output") or ()
        if item.get("type") == "message"
        for part in item.get("content") or ()
        if part.get("type") == "output_text"
    ]
    return "\n".join(parts)


def refused(fault: ApiError) -> bool:
    """Whether a turn that could not be accepted will not be accepted later either."""
    return fault.status < 500 and fault.status not in (408, 429)
