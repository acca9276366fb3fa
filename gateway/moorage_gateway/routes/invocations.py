"""Invocations: any method, body and content type straight to the agent and back, a piece at a time. Layer: gateway, rim.

Called by the dispatcher with a classified Route and a verified caller. The hot path of the relay goals: no model, no log call, no
Redis command on a route hit, one write per piece. What the caller began is cancelled upstream as soon as the caller leaves.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Protocol

from moorage_api.errors import ApiError, Kind
from moorage_api.wire import headers as wire
from moorage_api.wire.hop import HopError, HopPool, HopResponse, HopTimeout
from moorage_gateway import facts, inbound
from moorage_gateway.activation import Wanted
from moorage_gateway.clock import Clock
from moorage_gateway.inbound import Route as Address
from moorage_gateway.routes import answers, relaying
from moorage_gateway.routes.departure import Departure
from moorage_gateway.routes.doors import ActivationDoor, SessionDoor
from moorage_gateway.sessions import Place
from moorage_gateway.upstream import Route

TRIES = 4  # routes tried while nothing has reached an agent
_INVOCATION = re.compile(rb"[A-Za-z0-9_.:-]{1,256}\Z")
_SESSION, _EPOCH, _SECRET = wire.SESSION.encode(), wire.EPOCH.encode(), wire.SECRET.encode()
_USER, _SESSION_ID = wire.AGENT_USER_ID.encode(), wire.AGENT_SESSION_ID.encode()
_INVOCATION_ID, _REQUEST_ID = wire.AGENT_INVOCATION_ID.encode(), wire.REQUEST_ID.encode()
_TRACEPARENT = wire.TRACEPARENT.encode()


@dataclass(frozen=True)
class RelayLimits:
    """Bounds of a relayed call; bytes and seconds, see `settings.py`."""

    body_bytes: int
    acquire_seconds: float
    connect_seconds: float
    head_seconds: float
    idle_seconds: float


class Answer(Protocol):
    """An agent's answer on its way up."""

    status: int
    headers: relaying.Headers

    @property
    def exhausted(self) -> bool:
        """Nothing follows."""

    async def next_chunk(self, *, idle: float | None = None) -> bytes:
        """The next piece, empty at the end."""

    async def aclose(self) -> None:
        """Ends the exchange."""


class _Read:
    """An answer whose body was read already."""

    exhausted = True

    def __init__(self, status: int, headers: relaying.Headers, body: bytes) -> None:
        self.status = status
        self.headers = headers
        self._body = body

    async def next_chunk(self, *, idle: float | None = None) -> bytes:
        """The whole body."""
        return self._body

    async def aclose(self) -> None:
        """Nothing is open."""


