"""Calls of the agent past the boundary: numbered, proved, sent to a gateway, and sent again when that one dies (turns.md §6).

Layer: I/O rim. The agent's stock client speaks to the door; here its request gets the attempt's next number and goes to the gateway that
answered last. Whether the call is made, waited for or answered from the journal is the gateway's to say. A request that is identical to one
whose asker left before the head of its answer gets that one's number: clients retry so.

    an answer begins, and ends      → passed on as it comes
    nothing of it came              → sent again under its number
    it began, and breaks off        → the attempt is ended before the agent sees the break; outside of an attempt the break is passed on

What the agent says of its progress is no call: it is answered here, and the newest is told to a gateway.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable, Sequence

import orjson

from moorage_api.wire import calls as wire
from moorage_api.wire.headers import TRACEPARENT
from moorage_api.wire.hop import HopError, HopPool, HopResponse
from moorage_api.wire.http1 import Headers
from moorage_sandbox.clock import Clock
from moorage_sandbox.config import Limits
from moorage_sandbox.errors import NoProof
from moorage_sandbox.newest import Newest
from moorage_sandbox.prompt import end_to_end
from moorage_sandbox.proof import Proof
from moorage_sandbox.server import Answer, Request
from moorage_sandbox.shim import Shim

CONNECT_S = 3.0
PROGRESS_S = 5.0
"""For a gateway to take how far the agent is."""
PAUSE_FIRST = 0.1
PAUSE_LAST = 2.0
MOST_LEFT = 64
"""Requests of an attempt whose askers left that are remembered."""
_TRACE = len("00-") + 32
"""Characters of a traceparent up to the end of its trace id."""
_HERE = re.compile(rb"(127\.0\.0\.1|localhost|\[::1\])(:[0-9]{1,5})?\Z", re.IGNORECASE)
_MARKS = frozenset({wire.ENTRY.encode(), wire.REFUSED.encode()})


class _Numbers:
    """The numbers of one attempt's requests."""

    def __init__(self, begun: int) -> None:
        self.begun = begun
        self._last = 0
        self._left: dict[bytes, list[int]] = {}

    def of(self, digest: bytes) -> tuple[int, bool]:
        """The number of a request, and whether it was sent before."""
        numbers = self._left.get(digest)
        if numbers:
            number = numbers.pop(0)
            if not numbers:
                del self._left[digest]
            return number, True
        self._last += 1
        return self._last, False

    def left(self, digest: bytes, number: int) -> None:
        """Its asker left before the head of the answer."""
        if len(self._left) < MOST_LEFT or digest in self._left:
            self._left.setdefault(digest, []).append(number)


