"""A create body becomes a frozen `Create`: parsed, bounded, every known field checked. Layer: rules, no I/O.

Called by `routes/responses.py`. Every refusal is a 400 that names the field (413 for size), never a 500: whatever bytes come in,
the outcome is a `Create` or an ApiError.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any

import orjson

from moorage_api import names
from moorage_api.errors import ApiError, Kind
from moorage_gateway import conversation, fields

MAX_ITEMS = 10_000
# Which session, who and how to answer: for the gateway. What is left is the agent's (and the response's echo).
TRANSPORT_FIELDS = frozenset({"stream", "stream_options", "agent_reference", "agent_session_id"})

_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)


@dataclass(frozen=True)
class JsonLimits:
    """Bounds of a JSON body: bytes, nesting, and the number of objects and arrays."""

    size: int
    depth: int
    containers: int


@dataclass(frozen=True)
class Create:
    """A checked create request. `body` is as sent minus `TRANSPORT_FIELDS`; `agent` is what the body names, if anything."""

    body: dict[str, Any]
    items: list[dict[str, Any]]
    agent: str | None
    stream: bool
    background: bool
    store: bool
    previous_response_id: str | None
    conversation: str | None
    session_id: str | None


def parse_json(raw: bytes, limits: JsonLimits) -> Any:
    """The value of a JSON text. Raises ApiError: TOO_LARGE, INVALID_JSON, or INVALID_REQUEST for nesting.

    A few megabytes of `[[[[…` would become gigabytes of objects, so brackets outside strings are counted before parsing;
    the exact count is taken only where the cheap one (all brackets) is over the limit.
    """
    if len(raw) > limits.size:
        raise ApiError(Kind.TOO_LARGE, f"The body is larger than {limits.size} bytes; put large input into files.")
    brackets = raw.count(b"[") + raw.count(b"{")
    if brackets > limits.containers:
        bare = _STRINGS.sub(b"", raw)
        brackets = bare.count(b"[") + bare.count(b"{")
        if brackets > limits.containers:
            raise ApiError(Kind.INVALID_REQUEST, f"The body holds more than {limits.containers} objects and lists.")
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise ApiError(Kind.INVALID_JSON, f"The body is not valid JSON: {_reason(error)}.") from None
    if brackets > limits.depth and _deeper_than(value, limits.depth):
        raise ApiError(Kind.INVALID_REQUEST, f"The body is nested deeper than {limits.depth} levels.")
    return value


def parse_object(raw: bytes, limits: JsonLimits) -> dict[str, Any]:
    """`parse_json`, and the value must be an object."""
    value = parse_json(raw, limits)
    if not isinstance(value, dict):
        raise ApiError(Kind.INVALID_REQUEST, "The body must be a JSON object.")
    return value


def parse_create(raw: bytes, limits: JsonLimits) -> Create:
    """The checked request behind the bytes of a create body. Raises ApiError."""
    body = parse_object(raw, limits)
    for name, value in body.items():
        check = fields.KNOWN.get(name)
        if check is not None and value is not None:
            check(name, value)
    stream, background = bool(body.get("stream")), bool(body.get("background"))
    store = body.get("store") is not False
    _rules(body, stream=stream, background=background, store=store)
    items = conversation.read_input(body.get("input"), MAX_ITEMS)
    return Create(
        body={name: value for name, value in body.items() if name not in TRANSPORT_FIELDS},
        items=items,
        agent=_named_agent(body),
        stream=stream,
        background=background,
        store=store,
        previous_response_id=body.get("previous_response_id"),
        conversation=_conversation_id(body.get("conversation")),
        session_id=_session_id(body),
    )


def body_hash(method: str, path: str, raw: bytes) -> str:
    """What makes two sends "the same request": sha256 over method, path and body, each length-prefixed."""
    digest = hashlib.sha256(f"{len(method)}:{method},{len(path.encode())}:{path},{len(raw)}:".encode())
    digest.update(raw)
    return digest.hexdigest()


def retry_count(value: bytes | None) -> int:
    """The stock client's count of repeats; anything but a small number counts as a first try."""
    return int(value) if value is not None and re.fullmatch(rb"[0-9]{1,3}", value) else 0


def idempotency_key(value: bytes | None) -> str | None:
    """The caller's key: 1–255 visible ASCII characters. Raises ApiError for any other."""
    if value is None:
        return None
    if re.fullmatch(rb"[\x21-\x7e]{1,255}", value) is None:
        raise ApiError(
            Kind.INVALID_REQUEST, "Idempotency-Key must have 1 to 255 visible characters.", param="Idempotency-Key"
        )
    return value.decode("ascii")


def _rules(body: dict[str, Any], *, stream: bool, background: bool, store: bool) -> None:
    """What fields forbid each other (protocols.md §1.2, §1.6)."""
    if background and not store:
        raise ApiError(Kind.UNSUPPORTED, "background needs store: true.", param="background")
    if body.get("background_options") is not None and not background:
        raise fields.refuse("background_options", "is allowed only with background: true.")
    if body.get("stream_options") is not None and not stream:
        raise fields.refuse("stream_options", "is allowed only with stream: true.")
    previous = body.get("previous_response_id")
    if previous is not None and body.get("conversation") is not None:
        raise fields.refuse("previous_response_id", "and conversation exclude each other; send one.")
    if previous is not None and names.RESPONSE.match(previous) is None:
        raise ApiError(Kind.INVALID_PARAMETERS, "Malformed identifier.", param="previous_response_id")


def _named_agent(body: dict[str, Any]) -> str | None:
    reference = body.get("agent_reference")
    if isinstance(reference, dict) and reference.get("name"):
        return str(reference["name"])
    model = body.get("model")
    return model if isinstance(model, str) and model else None


def _conversation_id(value: Any) -> str | None:
    return str(value["id"]) if isinstance(value, dict) else value


def _session_id(body: dict[str, Any]) -> str | None:
    value = body.get("agent_session_id")
    if value is not None and names.SESSION.match(value) is None:
        raise ApiError(Kind.INVALID_PARAMETERS, "Malformed identifier.", param="agent_session_id")
    return value if isinstance(value, str) else None


def _deeper_than(value: Any, depth: int) -> bool:
    level: list[Any] = [value]
    for _ in range(depth):
        following: list[Any] = []
        for entry in level:
            if isinstance(entry, dict):
                following.extend(child for child in entry.values() if isinstance(child, dict | list))
            elif isinstance(entry, list):
                following.extend(child for child in entry if isinstance(child, dict | list))
        if not following:
            return False
        level = following
    return True


def _reason(error: orjson.JSONDecodeError) -> str:
    return str(error.msg)[:120] + f" at line {error.lineno}, column {error.colno}"
