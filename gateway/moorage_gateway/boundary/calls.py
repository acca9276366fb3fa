"""Calls of agents at the sandbox port (`moorage_api.wire.calls`): whose they are, then the journal. Layer: gateway, rim.

Whose it is, the ledger says in the script that permits the call: the sandbox that was proved holds that session with that epoch, and the
attempt is the one that runs. What the shim claims beyond that decides nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

from moorage_api.ledger.journal import Asking, Binding, Bounds
from moorage_api.ledger.progress import ProgressLedger
from moorage_api.ledger.script import LedgerError
from moorage_api.tokens import Identity
from moorage_api.wire import calls as wire
from moorage_api.wire.headers import TRACEPARENT
from moorage_gateway.catalog import Catalog
from moorage_gateway.journal.answers import Answer
from moorage_gateway.journal.flights import Broken, Flight
from moorage_gateway.journal.found import Stored
from moorage_gateway.journal.journaling import Journaling
from moorage_gateway.journal.kinds import Asked, CallRefused, Handed, Kinds, Performed, Report, is_rendering
from moorage_gateway.journal.refusals import Refused
from moorage_gateway.journal.seeing import Call
from moorage_gateway.routes.answers import exchange_of
from moorage_gateway.routes.departure import Departure

PEER_S = 30.0
"""For a shim to send the whole call."""

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = tuple[tuple[str, str], ...]

log = logging.getLogger(__name__)


class CallPort:
    """Serves calls. `most`: of one sandbox at a time."""

    def __init__(
        self, catalog: Catalog, kinds: Kinds, journaling: Journaling, progress: ProgressLedger, *, most: int
    ) -> None:
        self._catalog = catalog
        self._kinds = kinds
        self._journaling = journaling
        self._progress = progress
        self._most = most
        self._served: Counter[str] = Counter()

    async def __call__(self, who: Identity, scope: Any, receive: Receive, send: Send) -> None:
        """One call of an identified sandbox. An answer without an end ends the connection."""
        exchange = exchange_of(scope)
        try:
            await self._counted(who, scope, receive, send)
        except Broken as why:
            log.info("a call of %s/%s broke off: %s", who.tenant, who.agent, why)
            if exchange is None:
                raise
            if exchange.response_started:
                exchange.abort()
            else:
                await _say(send, 503, wire.AGAIN, "its answer broke off")

    async def _counted(self, who: Identity, scope: Any, receive: Receive, send: Send) -> None:
        if self._served[who.sandbox] >= self._most:
            await _say(send, 503, wire.AGAIN, f"this sandbox makes {self._most} calls at a time")
            return
        self._served[who.sandbox] += 1
        try:
            await self._serve(who, scope, receive, send)
        finally:
            self._served[who.sandbox] -= 1
            if not self._served[who.sandbox]:
                del self._served[who.sandbox]

    async def _serve(self, who: Identity, scope: Any, receive: Receive, send: Send) -> None:
        room = self._journaling.room
        body, taken = _Body(receive), 0
        try:
            async with asyncio.timeout(PEER_S):
                async for size in body.parts(wire.MAX_BODY + wire.MAX_HEAD):
                    if not room.take(size):
                        await _say(send, 503, wire.AGAIN, "this gateway holds as many calls as it can")
                        return
                    taken += size
            if not body.whole:
                await _say(send, 413, wire.NO, f"a call has at most {wire.MAX_BODY} bytes")
                return
            await self._called(who, body.take(), scope, receive, send)
        except TimeoutError:
            await _say(send, 408, wire.AGAIN, f"the call did not come within {PEER_S:.0f} s")
        finally:
            room.give(taken)

    async def _called(self, who: Identity, data: bytes, scope: Any, receive: Receive, send: Send) -> None:
        try:
            call, body = wire.Call.decode(data)
        except ValueError:
            await _say(send, 400, wire.NO, "the call is not one of `moorage_api.wire.calls`")
            return
        binding = Binding(who.sandbox, call.session, call.epoch, who.tenant, who.agent)
        if call.target == wire.PROGRESS:
            await self._progressed(binding, call, body, send)
            return
        kind, entry = self._kinds.of(call.target), self._catalog.get(who.tenant, who.agent)
        if kind is None or entry is None:
            what = "no such call" if kind is None else f"agent {who.agent} is not published"
            await _say(send, 404, wire.NO, what)
            return
        headers = tuple((n, v) for n, v in call.headers)
        asked = Asked(
            who.tenant, who.agent, entry.spec, call.method, call.target, headers, body, call.session, call.turn
        )
        try:
            prepared = kind.prepare(asked)
        except CallRefused as no:
            await _tell(send, no.answer, (wire.REFUSED, wire.NO))
            return
        async with Departure(scope, receive):
            await self._answer(binding, call, prepared, send)

    async def _progressed(self, binding: Binding, call: wire.Call, body: bytes, send: Send) -> None:
        """How far an attempt is: no call, so no journal."""
        try:
            said = wire.Progress.model_validate_json(body)
        except ValueError:
            await _say(send, 400, wire.NO, "progress is a text and a fraction, as `moorage.progress` sends them")
            return
        try:
            word = await self._progress.tell(binding, call.turn, call.begun, said)
        except LedgerError:
            await _say(send, 503, wire.AGAIN, "the ledger does not answer")
            return
        if word == "OK":
            await _tell(send, Answer(200, (("content-type", "application/json"),), b"{}"), (wire.ENTRY, "progress"))
        else:
            await _say(send, 409, wire.FENCED, "this attempt, or this sandbox, is no longer wanted")

    async def _answer(
        self, binding: Binding, call: wire.Call, prepared: Performed | Handed | Report, send: Send
    ) -> None:
        found: Flight | Stored | Refused
        trace = next((value for name, value in call.headers if name == TRACEPARENT), "")
        if isinstance(prepared, Report):
            asking = Asking(call.turn, call.begun, call.number, "", "once", call.resent, prepared.what)
            found = await self._journaling.report(binding, asking, prepared, trace)
        else:
            found = await self._journaling.ask(Call(binding, _asking(call, prepared), prepared, trace))
        render = prepared.shown if is_rendering(prepared) else _as_it_is
        match found:
            case Stored():
                mark = f"{found.entry} replayed" if found.replayed else found.entry
                await _tell(send, render(found.answer), (wire.ENTRY, mark))
            case Refused():
                answer = render(found.answer) if found.word == wire.NO else found.answer
                await _tell(send, answer, (wire.REFUSED, found.word))
            case Flight() if is_rendering(prepared):
                await _follow_whole(send, found, render)
            case Flight():
                await _follow(send, found)


def _asking(call: wire.Call, prepared: Performed | Handed) -> Asking:
    return Asking(
        call.turn,
        call.begun,
        call.number,
        prepared.fingerprint,
        prepared.permits,
        call.resent,
        prepared.what,
        prepared.bounded.bounds if prepared.bounded is not None else Bounds(),
        prepared.tool,
        prepared.call,
    )


def _as_it_is(answer: Answer) -> Answer:
    return answer


async def _follow_whole(send: Send, flight: Flight, render: Callable[[Answer], Answer]) -> None:
    if not await flight.head():
        assert flight.refusal is not None
        await _tell(send, flight.refusal, (wire.REFUSED, wire.AGAIN))
        return
    if not flight.over:
        async with contextlib.aclosing(flight.follow()) as pieces:
            async for _ in pieces:
                pass
    await _tell(send, render(flight.answer), (wire.ENTRY, flight.entry))


async def _follow(send: Send, flight: Flight) -> None:
    if not await flight.head():
        assert flight.refusal is not None
        await _tell(send, flight.refusal, (wire.REFUSED, wire.AGAIN))
        return
    if flight.over:
        # Not streamed, so nothing was seen of it before it was whole and recorded: one write, of a length that is known.
        await _tell(send, flight.answer, (wire.ENTRY, flight.entry))
        return
    await _start(send, flight.status, flight.headers, (wire.ENTRY, flight.entry))
    async with contextlib.aclosing(flight.follow()) as pieces:
        async for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


class _Body:
    """A request's body, read in pieces that are counted before they are kept."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._parts: list[bytes] = []
        self.whole = False

    async def parts(self, most: int) -> AsyncIterator[int]:
        """Sizes as they come; ends early, not `whole`, past `most`."""
        size = 0
        while True:
            message = await self._receive()
            if message["type"] != "http.request":
                return
            part = message.get("body", b"")
            size += len(part)
            if size > most:
                return
            yield len(part)
            self._parts.append(part)
            if not message.get("more_body"):
                self.whole = True
                return

    def take(self) -> bytes:
        """The body."""
        parts, self._parts = self._parts, []
        return b"".join(parts)


async def _say(send: Send, status: int, word: str, why: str) -> None:
    body = wire.Refusal(error=why).encode()
    head: Headers = (("content-type", "application/json"), ("retry-after", "1"))
    await _tell(send, Answer(status, head, body), (wire.REFUSED, word))


async def _tell(send: Send, answer: Answer, mark: tuple[str, str]) -> None:
    length = ("content-length", str(len(answer.body)))
    await _start(send, answer.status, (*answer.headers, length), mark)
    await send({"type": "http.response.body", "body": answer.body})


async def _start(send: Send, status: int, headers: Headers, mark: tuple[str, str]) -> None:
    head = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in (*headers, mark)]
    await send({"type": "http.response.start", "status": status, "headers": head})