class Boundary:
    """Serves the agent's requests to its door. `gateways` are those known, the one that answered last first."""

    def __init__(
        self,
        shim: Shim,
        gateways: Callable[[], Sequence[str]],
        proof: Proof,
        clock: Clock,
        limits: Limits,
        *,
        note: Callable[[str], None],
    ) -> None:
        self._shim = shim
        self._gateways = gateways
        self._proof = proof
        self._clock = clock
        self._limits = limits
        self._note = note
        self._pool = HopPool(max_idle=8)
        self._numbers = _Numbers(0)
        self._room = limits.call_room
        self._progress: Newest[tuple[wire.Call, bytes]] = Newest(self._told)

    async def close(self) -> None:
        """Lets go of the connections."""
        await self._progress.close()
        await self._pool.close()

    async def handle(self, request: Request, answer: Answer) -> None:
        """One request. Without an end of its answer the connection is broken off."""
        if not request.path.startswith(wire.KINDS):
            where = b"models are at /models/ENDPOINT/, tools at /toolboxes/NAME/mcp"
            answer.send(404, b"nothing here: this is a proxy, and " + where, b"text/plain")
            return
        if request.path == wire.PROGRESS:
            self._said(await request.read(wire.MAX_PROGRESS), answer)
            return
        if request.path.startswith(wire.TOOLBOXES) and from_elsewhere(request.headers):
            _say(answer, 403, "forbidden", "A page of another site may not use the tools of this sandbox.")
            return
        body = await request.read(min(wire.MAX_BODY, max(0, self._room)))
        self._room -= len(body)
        try:
            await self._serve(request, body, answer)
        finally:
            self._room += len(body)

    async def _serve(self, request: Request, body: bytes, answer: Answer) -> None:
        place = self._shim.calling()
        if place is None:
            _say(answer, 503, "unbound", "This sandbox serves no session yet: call within a turn.")
            return
        bound, turn, begun = place
        if begun != self._numbers.begun:
            self._numbers = _Numbers(begun)
        numbers, target = self._numbers, f"{request.path}?{request.query}" if request.query else request.path
        digest = _digest(request.method, target, body)
        number, resent = numbers.of(digest) if begun else (0, False)
        try:
            call = wire.Call(
                session=bound.session, epoch=bound.epoch, turn=turn, begun=begun, number=number, resent=resent,
                method=request.method, target=target, headers=_passed(request.headers, self._shim.trace_of(begun)),
            )  # fmt: skip
        except ValueError:
            _say(answer, 400, "invalid_request", f"A method of 16 letters and a target of {4096} are the most.")
            return
        try:
            await self._sent(call, body, answer)
        except asyncio.CancelledError:
            if not answer.started and begun:
                numbers.left(digest, number)
            raise

    def _said(self, body: bytes, answer: Answer) -> None:
        """How far the agent is; outside of an attempt nobody asks."""
        place = self._shim.calling()
        if place is not None and place[2]:
            bound, turn, begun = place
            call = wire.Call(
                session=bound.session, epoch=bound.epoch, turn=turn, begun=begun, method="POST", target=wire.PROGRESS
            )
            self._progress.put((call, body))
        answer.send(202, b"{}")

    async def _told(self, word: tuple[wire.Call, bytes]) -> bool:
        """Whether a gateway has taken it, or will not take it any more."""
        call, body = word
        for gateway in list(self._gateways()):
            try:
                head = [*self._proof.headers(b"authorization"), (b"content-type", b"application/octet-stream")]
                response = await self._pool.request(
                    gateway, "POST", wire.PATH, head, call.encode(body), connect_timeout=CONNECT_S, head_timeout=PROGRESS_S,
                    retry_stale=True,
                )  # fmt: skip
                async with response:
                    if (response.header(wire.REFUSED.encode()) or b"").decode() != wire.AGAIN:
                        return True
            except (HopError, NoProof):
                continue
        return not self._wanted(call)

    async def _sent(self, call: wire.Call, body: bytes, answer: Answer) -> None:
        """To one gateway after the other until an answer has come whole."""
        until, pause, noted = self._clock.now() + self._limits.call, PAUSE_FIRST, ""
        while self._clock.now() < until:
            for gateway in list(self._gateways()):
                if not self._wanted(call):
                    return  # the answer is nobody's any more
                try:
                    done = await self._try(gateway, call, body, answer)
                except NoProof as fault:
                    noted = self._note_once(f"no call to a gateway: {fault}", noted)
                    break
                except HopError as fault:
                    noted = self._note_once(f"a gateway did not answer a call: {fault}", noted)
                    done, sent = False, fault.sent
                else:
                    sent = True
                if done:
                    return
                if sent:
                    call = call.model_copy(update={"resent": True})
            await asyncio.sleep(pause)
            pause = min(2 * pause, PAUSE_LAST)
        _say(answer, 504, "unavailable", "No gateway of the platform has answered this call in time.")

    def _wanted(self, call: wire.Call) -> bool:
        place = self._shim.calling()
        return place is not None and (not call.begun or place[2] == call.begun)

    def _note_once(self, text: str, noted: str) -> str:
        if text != noted:
            self._note(text)
        return text

    async def _try(self, gateway: str, call: wire.Call, body: bytes, answer: Answer) -> bool:
        """One gateway. False: nothing of an answer came, ask again. Raises HopError, NoProof."""
        head = [*self._proof.headers(b"authorization"), (b"content-type", b"application/octet-stream")]
        response = await self._pool.request(
            gateway, "POST", wire.PATH, head, call.encode(body), connect_timeout=CONNECT_S, head_timeout=self._limits.call,
            retry_stale=False,
        )  # fmt: skip
        async with response:
            refused = (response.header(wire.REFUSED.encode()) or b"").decode()
            if refused == wire.AGAIN or (not refused and response.header(wire.ENTRY.encode()) is None):
                return False  # or it is no answer of a gateway's at all
            if refused == wire.FENCED:
                return True
            return await self._pass_on(response, call, answer)

    async def _pass_on(self, response: HopResponse, call: wire.Call, answer: Answer) -> bool:
        first = await response.next_chunk()
        kept = [each for each in end_to_end(response.headers) if each[0] not in _MARKS]
        answer.start(response.status, kept)
        piece = first
        try:
            while True:
                if response.exhausted:
                    answer.end(piece)
                    return True
                if not answer.write(piece):
                    await answer.drain()
                piece = await response.next_chunk()
        except HopError as fault:
            self._note(f"an answer broke off after its beginning was passed on: {fault}")
            if call.begun and self._shim.break_off(
                call.begun, f"an answer of {call.target.partition('?')[0]} broke off"
            ):
                # The agent is killed now, and with it this connection: it must not see the break before.
                await asyncio.sleep(self._limits.killall)
            return True


def from_elsewhere(headers: Headers) -> bool:
    """Whether a page in a browser inside the sandbox asks, whose name somebody pointed here (MCP: servers check Origin and Host)."""
    hosts = [value for name, value in headers if name == b"host"]
    origins = [value.partition(b"://")[2] for name, value in headers if name == b"origin"]
    return any(_HERE.match(value) is None for value in (*hosts, *origins))


def _digest(method: str, target: str, body: bytes) -> bytes:
    """What makes two requests of an attempt identical. A client of tools that asks again takes a new id and a new progress token."""
    if target.startswith(wire.TOOLBOXES):
        try:
            said = orjson.loads(body)
        except orjson.JSONDecodeError:
            said = None
        if isinstance(said, dict) and "id" in said:
            params = said.get("params")
            if isinstance(params, dict):
                params.pop("_meta", None)
            del said["id"]
            body = orjson.dumps(said, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(f"{method} {target}\n".encode() + body).digest()


def _passed(headers: Headers, attempt: str) -> list[tuple[str, str]]:
    """What of the request's head goes along. Its place in a trace is the attempt's, unless the agent names one below that (same trace)."""
    found = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
    kept = [each for each in found if each[0] in wire.PASSED and len(each[1]) <= wire.MAX_HEADER]
    if attempt:
        own = [each for each in kept if each[0] != TRACEPARENT or each[1][:_TRACE] == attempt[:_TRACE]]
        kept = own if any(name == TRACEPARENT for name, _ in own) else [(TRACEPARENT, attempt), *own]
    return kept[: wire.MAX_HEADERS]


def _say(answer: Answer, status: int, code: str, message: str) -> None:
    kind = "server_error" if status >= 500 else "invalid_request_error"
    answer.send(status, orjson.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}}))