class _Upload:
    """A body on its way down. `error` says why it broke off, since the hop only knows that it did."""

    def __init__(self, first: bytes, receive: Any, limit: int) -> None:
        self.touched = False
        self.error: Exception | None = None
        self._first = first
        self._receive = receive
        self._limit = limit

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body as it comes. Raises CallerLeft or ApiError; a body that breaks off must never look complete."""
        size, piece, more = 0, self._first, True
        while True:
            self.touched = True
            size += len(piece)
            if size > self._limit:
                self.error = answers.too_large(self._limit)
                raise self.error
            if piece:
                yield piece
            if not more:
                return
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self.error = answers.CallerLeft()
                raise self.error
            piece, more = message.get("body", b""), message.get("more_body", False)


class Invocations:
    """Serves the operation `invoke`."""

    def __init__(
        self, activation: ActivationDoor, sessions: SessionDoor, hop: HopPool, clock: Clock, limits: RelayLimits
    ) -> None:
        self._activation = activation
        self._sessions = sessions
        self._hop = hop
        self._clock = clock
        self._limits = limits

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
        body: bytes | _Upload = first.get("body", b"")
        if first.get("more_body", False):
            body = _Upload(first.get("body", b""), receive, self._limits.body_bytes)
        async with Departure(scope, receive, body_read=isinstance(body, bytes)) as caller:
            await self._relay(address, place, scope, body, send)
        if caller.left:
            raise answers.CallerLeft

    async def _relay(self, address: Address, place: Place, scope: Any, body: bytes | _Upload, send: Any) -> None:
        known = facts.of(scope)
        given = inbound.find(scope["headers"], _INVOCATION_ID)
        if given is None or _INVOCATION.match(given) is None:
            given = (
                b"inv_" + known.traceparent[3:52].replace("-", "").encode()
            )  # trace and span: as unique as the request
        own = [(_SESSION_ID, place.session_id.encode()), (_INVOCATION_ID, given)]
        try:
            response = await self._reach(address, place, scope, body, given)
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

    async def _reach(
        self, address: Address, place: Place, scope: Any, body: bytes | _Upload, invocation: bytes
    ) -> Answer:
        """The agent's answer, its body still coming. A route is tried anew only while nothing has reached an agent."""
        key, dead_epoch = place.session_key, 0
        deadline = self._clock.monotonic() + self._limits.acquire_seconds
        refused = relaying.Refused("draining")
        for _ in range(TRIES):
            wanted = Wanted(key, place.identity, named=not place.is_new, dead_epoch=dead_epoch)
            route = await self._activation.acquire(wanted, deadline=deadline)
            try:
                response = await self._send(address, place, route, scope, body, invocation)
            except HopError as error:
                await self._lost(route, error, body)
                dead_epoch = route.epoch
                continue
            if not relaying.may_be_refusal(response.status, response.headers):
                return response
            found = await self._read_refusal(response)
            if not isinstance(found, relaying.Refused):
                return found
            refused = found
            self._activation.forget(key)
            if not refused.elsewhere or (isinstance(body, _Upload) and body.touched):
                break
        raise refused.error()

    async def _lost(self, route: Route, error: HopError, body: bytes | _Upload) -> None:
        """Returns when another route may be tried; raises ApiError when the agent may have seen the request."""
        if isinstance(body, _Upload) and body.error is not None:
            raise body.error from error
        self._activation.forget(route.session_key)
        if error.sent:
            if isinstance(error, HopTimeout):
                raise ApiError(Kind.GATEWAY_TIMEOUT, "The agent did not begin to answer in time.") from error
            raise ApiError(Kind.AGENT_FAILED, "The agent went away before it answered; it may have acted.") from error
        if isinstance(error, HopTimeout):
            raise ApiError(Kind.UNAVAILABLE, "The sandbox takes no more connections.", retry_after=1) from error
        if not isinstance(error.__cause__, OSError):
            raise ApiError(Kind.INVALID_REQUEST, "The request cannot be passed on as it is.") from error
        await self._activation.lost(route, f"relay: {error}")

    async def _send(
        self, address: Address, place: Place, route: Route, scope: Any, body: bytes | _Upload, invocation: bytes
    ) -> HopResponse:
        known = facts.of(scope)
        lines = relaying.down(scope["headers"])
        lines += [
            (_SECRET, route.secret.encode()),
            (_SESSION, route.session_key.encode()),
            (_EPOCH, b"%d" % route.epoch),
            (_USER, place.user.encode()),
            (_SESSION_ID, place.session_id.encode()),
            (_INVOCATION_ID, invocation),
            (_REQUEST_ID, known.request_id.encode()),
            (_TRACEPARENT, known.traceparent.encode()),
        ]
        target = f"/relay/invocations{address.tail}"
        if address.query:
            target = f"{target}?{address.query.decode('ascii')}"
        return await self._hop.request(
            route.endpoint,
            scope["method"],
            target,
            lines,
            (body or None) if isinstance(body, bytes) else body.pieces(),
            connect_timeout=self._limits.connect_seconds,
            head_timeout=self._limits.head_seconds,
            retry_stale=True,
        )

    async def _read_refusal(self, response: HopResponse) -> relaying.Refused | Answer:
        """The shim's refusal, or else the agent's own short answer, which was read to tell."""
        try:
            body = await response.read(relaying.REFUSAL_BYTES, idle=self._limits.connect_seconds)
        except HopError as error:
            raise ApiError(Kind.AGENT_FAILED, "The agent's answer broke off.") from error
        finally:
            await response.aclose()
        return relaying.read_refusal(body) or _Read(response.status, response.headers, body)

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
