"""Types and ranges of every known field of a create body: one table, name → check. Layer: rules, no I/O.

Called by `request.py`. A check raises ApiError naming the field; an unknown field is nobody's business here and passes.
`null` stands for "not given" everywhere and is never passed to a check. Source: protocols.md §1.2.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from moorage_api.errors import ApiError, Kind

Check = Callable[[str, Any], None]

METADATA_PAIRS, METADATA_KEY, METADATA_VALUE = 16, 64, 512
MAX_TOOLS = 512
MAX_IDENTIFIER = 256

INCLUDE = frozenset(
    {
        "file_search_call.results",
        "web_search_call.results",
        "web_search_call.action.sources",
        "message.input_image.image_url",
        "computer_call_output.output.image_url",
        "code_interpreter_call.outputs",
        "reasoning.encrypted_content",
        "message.output_text.logprobs",
    }
)

_IDENTIFIER = re.compile(r"[A-Za-z0-9_.:-]{1,256}\Z")


def refuse(param: str, message: str) -> ApiError:
    """The error of a wrong field."""
    return ApiError(Kind.INVALID_REQUEST, f"{param} {message}", param=param)


def text(longest: int | None = None) -> Check:
    """A string of at most `longest` characters."""

    def check(param: str, value: Any) -> None:
        if not isinstance(value, str):
            raise refuse(param, "must be a string.")
        if longest is not None and len(value) > longest:
            raise refuse(param, f"must have at most {longest} characters.")

    return check


def flag(param: str, value: Any) -> None:
    """true or false."""
    if not isinstance(value, bool):
        raise refuse(param, "must be true or false.")


def integer(lowest: int, highest: int | None = None) -> Check:
    """A whole number in a range, both ends included."""

    def check(param: str, value: Any) -> None:
        if not isinstance(value, int) or isinstance(value, bool):
            raise refuse(param, "must be an integer.")
        if value < lowest or (highest is not None and value > highest):
            raise refuse(param, f"must be {_range(lowest, highest)}.")

    return check


def number(lowest: float, highest: float) -> Check:
    """A number in a range, both ends included."""

    def check(param: str, value: Any) -> None:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise refuse(param, "must be a number.")
        if not lowest <= value <= highest:
            raise refuse(param, f"must be {_range(lowest, highest)}.")

    return check


def one_of(*allowed: str) -> Check:
    """One of a closed set of words."""

    def check(param: str, value: Any) -> None:
        if not isinstance(value, str) or value not in allowed:
            raise refuse(param, f"must be one of {', '.join(allowed)}.")

    return check


def mapping(**inner: Check) -> Check:
    """An object whose known fields are checked and whose other fields pass."""

    def check(param: str, value: Any) -> None:
        if not isinstance(value, dict):
            raise refuse(param, "must be an object.")
        for name, inner_check in inner.items():
            if value.get(name) is not None:
                inner_check(f"{param}.{name}", value[name])

    return check


def array(item: Check, longest: int) -> Check:
    """A list of at most `longest` checked elements."""

    def check(param: str, value: Any) -> None:
        if not isinstance(value, list):
            raise refuse(param, "must be a list.")
        if len(value) > longest:
            raise refuse(param, f"must have at most {longest} elements.")
        for index, element in enumerate(value):
            item(f"{param}[{index}]", element)

    return check


def typed(param: str, value: Any) -> None:
    """An object with a `type` string."""
    if not isinstance(value, dict):
        raise refuse(param, "must be an object.")
    if not isinstance(value.get("type"), str) or not value["type"]:
        raise refuse(f"{param}.type", "must be a string.")


def identifier(param: str, value: Any) -> None:
    """An opaque id of ours or of the caller's."""
    if not isinstance(value, str):
        raise refuse(param, "must be a string.")
    if _IDENTIFIER.match(value) is None:
        raise ApiError(Kind.INVALID_PARAMETERS, "Malformed identifier.", param=param)


