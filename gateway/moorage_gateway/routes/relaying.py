"""Rules of the relay: which headers pass between caller and agent, and what a shim's refusal means. Layer: rules, no I/O.

Called by `routes/invocations.py` on the hottest path, so lookups are sets of bytes and nothing is decoded that need not be.
"""

from __future__ import annotations

from dataclasses import dataclass

import orjson

from moorage_api.errors import ApiError, Kind
from moorage_api.wire import headers as wire

Headers = list[tuple[bytes, bytes]]

REFUSAL = b"x-moorage-refusal"  # marks an answer as the shim's own
_ANSWERED = wire.ANSWERED.encode()
REFUSAL_BYTES = 64 * 1024
LOG_LINES, LOG_LINE = 8, 400

# To the agent, by allow-list: nothing that identifies the caller, routes, or speaks to a hop.
_DOWN = frozenset(
    {
        b"accept",
        b"accept-encoding",
        b"accept-language",
        b"content-disposition",
        b"content-encoding",
        b"content-language",
        b"content-length",
        b"content-type",
        b"if-match",
        b"if-modified-since",
        b"if-none-match",
        b"if-unmodified-since",
        b"last-event-id",
        b"range",
        b"tracestate",
        b"user-agent",
        b"x-ms-client-request-id",
    }
)
_CLIENT = wire.CLIENT_PREFIX.encode()
# To the caller everything passes but what belongs to a hop, to us, or to the whole site behind our address.
_NOT_UP = frozenset(name.encode() for name in wire.HOP_BY_HOP) | {
    b"server",
    b"date",
    b"set-cookie",
    b"clear-site-data",
    b"strict-transport-security",
    b"alt-svc",
    b"x-request-id",
    b"x-accel-buffering",
    wire.AGENT_SESSION_ID.encode(),
    wire.AGENT_INVOCATION_ID.encode(),
}
_OURS = b"x-moorage-"

# Words by which a shim says that nothing reached the agent and another sandbox (or a moment) may serve.
ELSEWHERE = frozenset({"stale_epoch", "other_session", "unbound", "draining", "unknown", "fenced", "unauthenticated"})
NOT_YET = frozenset({"not_ready", "starting"})
FAILED = frozenset({"agent_exit", "agent_timeout"})
_STATUSES = frozenset({401, 409, 502, 503, 504})
_FIELDS = frozenset({"error", "detail", "log_tail", "status", "signal", "oom"})


def down(headers: Headers) -> Headers:
    """The caller's headers that reach the agent."""
    return [pair for pair in headers if pair[0] in _DOWN or pair[0].startswith(_CLIENT)]


def up(headers: Headers) -> Headers:
    """The agent's headers that reach the caller. Names that its Connection header lists are of that hop and stay there."""
    listed: frozenset[bytes] = frozenset()
    for name, value in headers:
        if name == b"connection":
            listed |= {token.strip().lower() for token in value.split(b",")}
    return [
        pair for pair in headers if pair[0] not in _NOT_UP and pair[0] not in listed and not pair[0].startswith(_OURS)
    ]


@dataclass(frozen=True)
class Refused:
    """A shim's own answer: its word, and the last lines of the agent's output."""

    word: str
    log_tail: tuple[str, ...] = ()

    @property
    def elsewhere(self) -> bool:
        """Nothing reached the agent: look the route up anew."""
        return self.word in ELSEWHERE

    def error(self) -> ApiError:
        """What the caller is told."""
        tail = " | ".join(line[:LOG_LINE] for line in self.log_tail[-LOG_LINES:])
        shown = f" Its last output: {tail}" if tail else ""
        if self.word in NOT_YET:
            return ApiError(Kind.SESSION_NOT_READY, f"The agent is not ready yet.{shown}", retry_after=2)
        if self.elsewhere:
            return ApiError(Kind.UNAVAILABLE, "The session is moving to another sandbox; try again.", retry_after=1)
        if self.word == "agent_timeout":
            return ApiError(Kind.GATEWAY_TIMEOUT, f"The agent did not begin to answer in time.{shown}")
        return ApiError(Kind.AGENT_FAILED, f"The agent's process ended before it answered.{shown}")


def may_be_refusal(status: int, headers: Headers) -> bool:
    """Whether an answer may be the shim's own and not the agent's: its body is short and decides."""
    if status not in _STATUSES:
        return False
    length = b""
    for name, value in headers:
        if name == _ANSWERED:
            return False
        if name == REFUSAL:
            return True
        if name == b"content-length":
            length = value
    return length.isdigit() and int(length) <= REFUSAL_BYTES


def read_refusal(body: bytes) -> Refused | None:
    """The refusal in a shim's body; None for any other body, which is the agent's own answer.

    Of a shim that does not say which answers are its agent's: one that imitates a refusal gains a second try of its own request.
    """
    try:
        detail = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(detail, dict) or not detail.keys() <= _FIELDS:
        return None
    word, tail = detail.get("error"), detail.get("log_tail")
    if not isinstance(word, str) or word not in ELSEWHERE | NOT_YET | FAILED:
        return None
    return Refused(word, tuple(str(line) for line in tail) if isinstance(tail, list) else ())
