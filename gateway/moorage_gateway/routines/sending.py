"""A run's invocation: one POST to the agent in the routine's session, and what it answers. Layer: gateway.

The request is sent again only while nothing of it has reached an agent. What comes of the answer is kept as it comes, so that one that is
broken off has said something.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from urllib.parse import quote

import orjson

from moorage_api import templates
from moorage_api.errors import ApiError, Kind
from moorage_api.ledger.script import LedgerError
from moorage_api.wire import headers as wire
from moorage_api.wire.hop import HopError
from moorage_gateway.clock import Clock
from moorage_gateway.routes.reaching import Answer, Asked, Reaching
from moorage_gateway.routines.invocations import INTERRUPTED, Invocation
from moorage_gateway.routines.known import Known
from moorage_gateway.routines.running import known_of, refused, shown, trace_of
from moorage_gateway.routines.state import MOST_TEXT, Run, State
from moorage_gateway.sessions import Place
from moorage_gateway.store import StoreUnavailable

MOST_BODY = 1024 * 1024
"""Bytes of a body whose places are filled: what an input may have."""
MOST_HEARD = 4 * MOST_TEXT
"""Bytes of an answer that are kept: a character of UTF-8 has up to four. The rest is read and dropped."""
MOST_SAID = 500
"""Characters of an answer in an error, and of the error that a further try is told of in a header."""
AGAIN_S = 2.0
"""Until an agent that could not be reached is tried again."""
PATIENCE_S = 300.0
"""For an agent that cannot be reached: a node may have to come first. An agent that never starts says why after this, and not at the end of
a long run's time."""
LATER_S = 60
"""After the run's own time the shim would give up, which does not end the agent as its caller's leaving does."""
_MAY_HAVE_ACTED = frozenset({Kind.AGENT_FAILED, Kind.GATEWAY_TIMEOUT})


@dataclass
class Heard:
    """What has come of an answer so far."""

    status: int = 0
    data: bytes = b""

    @property
    def text(self) -> str:
        """As people and templates read it."""
        return self.data.decode("utf-8", "replace")[:MOST_TEXT]


def body_of(known: Known, state: State, run: Run) -> bytes:
    """The body with its places filled. Raises ApiError for one that has become too large."""
    filled = templates.filled(known.spec.body or {}, known_of(known, state.last, run))
    data = orjson.dumps(filled)
    if len(data) > MOST_BODY:
        raise ApiError(
            Kind.INVALID_REQUEST, f"spec.body is larger than {MOST_BODY // 1024} KiB with its places filled."
        )
    return data


def asked_of(tenant: str, known: Known, run: Run, place: Place, invocation: str, body: bytes) -> Asked:
    """The request: the headers that a caller's has, and what names the run."""
    trace = trace_of(tenant, run.id)
    lines = {
        "content-type": "application/json",
        "accept": "*/*",
        wire.AGENT_USER_ID: place.user,
        wire.AGENT_SESSION_ID: place.session_id,
        wire.AGENT_INVOCATION_ID: invocation,
        wire.REQUEST_ID: invocation,
        wire.TRACEPARENT: f"00-{trace}-{trace[16:]}-01",
        wire.RUN_SECONDS: str(known.spec.timeout_minutes * 60 + LATER_S),
        f"{wire.CLIENT_PREFIX}routine": known.name,
        f"{wire.CLIENT_PREFIX}routine-run": run.id,
        f"{wire.CLIENT_PREFIX}routine-try": str(run.number),
        f"{wire.CLIENT_PREFIX}routine-due": shown(run.slot),
    }
    if run.number > 1:  # percent-encoded, since an agent's own words may hold anything
        lines[f"{wire.CLIENT_PREFIX}routine-failed"] = quote(run.error[:MOST_SAID], safe=" ,.:;()'")
    encoded = [(name.encode(), value.encode()) for name, value in lines.items()]
    return Asked("POST", "/relay/invocations", encoded, body, again=False)


async def send(reaching: Reaching, clock: Clock, place: Place, asked: Asked, run: Run, heard: Heard) -> Invocation:
    """How it ended; its caller says how long that may take."""
    until = clock.monotonic() + PATIENCE_S
    while True:
        try:
            answer = await reaching.answer(place, asked)
        except ApiError as fault:
            if fault.kind in _MAY_HAVE_ACTED:
                return _ended(run, heard, f"{INTERRUPTED}: {fault.message}")
            why, final = fault.message, refused(fault) and fault.kind is not Kind.SESSION_NOT_READY
        except (LedgerError, StoreUnavailable):  # of finding the session's sandbox
            why, final = "the platform's storage does not answer", False
        else:
            return await _heard(answer, run, heard)
        if final or clock.monotonic() >= until:
            return _ended(run, heard, why)
        await clock.sleep(AGAIN_S)


async def _heard(answer: Answer, run: Run, heard: Heard) -> Invocation:
    try:
        await _read(answer, heard)
    except HopError:
        return _ended(run, heard, f"{INTERRUPTED}: the agent's answer broke off")
    finally:
        await answer.aclose()
    if 200 <= heard.status < 300:
        return Invocation(run.id, run.number, "completed", heard.text)
    return _ended(run, heard, f"it answered {heard.status}: {heard.text[:MOST_SAID]}")


async def _read(answer: Answer, heard: Heard) -> None:
    heard.status = answer.status
    while True:
        piece = await answer.next_chunk()
        heard.data += piece[: MOST_HEARD - len(heard.data)]
        if not piece or answer.exhausted:
            return


def _ended(run: Run, heard: Heard, error: str) -> Invocation:
    return Invocation(run.id, run.number, "failed", heard.text, error[:MOST_TEXT])


async def until_over(call: asyncio.Task[Invocation]) -> None:
    """Breaks it off; the agent learns that its caller left."""
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
