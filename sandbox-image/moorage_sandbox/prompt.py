"""What the agent is asked, and which headers pass: pure makers. Layer: rules, no I/O.

Source: hostedagent contract (protocols.md §3.3), the traps of §3.7. Headers of a turn pass by allow-list (T6).
"""

from __future__ import annotations

from typing import Any

import orjson

from moorage_api.wire import headers as names
from moorage_api.wire.http1 import Headers
from moorage_api.wire.shim import Bind, Start

PASSED = frozenset({"traceparent", "tracestate", "baggage", "x-request-id", "x-agent-foundry-call-id"})
_HOP_BY_HOP = frozenset(name.encode() for name in names.HOP_BY_HOP)
_NOT_FOR_AGENTS = frozenset(
    {
        names.SECRET.encode(),
        names.SESSION.encode(),
        names.EPOCH.encode(),
        names.RUN_SECONDS.encode(),
        names.AGENT_USER_ID.encode(),
        b"host",
        b"expect",
    }
)


def of_turn(start: Start, bound: Bind, port: int, contract: str) -> tuple[Headers, bytes]:
    """Headers and body of an attempt's request to the agent."""
    passed = {
        name.lower(): value
        for name, value in start.headers.items()
        if name.lower() in PASSED or name.lower().startswith(names.CLIENT_PREFIX)
    }
    fixed = {
        "host": f"127.0.0.1:{port}",
        "content-type": "application/json",
        "accept": "text/event-stream, application/json",
        "accept-encoding": "identity",
        names.AGENT_RESPONSE_ID: start.turn,
        names.AGENT_USER_ID: bound.user,
        names.SESSION: bound.session_id,
        names.EPOCH: str(bound.epoch),
        names.TURN: start.turn,
        names.ATTEMPT: str(start.attempt),
    }
    lines = [(name.encode(), value.encode()) for name, value in {**passed, **fixed}.items()]
    return lines, orjson.dumps(_body(start, contract))


def _body(start: Start, contract: str) -> dict[str, Any]:
    # `model` names the agent here; a hosted container would hand it on to its own model call (protocols.md §3.7).
    body = {name: value for name, value in start.body.items() if name != "model"}
    body["stream"] = True
    if contract == "moorage":
        body["moorage"] = {"history": start.history, "attempt": start.attempt}
    else:
        # Its own recovery would run the turn again beside ours (turns.md §3).
        body["background"] = False
    return body


def of_relay(headers: Headers, bound: Bind, port: int) -> Headers:
    """The headers of a relayed request as the agent gets them."""
    kept = [each for each in end_to_end(headers) if each[0] not in _NOT_FOR_AGENTS]
    return [
        (b"host", b"127.0.0.1:%d" % port),
        *kept,
        (names.SESSION.encode(), bound.session_id.encode()),
        (names.EPOCH.encode(), str(bound.epoch).encode()),
        (names.AGENT_USER_ID.encode(), bound.user.encode()),
    ]


def end_to_end(headers: Headers) -> Headers:
    """Without what belongs to one hop: the fixed names, and those that `connection` lists."""
    listed = {token.strip().lower() for name, value in headers if name == b"connection" for token in value.split(b",")}
    return [each for each in headers if each[0] not in _HOP_BY_HOP and each[0] not in listed]
