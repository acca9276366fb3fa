"""The one table of error kinds: every refusal the platform can give, its HTTP status and how a caller should react.

Layer: the floor; stdlib only. The gateway turns an `ApiError` into an OpenAI-shaped body, the SDK turns a body back into an `ApiError`.

    ApiError
      └─ raised with a Kind; nothing else crosses a border as an HTTP answer
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """Why a request was refused. The value is the `code` of the body where the protocol names none."""

    INVALID_REQUEST = "invalid_request"
    INVALID_JSON = "invalid_json"
    INVALID_PARAMETERS = "invalid_parameters"
    PREVIOUS_NOT_FOUND = "previous_response_not_found"
    UNSUPPORTED = "unsupported_parameter"
    UNAUTHENTICATED = "invalid_api_key"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    CONFLICT = "conflict"
    SESSION_BUSY = "session_busy"
    IDEMPOTENCY_CONFLICT = "idempotency_conflict"
    TOO_LARGE = "body_too_large"
    HEADERS_TOO_LARGE = "headers_too_large"
    SLOW_REQUEST = "request_timeout"
    UNPROCESSABLE = "unprocessable"
    SESSION_NOT_READY = "session_not_ready"
    RATE_LIMITED = "rate_limit_exceeded"
    QUEUE_FULL = "queue_full"
    AT_CAPACITY = "at_capacity"
    AGENT_FAILED = "agent_failed"
    UNAVAILABLE = "unavailable"
    DRAINING = "draining"
    GATEWAY_TIMEOUT = "gateway_timeout"
    INTERNAL = "server_error"


@dataclass(frozen=True)
class Answer:
    """How one kind is answered. `retry`: a stock client may repeat the request as it is."""

    status: int
    type: str
    retry: bool = False


# Statuses and types: protocols.md §1.5 (openai client column); 424 for a sandbox that cannot serve: protocols.md §4.
TABLE: dict[Kind, Answer] = {
    Kind.INVALID_REQUEST: Answer(400, "invalid_request_error"),
    Kind.INVALID_JSON: Answer(400, "invalid_request_error"),
    Kind.INVALID_PARAMETERS: Answer(400, "invalid_request_error"),
    Kind.PREVIOUS_NOT_FOUND: Answer(400, "invalid_request_error"),
    Kind.UNSUPPORTED: Answer(400, "invalid_request_error"),
    Kind.UNAUTHENTICATED: Answer(401, "invalid_request_error"),
    Kind.FORBIDDEN: Answer(403, "invalid_request_error"),
    Kind.NOT_FOUND: Answer(404, "not_found"),
    Kind.METHOD_NOT_ALLOWED: Answer(405, "invalid_request_error"),
    Kind.CONFLICT: Answer(409, "conflict"),
    Kind.SESSION_BUSY: Answer(409, "conflict"),
    Kind.IDEMPOTENCY_CONFLICT: Answer(409, "conflict"),
    Kind.TOO_LARGE: Answer(413, "invalid_request_error"),
    Kind.HEADERS_TOO_LARGE: Answer(431, "invalid_request_error"),
    Kind.SLOW_REQUEST: Answer(408, "invalid_request_error"),
    Kind.UNPROCESSABLE: Answer(422, "invalid_request_error"),
    Kind.SESSION_NOT_READY: Answer(424, "session_not_ready"),
    Kind.RATE_LIMITED: Answer(429, "rate_limit_error", retry=True),
    Kind.QUEUE_FULL: Answer(429, "rate_limit_error", retry=True),
    Kind.AT_CAPACITY: Answer(429, "rate_limit_error", retry=True),
    Kind.AGENT_FAILED: Answer(502, "server_error"),
    Kind.UNAVAILABLE: Answer(503, "server_error", retry=True),
    Kind.DRAINING: Answer(503, "server_error", retry=True),
    Kind.GATEWAY_TIMEOUT: Answer(504, "server_error"),
    Kind.INTERNAL: Answer(500, "server_error"),
}


class ApiError(Exception):
    """A refusal with everything its answer needs. `message` tells the reader what to do next; it never holds a secret.

    `param` names the offending field; `code` overrides the kind's own code; `retry_after` is in seconds.
    """

    def __init__(
        self,
        kind: Kind,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.param = param
        self.code = code or kind.value
        self.retry_after = retry_after

    @property
    def status(self) -> int:
        """The HTTP status of this kind."""
        return TABLE[self.kind].status

    def body(self) -> dict[str, Any]:
        """The OpenAI-shaped body: `{"error": {"message", "type", "param", "code"}}`."""
        return {
            "error": {
                "message": self.message,
                "type": TABLE[self.kind].type,
                "param": self.param,
                "code": self.code,
            }
        }

    def headers(self) -> dict[str, str]:
        """`Retry-After` in whole seconds where known; `x-should-retry: false` on a 409 that must not be repeated.

        The stock client repeats every 409 twice unless told otherwise (protocols.md §1.5).
        """
        found: dict[str, str] = {}
        if self.retry_after is not None:
            found["retry-after"] = str(max(1, round(self.retry_after)))
        elif TABLE[self.kind].retry:
            found["retry-after"] = "1"
        if self.status in (408, 409) or (self.status >= 500 and not TABLE[self.kind].retry):
            found["x-should-retry"] = "false"
        return found
