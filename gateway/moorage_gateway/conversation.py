"""Rules of input items: what an input may hold, which ids its items get, and how a stored list is paged. Layer: rules, no I/O.

Called by `request.py` and `routes/responses.py`. Items are Responses items; what is not known here passes on unchanged.
"""

from __future__ import annotations

import hashlib
from typing import Any

from moorage_api import names
from moorage_api.errors import ApiError, Kind
from moorage_gateway import fields
from moorage_gateway.inbound import Page

ROLES = ("user", "assistant", "system", "developer")
MAX_PARTS = 4096


def read_input(value: Any, longest: int) -> list[dict[str, Any]]:
    """The items of `input`: none for null, one user message for a string. Raises ApiError naming the element."""
    if value is None:
        return []
    if isinstance(value, str):
        return [message("user", value)]
    if not isinstance(value, list):
        raise fields.refuse("input", "must be a string or a list of items.")
    if len(value) > longest:
        raise fields.refuse("input", f"must have at most {longest} items.")
    seen: set[str] = set()
    items = []
    for index, entry in enumerate(value):
        item = _read_item(f"input[{index}]", entry)
        given = item.get("id")
        if given is not None and item["type"] != "item_reference":
            if given in seen:
                raise fields.refuse(f"input[{index}].id", "is used by an earlier item.")
            seen.add(given)
        items.append(item)
    return items


def for_agent(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The items as an agent gets them: without requests for approval that a gateway made, and their answers, of which it is told by
    messages; and without those for consent, which it has been told of by its calls."""
    return [item for item in items if not _of_approval(item)]


def _of_approval(item: dict[str, Any]) -> bool:
    match item.get("type"):
        case "mcp_approval_request":
            named = item.get("id")
        case "mcp_approval_response":
            named = item.get("approval_request_id")
        case "oauth_consent_request":
            named = item.get("id")
            return isinstance(named, str) and names.CONSENT.match(named) is not None
        case _:
            return False
    return isinstance(named, str) and names.APPROVAL.match(named) is not None


def message(role: str, content: str) -> dict[str, Any]:
    """A message that is whole."""
    return {"type": "message", "status": "completed", "role": role, "content": _parts(role, content)}


def with_ids(items: list[dict[str, Any]], response_id: str) -> list[dict[str, Any]]:
    """The items, each with an id: its own, else one that is a pure function of (response, position)."""
    return [
        item if item.get("id") else {**item, "id": input_id(response_id, at, item)} for at, item in enumerate(items)
    ]


def input_id(response_id: str, position: int, item: dict[str, Any]) -> str:
    """The id of an input item. Never that of an output item: those are hashed over another text (`names.item_id`)."""
    digest = hashlib.sha256(f"{response_id}/input/{position}".encode()).hexdigest()
    return f"{names.ITEM_PREFIXES.get(item['type'], 'item')}_{response_id[7:25]}{digest[:32]}"


def page_of(items: list[dict[str, Any]], page: Page) -> dict[str, Any]:
    """One page in the list envelope. Raises ApiError when `after` or `before` names no item."""
    ordered = items if page.order == "asc" else items[::-1]
    start, stop = 0, len(ordered)
    if page.after is not None:
        start = _position(ordered, page.after, "after") + 1
    if page.before is not None:
        stop = _position(ordered, page.before, "before")
    window = ordered[start:stop]
    data = window[: page.limit]
    return {
        "object": "list",
        "data": data,
        "first_id": data[0].get("id") if data else None,
        "last_id": data[-1].get("id") if data else None,
        "has_more": len(window) > len(data),
    }


def _position(items: list[dict[str, Any]], item_id: str, param: str) -> int:
    for index, item in enumerate(items):
        if item.get("id") == item_id:
            return index
    raise ApiError(Kind.INVALID_REQUEST, f"{param} names no item of this response.", param=param)


def _parts(role: str, content: str) -> list[dict[str, Any]]:
    if role == "assistant":
        return [{"type": "output_text", "text": content, "annotations": []}]
    return [{"type": "input_text", "text": content}]


def _read_item(param: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise fields.refuse(param, "must be an object.")
    if value.get("id") is not None:
        fields.identifier(f"{param}.id", value["id"])
    kind = value.get("type")
    if kind is None and "role" in value:
        kind = "message"
    if kind is None and "id" in value and len(value) <= 2:
        kind = "item_reference"
    if not isinstance(kind, str) or not kind:
        raise fields.refuse(f"{param}.type", "must be a string.")
    if kind == "message":
        return _read_message(param, value)
    if kind == "item_reference" and value.get("id") is None:
        raise fields.refuse(f"{param}.id", "is required.")
    if kind in ("function_call", "function_call_output"):
        fields.identifier(f"{param}.call_id", value.get("call_id"))
    if kind == "function_call":
        for name in ("name", "arguments"):
            fields.text()(f"{param}.{name}", value.get(name))
    if kind == "function_call_output" and not isinstance(value.get("output"), str | list):
        raise fields.refuse(f"{param}.output", "must be a string or a list of parts.")
    return {**value, "type": kind}


def _read_message(param: str, value: dict[str, Any]) -> dict[str, Any]:
    role, content = value.get("role"), value.get("content")
    fields.one_of(*ROLES)(f"{param}.role", role)
    if isinstance(content, str):
        parts = _parts(str(role), content)
    elif isinstance(content, list):
        fields.array(fields.typed, MAX_PARTS)(f"{param}.content", content)
        for index, part in enumerate(content):
            if part["type"] in ("input_text", "output_text", "text"):
                fields.text()(f"{param}.content[{index}].text", part.get("text"))
        parts = content
    else:
        raise fields.refuse(f"{param}.content", "must be a string or a list of parts.")
    return {**value, "type": "message", "status": value.get("status") or "completed", "content": parts}
