"""What a request to `/responses` asks for. Layer: agent server, pure: bytes and headers in, a frozen `Ask` or an ApiError out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moorage import items
from moorage_api.errors import ApiError, Kind
from moorage_api.wire import headers as h

_HANDED_DOWN = frozenset({h.TRACEPARENT, "tracestate", "baggage"})
_METADATA_PAIRS, _METADATA_KEY, _METADATA_VALUE = 16, 64, 512


@dataclass(frozen=True)
class Ask:
    """A create request. `platform`: it came through a shim, so history and ids are given and nothing is kept here.

    `history` is None when the platform gave none; then the chain of `previous_response_id` is looked up here.
    """

    body: dict[str, Any]
    items: list[dict[str, Any]]
    headers: Mapping[str, str]
    stream: bool
    background: bool
    store: bool
    previous_response_id: str | None
    history: list[dict[str, Any]] | None
    attempt: int
    response_id: str | None
    session: str | None
    user: str | None
    platform: bool
    turn: str | None


def ask(raw: bytes, headers: Mapping[str, str]) -> Ask:
    """The request, checked; `headers` have lower-case names. Raises ApiError (400) naming the field."""
    body = _json_object(raw)
    given = body.pop("moorage", None) or {}
    if not isinstance(given, dict):
        raise _wrong("moorage", "must be an object")
    try:
        found = items.from_input(body.get("input"))
    except ValueError as wrong:
        raise ApiError(Kind.INVALID_REQUEST, f"{wrong}.", param="input") from wrong
    stream, background = _flag(body, "stream", False), _flag(body, "background", False)
    store = _flag(body, "store", True)
    platform = h.TURN in headers
    if background and not store and not platform:
        raise ApiError(Kind.UNSUPPORTED, "A background response must be stored: leave store out.", param="background")
    previous = _text(body, "previous_response_id")
    if previous is not None and body.get("conversation") is not None:
        raise _wrong("previous_response_id", "cannot be given together with conversation")
    _check_metadata(body)
    return Ask(
        body=body,
        items=found,
        headers={k: v for k, v in headers.items() if k.startswith(h.CLIENT_PREFIX) or k in _HANDED_DOWN},
        stream=stream,
        background=background and not platform,
        store=store,
        previous_response_id=previous,
        history=given.get("history") if platform or given else None,
        attempt=_attempt(given.get("attempt", headers.get(h.ATTEMPT, 1))),
        response_id=headers.get(h.AGENT_RESPONSE_ID),
        session=_text(body, "agent_session_id") or headers.get(h.AGENT_SESSION_ID) or headers.get(h.SESSION),
        user=headers.get(h.AGENT_USER_ID),
        platform=platform,
        turn=headers.get(h.TURN),
    )


def _json_object(raw: bytes) -> dict[str, Any]:
    try:
        body = json.loads(raw or b"{}")
    except (ValueError, RecursionError) as wrong:
        raise ApiError(Kind.INVALID_JSON, f"The body is not JSON: {wrong}.") from wrong
    if not isinstance(body, dict):
        raise ApiError(Kind.INVALID_REQUEST, "The body must be a JSON object.")
    return body


def _wrong(field: str, what: str) -> ApiError:
    return ApiError(Kind.INVALID_REQUEST, f"{field} {what}.", param=field)


def _flag(body: Mapping[str, Any], field: str, default: bool) -> bool:
    value = body.get(field)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise _wrong(field, "must be true or false")
    return value


def _text(body: Mapping[str, Any], field: str) -> str | None:
    value = body.get(field)
    if value is not None and not isinstance(value, str):
        raise _wrong(field, "must be a string")
    return value


def _attempt(value: object) -> int:
    try:
        return max(1, int(str(value)))
    except ValueError as wrong:
        raise _wrong("moorage.attempt", "must be a number") from wrong


def _check_metadata(body: Mapping[str, Any]) -> None:
    metadata = body.get("metadata")
    if metadata is None:
        return
    if not isinstance(metadata, dict) or len(metadata) > _METADATA_PAIRS:
        raise _wrong("metadata", f"must be an object of at most {_METADATA_PAIRS} pairs")
    for key, value in metadata.items():
        if not isinstance(value, str) or len(key) > _METADATA_KEY or len(value) > _METADATA_VALUE:
            raise _wrong("metadata", f"takes keys of {_METADATA_KEY} and string values of {_METADATA_VALUE} characters")
