"""Shapes of output items and of their parts: which fields an item must have, where its text streams, how it is named.

Layer: pure tables and functions of the turn's normalising (turns.md §4, protocols.md §1.3 and §1.4); callers are the other
modules of the normaliser. Whatever an agent sends goes through `claim` and `part_claim` once, so that everything behind them
can rely on the shapes.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from moorage_api import names

Event = dict[str, Any]

MAX_ITEMS = 4096  # output items of one response; an agent in a loop must not grow a response without end
MAX_PARTS = 1024  # content or summary parts of one item
MAX_DEPTH = 64  # nesting kept of an agent's values; below what JSON writers refuse (orjson: 254)

CONTENT, SUMMARY, FIELD = "content", "summary", "field"

# Foundry containers stamp their own ids on items; ours are the only ones a client may see (protocols.md §3.4).
FOREIGN = ("response_id", "agent_reference")


@dataclass(frozen=True, slots=True)
class Text:
    """One kind of streamed text: the events that carry it and the field that holds it in the finished part or item.

    `family` is where it lives: a content part, a summary part, or a field of the item itself (`field`, index key None).
    """

    kind: str
    family: str
    delta: str
    done: str
    field: str
    index_key: str | None
    logprobs: bool = False


def _field(kind: str, prefix: str, field: str) -> Text:
    return Text(kind, FIELD, f"{prefix}.delta", f"{prefix}.done", field, None)


def _part(kind: str, prefix: str, field: str, *, logprobs: bool = False) -> Text:
    return Text(kind, CONTENT, f"{prefix}.delta", f"{prefix}.done", field, "content_index", logprobs)


OUTPUT_TEXT = _part("output_text", "response.output_text", "text", logprobs=True)
REFUSAL = _part("refusal", "response.refusal", "refusal")
REASONING_TEXT = _part("reasoning_text", "response.reasoning_text", "text")
SUMMARY_TEXT = Text(
    "summary_text",
    SUMMARY,
    "response.reasoning_summary_text.delta",
    "response.reasoning_summary_text.done",
    "text",
    "summary_index",
)
PART_TEXTS: Mapping[str, Text] = {t.kind: t for t in (OUTPUT_TEXT, REFUSAL, REASONING_TEXT, SUMMARY_TEXT)}

# The text an item streams in a field of its own, by item type.
FIELD_TEXTS: Mapping[str, Text] = {
    "function_call": _field("arguments", "response.function_call_arguments", "arguments"),
    "mcp_call": _field("arguments", "response.mcp_call_arguments", "arguments"),
    "custom_tool_call": _field("input", "response.custom_tool_call_input", "input"),
    "code_interpreter_call": _field("code", "response.code_interpreter_call_code", "code"),
}

# Event type → (text, item type it implies). The aliases are what older servers and Open Responses say (protocols.md §1.4).
DELTAS: dict[str, tuple[Text, str]] = {
    OUTPUT_TEXT.delta: (OUTPUT_TEXT, "message"),
    REFUSAL.delta: (REFUSAL, "message"),
    REASONING_TEXT.delta: (REASONING_TEXT, "reasoning"),
    "response.reasoning.delta": (REASONING_TEXT, "reasoning"),
    SUMMARY_TEXT.delta: (SUMMARY_TEXT, "reasoning"),
    **{text.delta: (text, owner) for owner, text in FIELD_TEXTS.items()},
}
DONES: dict[str, tuple[Text, str]] = {
    OUTPUT_TEXT.done: (OUTPUT_TEXT, "message"),
    REFUSAL.done: (REFUSAL, "message"),
    REASONING_TEXT.done: (REASONING_TEXT, "reasoning"),
    "response.reasoning.done": (REASONING_TEXT, "reasoning"),
    SUMMARY_TEXT.done: (SUMMARY_TEXT, "reasoning"),
    **{text.done: (text, owner) for owner, text in FIELD_TEXTS.items()},
}

PART_EVENTS: Mapping[str, tuple[str, str, str]] = {  # family → added, done, index key
    CONTENT: ("response.content_part.added", "response.content_part.done", "content_index"),
    SUMMARY: ("response.reasoning_summary_part.added", "response.reasoning_summary_part.done", "summary_index"),
}

# Prefix of the id and the fields the item is never without, by type (openai's required fields; protocols.md §3.4).
_SHAPES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "message": ("msg", {"role": "assistant", "content": []}),
    "reasoning": ("rs", {"summary": []}),
    "function_call": ("fc", {"name": "", "arguments": ""}),
    "function_call_output": ("fco", {"output": ""}),
    "file_search_call": ("fs", {"queries": []}),
    "web_search_call": ("ws", {"action": {"type": "search", "query": ""}}),
    "code_interpreter_call": ("ci", {"code": "", "container_id": "", "outputs": None}),
    "image_generation_call": ("ig", {"result": None}),
    "mcp_call": ("mcp", {"name": "", "server_label": "", "arguments": "", "output": None, "error": None}),
    "mcp_list_tools": ("mcpl", {"server_label": "", "tools": []}),
    "mcp_approval_request": ("mcpa", {"name": "", "server_label": "", "arguments": "{}"}),
    "mcp_approval_response": ("mcpr", {"approval_request_id": "", "approve": False}),
    "oauth_consent_request": ("oacr", {"consent_link": "", "server_label": ""}),
    "custom_tool_call": ("ctc", {"name": "", "input": ""}),
    "custom_tool_call_output": ("ctco", {"output": ""}),
    "computer_call": ("cu", {"pending_safety_checks": []}),
    "computer_call_output": ("cuo", {"output": {}}),
    "local_shell_call": ("lsh", {"action": {"type": "exec", "command": [], "env": {}}}),
    "local_shell_call_output": ("lsho", {"output": ""}),
    "shell_call": ("sh", {"action": {"commands": []}}),
    "shell_call_output": ("sho", {"output": []}),
    "apply_patch_call": ("ap", {}),
    "apply_patch_call_output": ("apo", {}),
    "tool_search_call": ("ts", {"arguments": {}, "execution": "server"}),
    "tool_search_output": ("tso", {"tools": []}),
    "program": ("pg", {"code": "", "fingerprint": ""}),
    "program_output": ("pgo", {"result": ""}),
    "additional_tools": ("at", {"role": "assistant", "tools": []}),
    "compaction": ("cmp", {"encrypted_content": ""}),
}

TYPES = frozenset(_SHAPES)
WITH_PARTS = frozenset({"message", "reasoning"})  # the known types made of parts; custom types may be, too

# Items the stock client tells apart by (type, call_id) alone: two of one pair in a response make its helper raise.
BY_CALL_ID = frozenset({"function_call", "custom_tool_call", "shell_call", "shell_call_output"})

_NEEDS_CALL_ID = BY_CALL_ID | {
    "function_call_output",
    "custom_tool_call_output",
    "computer_call",
    "computer_call_output",
    "local_shell_call",
    "apply_patch_call",
    "apply_patch_call_output",
    "program",
    "program_output",
}

_PART_ALIASES: Mapping[str, Mapping[str, str]] = {
    "message": {"text": "output_text", "input_text": "output_text"},
    "reasoning": {"text": "reasoning_text", "output_text": "reasoning_text"},
}


def pruned(value: Any, depth: int = MAX_DEPTH) -> Any:
    """A copy of an agent's JSON value, cut to null below `depth` levels: what follows may recurse and serialise safely."""
    if isinstance(value, dict):
        below = depth - 1
        # Most of what there is are strings: they need no step down.
        return {str(k): v if type(v) is str else pruned(v, below) for k, v in value.items()} if depth else None
    if isinstance(value, list | tuple):
        return [pruned(v, depth - 1) for v in value] if depth else None
    return value


