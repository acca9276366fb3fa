"""The Response object with every field of its required set (protocols.md §1.3). Layer: agent server, pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Where the caller said nothing. A field missing from this table is null.
_DEFAULTS: dict[str, Any] = {
    "instructions": None,
    "tools": [],
    "tool_choice": "auto",
    "truncation": "disabled",
    "parallel_tool_calls": True,
    "text": {"format": {"type": "text"}},
    "top_p": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "top_logprobs": 0,
    "temperature": 1.0,
    "reasoning": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "store": True,
    "background": False,
    "service_tier": "default",
    "metadata": {},
    "safety_identifier": None,
    "prompt_cache_key": None,
    "previous_response_id": None,
}


def response(
    response_id: str, *, created_at: int, body: Mapping[str, Any], model: str, session: str | None
) -> dict[str, Any]:
    """A Response `in_progress` with no output yet; the caller's own values win over the defaults."""
    found: dict[str, Any] = {
        "id": response_id,
        "object": "response",
        "created_at": created_at,
        "completed_at": None,
        "status": "in_progress",
        "incomplete_details": None,
        "model": body.get("model") or model,
        "output": [],
        "error": None,
        "usage": None,
    }
    for name, default in _DEFAULTS.items():
        given = body.get(name)
        found[name] = default if given is None else given
    conversation = body.get("conversation")
    if conversation is not None:
        found["conversation"] = {"id": conversation} if isinstance(conversation, str) else conversation
    if body.get("user") is not None:
        found["user"] = body["user"]
    if session is not None:
        found["agent_session_id"] = session
    return found


def usage(input_tokens: int, output_tokens: int, cached_tokens: int, reasoning_tokens: int) -> dict[str, Any]:
    """The `usage` of a finished response."""
    return {
        "input_tokens": input_tokens,
        "input_tokens_details": {"cached_tokens": cached_tokens},
        "output_tokens": output_tokens,
        "output_tokens_details": {"reasoning_tokens": reasoning_tokens},
        "total_tokens": input_tokens + output_tokens,
    }
