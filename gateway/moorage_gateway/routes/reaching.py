"""One request brought to the agent of a session: a route is tried anew only while nothing has reached an agent. Layer: gateway, rim.

Called by `routes/invocations.py` for callers, and by `routines/sending.py` for runs. The hot path of the relay goals: no model, no log
call, no Redis command on a route hit.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Protocol

from moorage_api.errors import ApiError, Kind
from moorage_api.wire import headers as wire
from moorage_api.wire.hop import HopError, HopPool, HopResponse, HopTimeout
from moorage_gateway.activation import Wanted
from moorage_gateway.clock import Clock
from moorage_gateway.routes import answers, relaying
from moorage_gateway.routes.doors import ActivationDoor
from moorage_gateway.sessions import Place
from moorage_gateway.upstream import Route

TRIES = 4  # routes tried while nothing has reached an agent
_SESSION, _EPOCH, _SECRET = wire.SESSION.encode(), wire.EPOCH.encode(), wire.SECRET.encode()


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


class Read:
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


class Upload:
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


@dataclass(frozen=True, slots=True)
class Asked:
    """What is sent down: `target` below the shim's relay, and every header but those of a route. `again`: over a new connection too, where
    a kept one died before it answered."""

    method: str
    target: str
    lines: relaying.Headers
    body: bytes | Upload
    again: bool = True


class Reaching:
    """Finds the session's route, sends, and tells the agent's answer from a shim's refusal."""

    def __init__(self, activation: ActivationDoor, hop: HopPool, clock: Clock, limits: RelayLimits) -> None:
        self._activation = activation
        self._hop = hop
        self._clock = clock
        self._limits = limits

    async def answer(self, place: Place, asked: Asked) -> Answer:
        """The agent's answer, its body still coming. Raises ApiError: AGENT_FAILED and GATEWAY_TIMEOUT where the agent may have acted."""
        key, dead_epoch = place.session_key, 0
        deadline = self._clock.monotonic() + self._limits.acquire_seconds
        refused = relaying.Refused("draining")
        for _ in range(TRIES):
            wanted = Wanted(key, place.identity, named=not place.is_new, dead_epoch=dead_epoch)
            route = await self._activation.acquire(wanted, deadline=deadline)
            try:
                response = await self._send(route, asked)
            except HopError as error:
                await self._lost(route, error, asked.body)
                dead_epoch = route.epoch
                continue
            if not relaying.may_be_refusal(response.status, response.headers):
                return response
            found = await self._read_refusal(response)
            if not isinstance(found, relaying.Refused):
                return found
            refused = found
            self._activation.forget(key)
            if not refused.elsewhere or (isinstance(asked.body, Upload) and asked.body.touched):
                break
        raise refused.error()

    async def _lost(self, route: Route, error: HopError, body: bytes | Upload) -> None:
        """Returns when another route may be tried; raises ApiError when the agent may have seen the request."""
        if isinstance(body, Upload) and body.error is not None:
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

    async def _send(self, route: Route, asked: Asked) -> HopResponse:
        body = asked.body
        return await self._hop.request(
            route.endpoint,
            asked.method,
            asked.target,
            [
                *asked.lines,
                (_SECRET, route.secret.encode()),
                (_SESSION, route.session_key.encode()),
                (_EPOCH, b"%d" % route.epoch),
            ],
            (body or None) if isinstance(body, bytes) else body.pieces(),
            connect_timeout=self._limits.connect_seconds,
            head_timeout=self._limits.head_seconds,
            retry_stale=asked.again,
        )

    async def _read_refusal(self, response: HopResponse) -> relaying.Refused | Answer:
        """The shim's refusal, or else the agent's own short answer, which was read to tell."""
        try:
            body = await response.read(relaying.REFUSAL_BYTES, idle=self._limits.connect_seconds)
        except HopError as error:
            raise ApiError(Kind.AGENT_FAILED, "The agent's answer broke off.") from error
        finally:
            await response.aclose()
        return relaying.read_refusal(body) or Read(response.status, response.headers, body)