def logprobs_of(raw: Any) -> list[Any]:
    """The log probabilities of a delta or text: always a list."""
    return pruned(raw) if raw and isinstance(raw, list) else []


def claim(raw: Any, default_type: str | None = None) -> dict[str, Any] | None:
    """What an agent says an item is: all required fields, no foreign ones, parts in shape. None when it is no item."""
    if not isinstance(raw, Mapping):
        return None
    item: dict[str, Any] = pruned(dict(raw))
    kind = item.get("type")
    if not isinstance(kind, str) or not kind:
        kind = default_type or ("message" if "role" in item or "content" in item else None)
    if kind is None:
        return None
    item["type"] = kind
    for name in FOREIGN:
        item.pop(name, None)
    for name, default in _SHAPES.get(kind, ("", {}))[1].items():
        if item.get(name) is None and default is not None:
            item[name] = deepcopy(default)
        else:
            item.setdefault(name, None)
    text = FIELD_TEXTS.get(kind)
    if text is not None and not isinstance(item[text.field], str):
        item[text.field] = ""
    if kind in WITH_PARTS:
        _shape_parts(item)
    return item


def _shape_parts(item: dict[str, Any]) -> None:
    content = item.get("content")
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if content is not None or item["type"] == "message":
        item["content"] = part_claims(item["type"], CONTENT, content)
    if item["type"] == "reasoning":
        item["summary"] = part_claims("reasoning", SUMMARY, item.get("summary"))


