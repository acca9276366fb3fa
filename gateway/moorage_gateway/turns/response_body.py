"""The Response object in full: every field of protocols.md §1.3, from what was fixed when the turn was accepted.

Layer: pure. Values the caller gave are echoed, the rest are the API's documented defaults; of the agent's own Response object only
output, usage, error and incomplete details are taken. Callers treat the result as read-only: it shares parts of the create body.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moorage_gateway.turns.outcomes import Outcome


@dataclass(frozen=True)
class Template:
    """Everything of a response that is fixed at acceptance. `body` is the create body as accepted."""

    response_id: str
    created_at: int
    model: str
    agent: str
    revision: str
    session_id: str
    body: Mapping[str, Any]

    @functools.cached_property
    def echoed(self) -> dict[str, Any]:
        """What every Response object of the turn holds, whatever becomes of it."""
        return _echoed(self)


# Echoed from the create body, else the default (protocols.md §1.2 and §1.3). None is a value here: the field is present.
_ECHOED: Mapping[str, Any] = {
    "background": False,
    "frequency_penalty": 0.0,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "parallel_tool_calls": True,
    "presence_penalty": 0.0,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "reasoning": None,
    "safety_identifier": None,
    "service_tier": "default",
    "store": True,
    "temperature": 1.0,
    "tool_choice": "auto",
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
}
# Present only when the caller gave them.
_OPTIONAL = (
    "access_programs",
    "image",
    "moderation",
    "prompt",
    "prompt_cache_options",
    "prompt_cache_retention",
    "user",
)
_FUNCTION_FIELDS = ("name", "description", "parameters", "strict")


def response_body(
    template: Template,
    *,
    status: str,
    output: list[dict[str, Any]],
    outcome: Outcome | None = None,
    completed_at: int | None = None,
) -> dict[str, Any]:
    """The full Response object. `completed_at` is shown only when `status` is completed; `outcome` None: not ended."""
    return {
        "id": template.response_id,
        "object": "response",
        "created_at": template.created_at,
        "completed_at": completed_at if status == "completed" else None,
        "status": status,
        "model": template.model,
        "output": output,
        "error": outcome.error if outcome else None,
        "incomplete_details": outcome.incomplete_details if outcome else None,
        "usage": outcome.usage if outcome else None,
        **template.echoed,
    }


def _echoed(template: Template) -> dict[str, Any]:
    body = template.body
    found: dict[str, Any] = {
        "metadata": body.get("metadata") or {},
        "text": _text(body.get("text")),
        "tools": [_tool(tool) for tool in body.get("tools") or ()],
    }
    for name, default in _ECHOED.items():
        value = body.get(name)
        found[name] = default if value is None else value
    if found["service_tier"] == "auto":
        found["service_tier"] = "default"  # the answer names the tier that served, never the wish
    for name in _OPTIONAL:
        if body.get(name) is not None:
            found[name] = body[name]
    conversation = body.get("conversation")
    if conversation is not None:
        found["conversation"] = {"id": conversation} if isinstance(conversation, str) else conversation
    found["agent_session_id"] = template.session_id
    found["agent_reference"] = {"type": "agent_reference", "name": template.agent, "version": template.revision}
    return found


def _text(given: Any) -> dict[str, Any]:
    text = dict(given) if isinstance(given, Mapping) else {}
    if not text.get("format"):
        text["format"] = {"type": "text"}
    return text


def _tool(tool: Any) -> Any:
    if not isinstance(tool, Mapping) or tool.get("type") != "function":
        return tool
    return {**tool, **{name: tool.get(name) for name in _FUNCTION_FIELDS}}
