"""The two tools that agents see in place of all, where a toolbox has `toolSearch`, and what they may be asked. Layer: pure.

`call_tool` is no call of its own: what is prepared, recorded and bounded is the call of the tool that it names, as if that had been called
by name. So one attempt may call a tool this way and the next one that way, and it runs once.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson

from moorage_gateway.tools.rpc import Message

SEARCH, CALL = "tool_search", "call_tool"
MOST_QUERY = 2000
"""Characters."""
FOUND, MOST_FOUND = 5, 20
"""Tools that a search answers with: by default, and at most."""
MOST_TEXT = 256 * 1024
"""Bytes of definitions in an answer; the first tool found is always in it."""


class BadArguments(Exception):
    """What a meta tool cannot do; `str()` says to a model what to do instead."""


def described(toolbox: str, upstreams: list[str]) -> list[dict[str, Any]]:
    """Both definitions."""
    servers = ", ".join(upstreams)
    return [
        {
            "name": SEARCH,
            "description": (
                f"Finds tools of '{toolbox}' ({servers}) by what they do; these tools are not listed otherwise. Describe one action and "
                f"its object, with the service's name, like 'close a GitHub issue'. Answers with names, descriptions and input schemas; "
                f"run a tool that was found with {CALL}."
            ),
            "inputSchema": {
                "type": "object",
                "properties": {
                    "query": {"type": "string", "description": "What the tool should do.", "maxLength": MOST_QUERY},
                    "limit": {"type": "integer", "minimum": 1, "maximum": MOST_FOUND, "default": FOUND},
                },
                "required": ["query"],
            },
            "annotations": {"readOnlyHint": True, "idempotentHint": True},
        },
        {
            "name": CALL,
            "description": f"Runs a tool that {SEARCH} found, with arguments that fit its input schema.",
            "inputSchema": {
                "type": "object",
                "properties": {
                    "name": {"type": "string", "description": f"The tool's name, as {SEARCH} says it."},
                    "arguments": {"type": "object", "description": "The tool's own arguments."},
                },
                "required": ["name"],
            },
            "annotations": {"readOnlyHint": False, "idempotentHint": False},
        },
    ]


def asked(message: Message) -> tuple[str, int]:
    """Query and limit of a search. Raises BadArguments."""
    given = message.params.get("arguments") or {}
    query, limit = given.get("query"), given.get("limit", FOUND)
    if not isinstance(query, str) or not query.strip() or len(query) > MOST_QUERY:
        raise BadArguments(f"{SEARCH} needs a 'query' of 1 to {MOST_QUERY} characters: what the tool should do.")
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MOST_FOUND:
        raise BadArguments(f"'limit' of {SEARCH} is a whole number from 1 to {MOST_FOUND}.")
    return query, limit


def inner(message: Message) -> tuple[Message, str]:
    """The call that a `call_tool` means, and the tool's name. Raises BadArguments."""
    given = message.params.get("arguments") or {}
    name, arguments = given.get("name"), given.get("arguments") or {}
    if not isinstance(name, str) or not name:
        raise BadArguments(f"{CALL} needs the 'name' of a tool, as {SEARCH} says it.")
    if not isinstance(arguments, dict):
        raise BadArguments(f"'arguments' of {CALL} is an object that fits the tool's input schema.")
    return replace(message, params=message.params | {"name": name, "arguments": arguments}), name


def told(tools: list[dict[str, Any]], total: int, more: dict[str, Any]) -> dict[str, Any]:
    """A search's result: definitions as JSON for a model. `more`: of the list, what else is to be said of it."""
    kept: list[dict[str, Any]] = []
    size = 0
    for tool in tools:
        size += len(orjson.dumps(tool))
        if kept and size > MOST_TEXT:
            break
        kept.append({name: value for name, value in tool.items() if name != "outputSchema"})
    said: dict[str, Any] = {"tools": kept, "searched": total}
    if not kept:
        said["hint"] = "Nothing fits these words. Name the action and its object in other words."
    found: dict[str, Any] = {"content": [{"type": "text", "text": orjson.dumps(said).decode()}], "isError": False}
    return found | ({"_meta": more} if more else {})