def metadata(param: str, value: Any) -> None:
    """At most 16 pairs of strings, keys to 64 and values to 512 characters."""
    if not isinstance(value, dict):
        raise refuse(param, "must be an object.")
    if len(value) > METADATA_PAIRS:
        raise refuse(param, f"must have at most {METADATA_PAIRS} pairs.")
    for key, entry in value.items():
        if not key or len(key) > METADATA_KEY:
            raise refuse(param, f"must have keys of 1 to {METADATA_KEY} characters.")
        name = f"{param}.{key}"
        if not isinstance(entry, str):
            raise refuse(name, "must be a string.")
        if len(entry) > METADATA_VALUE:
            raise refuse(name, f"must have at most {METADATA_VALUE} characters.")


def _range(lowest: float, highest: float | None) -> str:
    return f"at least {lowest}" if highest is None else f"from {lowest} to {highest}"


def _text_format(param: str, value: Any) -> None:
    typed(param, value)
    one_of("text", "json_object", "json_schema")(f"{param}.type", value["type"])
    if value["type"] == "json_schema":
        for name, check in (("name", text(64)), ("schema", mapping())):
            if value.get(name) is None:
                raise refuse(f"{param}.{name}", "is required with type json_schema.")
            check(f"{param}.{name}", value[name])


def _tool(param: str, value: Any) -> None:
    typed(param, value)
    if value["type"] != "function":
        return
    if not isinstance(value.get("name"), str) or not value["name"]:
        raise refuse(f"{param}.name", "must be a string.")
    mapping(name=text(128), description=text(), parameters=mapping(), strict=flag)(param, value)


def _tool_choice(param: str, value: Any) -> None:
    if isinstance(value, str):
        one_of("none", "auto", "required")(param, value)
    elif isinstance(value, dict):
        typed(param, value)
    else:
        raise refuse(param, "must be none, auto, required or an object with a type.")


def _conversation(param: str, value: Any) -> None:
    if isinstance(value, dict):
        if "id" not in value:
            raise refuse(f"{param}.id", "is required.")
        identifier(f"{param}.id", value["id"])
    else:
        identifier(param, value)


def _prompt(param: str, value: Any) -> None:
    mapping(id=text(MAX_IDENTIFIER), version=text(MAX_IDENTIFIER), variables=mapping())(param, value)
    if not isinstance(value.get("id"), str):
        raise refuse(f"{param}.id", "must be a string.")


# Name → check. A field that is not here passes on untouched.
KNOWN: Mapping[str, Check] = MappingProxyType(
    {
        "model": text(MAX_IDENTIFIER),
        "instructions": text(),
        "previous_response_id": identifier,
        "conversation": _conversation,
        "store": flag,
        "stream": flag,
        "stream_options": mapping(include_obfuscation=flag),
        "background": flag,
        "background_options": mapping(completion_window=one_of("soonest", "2h", "8h")),
        "tools": array(_tool, MAX_TOOLS),
        "tool_choice": _tool_choice,
        "parallel_tool_calls": flag,
        "max_tool_calls": integer(1),
        "text": mapping(format=_text_format, verbosity=one_of("low", "medium", "high")),
        "reasoning": mapping(effort=text(64), summary=text(64)),
        "include": array(one_of(*sorted(INCLUDE)), 64),
        "temperature": number(0, 2),
        "top_p": number(0, 1),
        "top_logprobs": integer(0, 20),
        "max_output_tokens": integer(1),
        "presence_penalty": number(-2, 2),
        "frequency_penalty": number(-2, 2),
        "truncation": one_of("auto", "disabled"),
        "metadata": metadata,
        "context_management": array(typed, 16),
        "prompt": _prompt,
        "prompt_cache_key": text(1024),
        "prompt_cache_options": mapping(),
        "prompt_cache_retention": one_of("in_memory", "in-memory", "24h"),
        "service_tier": text(64),
        "safety_identifier": text(512),
        "user": text(512),
        "agent_reference": mapping(type=text(64), name=text(MAX_IDENTIFIER), version=text(MAX_IDENTIFIER)),
        "agent_session_id": text(128),
    }
)
