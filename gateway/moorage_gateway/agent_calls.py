"""One hosted agent calls another: a turn of the called one, for the caller's user, in the caller's tenant. Layer: engine.

The turn's id follows from the calling turn and the call, so that every gateway that makes this call makes, or meets, the same turn. It ends
with the calling turn: nobody could get its answer any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from typing import Any, NoReturn

from moorage_api import names
from moorage_api.errors import ApiError, Kind
from moorage_api.ledger.agent_calls import AgentCallLedger
from moorage_api.ledger.records import ENDED, TurnRecord
from moorage_api.ledger.script import LedgerError
from moorage_api.wire.headers import TRACEPARENT
from moorage_gateway import conversation
from moorage_gateway.auth import INVOKE, Principal
from moorage_gateway.clock import Clock
from moorage_gateway.journal.kinds import NothingSent
from moorage_gateway.sessions import Place, Sessions
from moorage_gateway.tools.agents import Manner
from moorage_gateway.tools.rpc import PARAMS
from moorage_gateway.tools.servers import Sending, ToolFault, ToolRefusal
from moorage_gateway.turns.service import TurnRequest, Turns

MOST_DEEP = 4
"""Calls below one that a person or program made: agents that call each other in a circle meet this."""
LOOK_S = 1.0
"""Between two looks at whether the calling turn still runs."""


class AgentCalls:
    """See `moorage_gateway.tools.agents.Asks`."""

    def __init__(self, turns: Turns, sessions: Sessions, ledger: AgentCallLedger, clock: Clock) -> None:
        self._turns = turns
        self._sessions = sessions
        self._ledger = ledger
        self._clock = clock

    async def ask(self, manner: Manner, call_id: str, text: str, seconds: float, sending: Sending) -> dict[str, Any]:
        """See Asks."""
        try:
            outer = await self._turns.known(manner.whose.turn)
            if outer is None:
                raise NothingSent("the calling turn is not to be found right now")
            chain = _chain(outer)
            if len(chain) > MOST_DEEP:
                way = " → ".join((*chain, manner.agent))
                raise ToolRefusal(PARAMS, f"agents call each other {MOST_DEEP} deep at most, and this would be {way}")
            response = await self._begun(manner, outer, call_id, text, sending)
            found = await self._ended(response, outer, seconds)
            if not manner.fresh and found["status"] == "completed":
                with contextlib.suppress(LedgerError):  # then the next call goes on from the answer before
                    await self._ledger.remember(manner.whose.session, manner.place, response)
            return found
        except ApiError as fault:
            _refused(fault)
        except LedgerError as fault:
            raise NothingSent("the ledger does not answer") from fault

    async def _begun(self, manner: Manner, outer: TurnRecord, call_id: str, text: str, sending: Sending) -> str:
        """The response of this call's turn, which is made where there is none."""
        caller = Principal(manner.tenant, str(outer.meta["user"]), scopes=frozenset({INVOKE}))
        key = call_id if manner.fresh else f"{manner.whose.session} {manner.place}"
        session = f"agent-{hashlib.sha256(key.encode()).hexdigest()[:58]}"
        place = await self._sessions.resolve(
            caller, manner.agent, session_id=session, previous_response_id=None, conversation=None
        )
        if "responses" not in place.entry.protocols:
            raise ToolRefusal(PARAMS, f"agent '{manner.agent}' does not serve responses")
        response = names.derived_response_id(place.partition, outer.response, call_id)
        await sending()
        if await self._turns.exists(response, tenant=manner.tenant):
            return response
        last = "" if manner.fresh else await self._ledger.last(manner.whose.session, manner.place)
        request = self._request(manner, outer, place, response, text)
        if last:
            try:
                return await self._turns.accept(caller, place, _after(request, last))
            except ApiError as fault:
                if fault.kind is not Kind.PREVIOUS_NOT_FOUND:  # deleted: a conversation begins anew
                    raise
        return await self._turns.accept(caller, place, request)

    def _request(self, manner: Manner, outer: TurnRecord, place: Place, response: str, text: str) -> TurnRequest:
        store, passed = bool(outer.meta.get("store", True)), dict(outer.meta.get("headers") or {})
        if manner.whose.traceparent:
            passed[TRACEPARENT] = manner.whose.traceparent
        body = {"model": place.agent} | ({"background": True} if store else {"store": False})
        return TurnRequest(
            response_id=response,
            body=body,
            input_items=conversation.with_ids(conversation.read_input(text, 1), response),
            stream=False,
            background=store,
            store=store,
            idempotency_key=None,
            retry_count=0,
            body_hash=response,
            headers=passed,
            trace_id=str(outer.meta["trace_id"]),
            created_at=self._clock.now_ms() // 1000,
            called_by={"response": outer.response, "agents": list(_chain(outer))},
        )

    async def _ended(self, response: str, outer: TurnRecord, seconds: float) -> dict[str, Any]:
        """Its end; it is stopped where it takes too long, or the calling turn runs no more."""
        tenant, deadline = str(outer.meta["tenant"]), self._clock.monotonic() + seconds
        waiting = asyncio.ensure_future(self._turns.wait(response, tenant=tenant))
        try:
            while not waiting.done():
                left = deadline - self._clock.monotonic()
                await asyncio.wait({waiting}, timeout=min(LOOK_S, max(0.0, left)))
                if waiting.done():
                    break
                late = self._clock.monotonic() >= deadline
                if late or await self._over(outer.response):
                    found = await self._turns.cancel(response, tenant=tenant)
                    if late and found["status"] == "cancelled":
                        raise ToolFault(f"it had not ended within {seconds:g} s and was stopped", sent=True, late=True)
                    return found
            return waiting.result()
        finally:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)

    async def _over(self, turn: str) -> bool:
        """Whether the calling turn has ended, or is being cancelled."""
        try:
            record = await self._turns.known(turn)
        except ApiError:
            return False
        return record is not None and (record.cancel or record.state in ENDED or record.state == "closing")


def _chain(outer: TurnRecord) -> tuple[str, ...]:
    """The agents from the first one called to the one that calls now."""
    above = outer.meta.get("called_by") or {}
    return (*above.get("agents", ()), str(outer.meta["agent"]))


def _after(request: TurnRequest, previous: str) -> TurnRequest:
    return TurnRequest(**{**vars(request), "body": request.body | {"previous_response_id": previous}})


def _refused(fault: ApiError) -> NoReturn:
    if fault.kind is Kind.UNAVAILABLE:
        raise NothingSent(fault.message) from fault
    raise ToolRefusal(PARAMS, fault.message) from fault
