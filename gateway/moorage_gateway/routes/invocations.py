"""Invocations: any method, body and content type straight to the agent and back, a piece at a time. Layer: gateway, rim.

Called by the dispatcher with a classified Route and a verified caller. The hot path of the relay goals: no model, no log call, no
Redis command on a route hit, one write per piece. What the caller began is cancelled upstream as soon as the caller leaves.
"""

from __future__ import annotations

import re
from typing import Any

from moorage_api.errors import ApiError, Kind
from moorage_api.wire import headers as wire
from moorage_api.wire.hop import HopError, HopPool
from moorage_gateway import facts, inbound
from moorage_gateway.clock import Clock
from moorage_gateway.inbound import Route as Address
from moorage_gateway.routes import answers, relaying
from moorage_gateway.routes.departure import Departure
from moorage_gateway.routes.doors import ActivationDoor, SessionDoor
from moorage_gateway.routes.reaching import Answer, Asked, Reaching, RelayLimits, Upload
from moorage_gateway.sessions import Place

_INVOCATION = re.compile(rb"[A-Za-z0-9_.:-]{1,256}\Z")
_USER, _SESSION_ID = wire.AGENT_USER_ID.encode(), wire.AGENT_SESSION_ID.encode()
_INVOCATION_ID, _REQUEST_ID = wire.AGENT_INVOCATION_ID.encode(), wire.REQUEST_ID.encode()
_TRACEPARENT = wire.TRACEPARENT.encode()


class Invocations:
    """Serves the operation `invoke`."""

    def __init__(
        self, activation: ActivationDoor, sessions: SessionDoor, hop: HopPool, clock: Clock, limits: RelayLimits
    ) -> None:
        self._sessions = sessions
        self._limits = limits
        self._reaching = Reaching(activation, hop, clock, limits)

    async def __call__(self, address: Address, scope: Any, receive: Any, send: Any) -> None:
        """Relays one call. Raises ApiError before the answer has begun; afterwards a break aborts the connection."""
        known = facts.of(scope)
        answers.check_announced(scope, self._limits.body_bytes)
        place = await self._sessions.resolve(
            known.principal,
            address.agent or "",
            session_id=address.session_id,
            previous_response_id=None,
            conversation=None,
        )
        known.agent, known.session_id = place.agent, place.session_id
        if "invocations" not in place.entry.protocols:
            raise ApiError(Kind.NOT_FOUND, f"Agent {place.agent} does not serve invocations; see GET /v1/agents.")
        first = await receive()
        if first["type"] == "http.disconnect":
            raise answers.CallerLeft
        body: bytes | Upload = first.get("body", b"")
        if first.get("more_body", False):
            body = Upload(first.get("body", b""), receive, self._limits.body_bytes)
        async with Departure(scope, receive, body_read=isinstance(body, bytes)) as caller:
            await self._relay(address, place, scope, body, send)
        if caller.left:
            raise answers.CallerLeft

    async def _relay(self, address: Address, place: Place, scope: Any, body: bytes | Upload, send: Any) -> None:
        known = facts.of(scope)
        given = inbound.find(scope["headers"], _INVOCATION_ID)
        if given is None or _INVOCATION.match(given) is None:
            given = (
                b"inv_" + known.traceparent[3:52].replace("-", "").encode()
            )  # trace and span: as unique as the request
        own = [(_SESSION_ID, place.session_id.encode()), (_INVOCATION_ID, given)]
        try:
            response = await self._reaching.answer(place, self._asked(address, place, scope, body, given))
        except ApiError as error:
            known.error = error.kind.value
            await answers.send_error(send, error, own)
            return
        try:
            await self._pass_up(response, own, send)
        except HopError as error:
            # The head is gone already: break off visibly, so that nobody takes a part for the whole.
            known.error = "agent_cut"
            exchange = answers.exchange_of(scope)
            if exchange is None:
                raise ApiError(Kind.AGENT_FAILED, f"The agent's answer broke off: {error}") from error
            exchange.abort()
        finally:
            await response.aclose()

    def _asked(self, address: Address, place: Place, scope: Any, body: bytes | Upload, invocation: bytes) -> Asked:
        known = facts.of(scope)
        lines = relaying.down(scope["headers"])
        lines += [
            (_USER, place.user.encode()),
            (_SESSION_ID, place.session_id.encode()),
            (_INVOCATION_ID, invocation),
            (_REQUEST_ID, known.request_id.encode()),
            (_TRACEPARENT, known.traceparent.encode()),
        ]
        target = f"/relay/invocations{address.tail}"
        if address.query:
            target = f"{target}?{address.query.decode('ascii')}"
        return Asked(scope["method"], target, lines, body)

    async def _pass_up(self, response: Answer, own: relaying.Headers, send: Any) -> None:
        """Head, then each piece as it comes, one write each; the last piece ends the answer."""
        lines = relaying.up(response.headers)
        lines += own
        lines.append((b"x-accel-buffering", b"no"))
        await send({"type": "http.response.start", "status": response.status, "headers": lines})
        while True:
            piece = await response.next_chunk(idle=self._limits.idle_seconds)
            ended = not piece or response.exhausted
            await send({"type": "http.response.body", "body": piece, "more_body": not ended})
            if ended:
                return
