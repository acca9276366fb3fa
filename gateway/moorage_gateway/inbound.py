"""What a request asks for: method, path, query and headers become a frozen Route, a Rejection, or None (the control API's).

Layer: rules, no I/O. Called by the public dispatcher for every request. Decides on the decoded path only (`scope["path"]`), the
same one everything after it uses. URL forms: protocols.md §2 and §12.1.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple
from urllib.parse import parse_qsl

from moorage_api import names
from moorage_api.errors import ApiError, Kind
from moorage_api.wire import headers as header_names

MAX_QUERY_FIELDS = 64
MALFORMED = "Malformed identifier."

_SEGMENT = re.compile(r"[A-Za-z0-9._~:@!$&'()*+,;=-]{1,256}\Z")
_QUERY = re.compile(rb"[\x21-\x7e]*\Z")
_SESSION_FIELD = re.compile(rb"(?:^|&)agent_session_id=([A-Za-z0-9_-]{8,128})(?:&|$)")
_CURSOR = re.compile(r"[0-9]{1,15}\Z")


class Operation(StrEnum):
    """What the data path can do. The values are the names in metrics and spans."""

    CREATE = "create"
    RETRIEVE = "retrieve"
    STREAM = "stream"
    DELETE = "delete"
    CANCEL = "cancel"
    INPUT_ITEMS = "input_items"
    RECORD = "record"
    JOURNAL = "journal"
    FEEDBACK = "feedback"
    INVOKE = "invoke"


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a list: `after` and `before` are item ids, both exclusive."""

    limit: int = 20
    order: str = "desc"
    after: str | None = None
    before: str | None = None


class Route(NamedTuple):
    """An accepted address. `agent` None: the body names it. `tail` and `query` are what an invocation passes on."""

    operation: Operation
    agent: str | None
    response_id: str | None = None
    starting_after: int | None = None
    page: Page | None = None
    tail: str = ""
    query: bytes = b""
    session_id: str | None = None


@dataclass(frozen=True, slots=True)
class Rejection:
    """A refused address with its answer; `allow` lists the methods of a 405."""

    kind: Kind
    message: str
    param: str | None = None
    allow: tuple[str, ...] = ()

    def error(self) -> ApiError:
        """The refusal as the one error type."""
        return ApiError(self.kind, self.message, param=self.param)


# What may follow `…/responses/{id}`, by method.
_BELOW_ID: dict[str, dict[str, Operation]] = {
    "": {"GET": Operation.RETRIEVE, "DELETE": Operation.DELETE},
    "cancel": {"POST": Operation.CANCEL},
    "input_items": {"GET": Operation.INPUT_ITEMS},
    "record": {"GET": Operation.RECORD},
    "journal": {"GET": Operation.JOURNAL},
    "feedback": {"POST": Operation.FEEDBACK},
}


def classify(method: str, path: str, query: bytes, headers: Iterable[tuple[bytes, bytes]]) -> Route | Rejection | None:
    """The Route of a data request, its Rejection, or None when the path belongs to the control API.

    path                                                        | agent from | kind
    ------------------------------------------------------------|------------|------------
    /v1/responses…, …/openai/v1/responses…                      | the body   | responses
    /v1/agents/N/responses…                                     | the path   | responses
    /v1/agents/N/openai/responses…, …/openai/v1/responses…      | the path   | responses
    {any}/agents/N/endpoint/protocols/openai/[v1/]responses…    | the path   | responses
    /v1/agents/N/invocations[/…]                                | the path   | invocation
    {any}/agents/N/endpoint/protocols/invocations[/…]           | the path   | invocation
    anything else                                               | –          | None
    """
    parts = path.split("/")
    if len(parts) < 3 or parts[0] != "":
        return None
    found = _address(parts[1:])
    if found is None:
        return None
    agent, protocol, rest = found
    if agent is not None and names.AGENT.match(agent) is None:
        return Rejection(Kind.NOT_FOUND, f"No agent has the name {agent[:64]!r}.")
    if _QUERY.match(query) is None:
        return Rejection(Kind.INVALID_REQUEST, "The query holds bytes that must be percent-encoded.")
    if protocol == "invocations":
        return _invocation(agent, rest, query, headers)
    return _responses(method, agent, rest, query)


def _address(parts: list[str]) -> tuple[str | None, str, list[str]] | None:
    """(agent or None, "responses" | "invocations", what follows), or None for any other path."""
    if parts[0] == "v1" and parts[1] == "responses":
        return None, "responses", parts[2:]
    if parts[0] == "v1" and parts[1] == "agents" and len(parts) > 3:
        agent, rest = parts[2], parts[3:]
        if rest[0] in ("responses", "invocations"):
            return agent, rest[0], rest[1:]
        if (below := _openai(rest)) is not None:
            return agent, "responses", below
    for at in range(len(parts) - 4):
        if parts[at] == "agents" and parts[at + 2] == "endpoint" and parts[at + 3] == "protocols":
            agent, rest = parts[at + 1], parts[at + 4 :]
            if rest[0] == "invocations":
                return agent, "invocations", rest[1:]
            return None if (below := _openai(rest)) is None else (agent, "responses", below)
    for at in range(len(parts) - 2):
        if parts[at] == "openai" and parts[at + 1] == "v1" and parts[at + 2] == "responses":
            return None, "responses", parts[at + 3 :]
    return None