def part_claims(owner: str, family: str, raw: Any) -> list[dict[str, Any]]:
    """The parts of a finished item as the agent gives them, in shape; what is no part is left out."""
    found = [part_claim(owner, family, one) for one in raw] if isinstance(raw, list) else []
    return [part for part in found if part is not None]


def part_claim(owner: str, family: str, raw: Any) -> dict[str, Any] | None:
    """One part in shape (type resolved, text, annotations and logprobs present), or None when it is no part."""
    if not isinstance(raw, Mapping):
        return None
    part: dict[str, Any] = pruned(dict(raw))
    kind = part.get("type")
    if family == SUMMARY:
        kind = SUMMARY_TEXT.kind
    elif not isinstance(kind, str) or not kind:
        kind = "refusal" if "refusal" in part else "text"
    return shaped_part(_PART_ALIASES.get(owner, {}).get(kind, kind), part)


def shaped_part(kind: str, part: dict[str, Any]) -> dict[str, Any]:
    """`part` as a part of type `kind` with the fields that type is never without."""
    part["type"] = kind
    text = PART_TEXTS.get(kind)
    if text is None:
        return part
    if not isinstance(part.get(text.field), str):
        part[text.field] = ""
    if text is OUTPUT_TEXT:
        given = part.get("annotations")
        part["annotations"] = [one for one in given if isinstance(one, dict)] if isinstance(given, list) else []
        part["logprobs"] = part["logprobs"] if isinstance(part.get("logprobs"), list) else []
    return part


def is_text_owner(owner: str, text: Text) -> bool:
    """Whether an item of type `owner` may stream `text`: the stock client refuses message text outside a message."""
    if text.family == FIELD:
        return owner in FIELD_TEXTS
    if text is SUMMARY_TEXT:
        return owner == "reasoning"
    return owner in WITH_PARTS


def text_for(owner: str, text: Text) -> Text:
    """The text kind an item of type `owner` streams when the agent used `text`'s events for it."""
    if text.family == FIELD:
        return FIELD_TEXTS[owner]
    return REASONING_TEXT if owner == "reasoning" and text is OUTPUT_TEXT else text


def implied_type(event_type: str) -> str | None:
    """The item type a progress event such as `response.web_search_call.searching` belongs to, or None."""
    words = event_type.split(".")
    return words[1] if len(words) == 3 and words[0] == "response" and words[1] in TYPES else None


def item_id(response_id: str, output_index: int, kind: str) -> str:
    """Our id of the item at `output_index`; custom types share the prefix `item`."""
    return names.item_id(response_id, output_index, _SHAPES.get(kind, ("item", {}))[0])


def made_call_id(response_id: str, output_index: int) -> str:
    """The call id of an item whose agent gave none: pure in (response, output index)."""
    return names.item_id(response_id, output_index, "call")


def call_id_at(response_id: str, output_index: int, kind: str, wanted: Any, taken: set[tuple[str, str]]) -> str | None:
    """The call id an item gets at `output_index`: the agent's own unless missing or, for its type, already taken.

    None: the type needs none and none was given. A renamed id is `WANTED_INDEX`, so that `is_call_id_of` recognises it.
    """
    if not isinstance(wanted, str) or not wanted:
        return made_call_id(response_id, output_index) if kind in _NEEDS_CALL_ID else None
    if kind not in BY_CALL_ID or (kind, wanted) not in taken:
        return wanted
    renamed = f"{wanted}_{output_index}"
    return renamed if (kind, renamed) not in taken else made_call_id(response_id, output_index)


def is_call_id_of(response_id: str, output_index: int, ours: Any, wanted: Any) -> bool:
    """Whether `ours`, logged at `output_index`, is what `call_id_at` made of an agent's `wanted`."""
    if not isinstance(wanted, str) or not wanted:
        return True
    return ours in (wanted, f"{wanted}_{output_index}", made_call_id(response_id, output_index))


def started(item: Mapping[str, Any]) -> dict[str, Any]:
    """The item as its `added` event shows it: no text yet, in progress. Streamed text comes by its own events only."""
    shown = dict(item)
    if shown["type"] in WITH_PARTS:
        if "content" in shown:
            shown["content"] = []
        if "summary" in shown:
            shown["summary"] = []
    text = FIELD_TEXTS.get(shown["type"])
    if text is not None:
        shown[text.field] = ""
    if shown.get("status") not in ("searching", "interpreting", "generating", "calling"):
        shown["status"] = "in_progress"
    return shown


def ended_status(status: Any, default: str) -> str:
    """The status of a finished item: the agent's if it is a final one, else `default`."""
    return status if status in ("completed", "incomplete", "failed") else default