def _openai(rest: list[str]) -> list[str] | None:
    """What follows `openai/responses` or `openai/v1/responses`; None for anything else."""
    if rest[:2] == ["openai", "responses"]:
        return rest[2:]
    return rest[3:] if rest[:3] == ["openai", "v1", "responses"] else None


def _responses(method: str, agent: str | None, rest: list[str], query: bytes) -> Route | Rejection:
    if not rest:
        if method != "POST":
            return _wrong_method(method, ("POST",))
        return Route(Operation.CREATE, agent)
    verb = rest[1] if len(rest) > 1 else ""
    if len(rest) > 2 or (len(rest) == 2 and not verb) or verb not in _BELOW_ID:
        return Rejection(Kind.NOT_FOUND, "Nothing is served under this path.")
    allowed = _BELOW_ID[verb]
    if method not in allowed:
        return _wrong_method(method, tuple(allowed))
    if names.RESPONSE.match(rest[0]) is None:
        return Rejection(Kind.INVALID_PARAMETERS, MALFORMED, "response_id")
    operation = allowed[method]
    try:
        fields = _fields(query) if query else {}
        if operation is Operation.INPUT_ITEMS:
            return Route(operation, agent, rest[0], page=_page(fields))
        if operation is Operation.RETRIEVE and _flag(fields, "stream"):
            return Route(Operation.STREAM, agent, rest[0], starting_after=_cursor(fields))
    except ApiError as error:
        return Rejection(error.kind, error.message, error.param)
    return Route(operation, agent, rest[0])


def _invocation(
    agent: str | None, rest: list[str], query: bytes, headers: Iterable[tuple[bytes, bytes]]
) -> Route | Rejection:
    for segment in rest:
        if segment in (".", "..") or _SEGMENT.match(segment) is None:
            return Rejection(Kind.INVALID_PARAMETERS, MALFORMED, "path")
    try:
        session = _named_session(query, headers)
    except ApiError as error:
        return Rejection(error.kind, error.message, error.param)
    tail = "/".join(rest)
    return Route(Operation.INVOKE, agent, tail=f"/{tail}" if rest else "", query=query, session_id=session)


def _named_session(query: bytes, headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The session an invocation names in its query or header. Raises ApiError for a malformed one, or two different ones."""
    session: str | None = None
    if b"agent_session_id" in query:
        plain = _SESSION_FIELD.search(query) if query.count(b"agent_session_id") == 1 else None
        session = plain[1].decode() if plain else _fields(query).get("agent_session_id")
    if (value := find(headers, b"x-agent-session-id")) is not None:
        given = value.decode("latin-1")
        if session is not None and session != given:
            raise ApiError(
                Kind.INVALID_REQUEST,
                "The query and the header x-agent-session-id name two sessions; send one.",
                param="agent_session_id",
            )
        session = given
    if session is not None and names.SESSION.match(session) is None:
        raise ApiError(Kind.INVALID_PARAMETERS, MALFORMED, param="agent_session_id")
    return session


def _wrong_method(method: str, allowed: tuple[str, ...]) -> Rejection:
    return Rejection(
        Kind.METHOD_NOT_ALLOWED, f"{method} is not served here; use {' or '.join(allowed)}.", allow=allowed
    )


def _fields(query: bytes) -> dict[str, str]:
    """The query as a map; a field given twice is refused, because readers disagree on which one counts."""
    try:
        pairs = parse_qsl(
            query.decode("ascii"), keep_blank_values=True, max_num_fields=MAX_QUERY_FIELDS, errors="strict"
        )
    except ValueError:
        raise ApiError(Kind.INVALID_REQUEST, "The query cannot be read.") from None
    found: dict[str, str] = {}
    for name, value in pairs:
        if name in found and not name.startswith("include"):
            raise ApiError(Kind.INVALID_REQUEST, f"{name[:64]} is given twice.", param=name[:64])
        found[name] = value
    return found


def _flag(fields: dict[str, str], name: str) -> bool:
    value = fields.get(name, "false").lower()
    if value not in ("true", "false", "1", "0"):
        raise ApiError(Kind.INVALID_REQUEST, f"{name} must be true or false.", param=name)
    return value in ("true", "1")


def _cursor(fields: dict[str, str]) -> int | None:
    value = fields.get("starting_after")
    if value is None or value == "":
        return None
    if _CURSOR.match(value) is None:
        raise ApiError(Kind.INVALID_REQUEST, "starting_after must be a sequence number.", param="starting_after")
    return int(value)


def _page(fields: dict[str, str]) -> Page:
    limit, order = fields.get("limit", "20"), fields.get("order", "desc")
    if not re.fullmatch(r"[0-9]{1,3}", limit) or not 1 <= int(limit) <= 100:
        raise ApiError(Kind.INVALID_REQUEST, "limit must be a number from 1 to 100.", param="limit")
    if order not in ("asc", "desc"):
        raise ApiError(Kind.INVALID_REQUEST, "order must be asc or desc.", param="order")
    return Page(int(limit), order, fields.get("after") or None, fields.get("before") or None)


def find(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    """The first value of a header, or None. Names are lower case, as ASGI carries them."""
    for key, value in headers:
        if key == name:
            return value
    return None


def handed_down(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Headers that reach the agent of a turn: `x-client-*` only (the trace context is written anew for each attempt)."""
    prefix = header_names.CLIENT_PREFIX.encode()
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in headers if name.startswith(prefix)}
