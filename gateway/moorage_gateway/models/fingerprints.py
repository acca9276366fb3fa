"""What makes a model request the same one in another attempt. Layer: pure.

A request is its endpoint, method, path, query, the headers that change its meaning, and its body. Left out is what clients vary without
meaning it, and nothing else:

    order of keys, whitespace, escapes      the body is compared as JSON
    order of the query                      compared as sorted pairs
    all headers but `MEANING`               retry counts, versions of clients, trace context, user agents
    ids of calls                            `call_…`, `toolu_…`: some frameworks make them up anew; named by their order instead
    ids of input items (Responses)          the same; but not those of `item_reference`, which say which item is meant
    trace ids in `metadata`                 `TRACE`; the rest of `metadata` counts

A body that is no JSON is compared byte by byte.
"""

from __future__ import annotations

import hashlib
from typing import Any
from urllib.parse import parse_qsl

import orjson

MEANING = frozenset({"anthropic-beta", "anthropic-version", "openai-beta", "content-type"})
TRACE = frozenset(
    {
        "traceparent",
        "tracestate",
        "trace_id",
        "trace-id",
        "span_id",
        "span-id",
        "request_id",
        "request-id",
        "x-request-id",
    }
)
LENGTH = 40  # hex digits: 160 bits

_CALL_IDS = ("call_id", "tool_call_id", "tool_use_id")


def fingerprint(
    endpoint: str, method: str, target: str, headers: tuple[tuple[str, str], ...], body: bytes, parsed: Any = None
) -> str:
    """Hex. `parsed` is the body as JSON where it is some; it is not changed."""
    return digest(*parts(endpoint, method, target, headers, body, parsed))


def digest(head: bytes, body: bytes) -> str:
    """The fingerprint of what `parts` gave."""
    found = hashlib.sha256(head + b"\n")
    found.update(body)
    return found.hexdigest()[:LENGTH]


def parts(
    endpoint: str, method: str, target: str, headers: tuple[tuple[str, str], ...], body: bytes, parsed: Any = None
) -> tuple[bytes, bytes]:
    """What counts of a request: all but its body, and its body."""
    head = orjson.dumps(_head(endpoint, method, target, headers))
    return head, body if parsed is None else orjson.dumps(canonical(parsed), option=orjson.OPT_SORT_KEYS)


def shown(endpoint: str, method: str, target: str, headers: tuple[tuple[str, str], ...], parsed: Any) -> dict[str, Any]:
    """All that makes a request the same one, for people to compare: equal exactly where fingerprints are."""
    names = ("endpoint", "method", "path", "query", "headers")
    return dict(zip(names, _head(endpoint, method, target, headers), strict=True)) | {"body": canonical(parsed)}


def _head(endpoint: str, method: str, target: str, headers: tuple[tuple[str, str], ...]) -> list[Any]:
    path, _, query = target.partition("?")
    said = {name.lower(): " ".join(value.lower().split()) for name, value in headers if name.lower() in MEANING}
    return [endpoint, method, path, sorted(parse_qsl(query, keep_blank_values=True)), sorted(said.items())]


def canonical(body: Any) -> Any:
    """The body without what has no meaning."""
    if not isinstance(body, dict):
        return body
    names = _Names()
    found = dict(body)
    if isinstance(body.get("messages"), list):
        found["messages"] = [_message(each, names) for each in body["messages"]]
    if isinstance(body.get("input"), list):
        found["input"] = [_item(each, names) for each in body["input"]]
    if isinstance(body.get("metadata"), dict):
        found["metadata"] = {name: value for name, value in body["metadata"].items() if name.lower() not in TRACE}
        if not found["metadata"]:
            del found["metadata"]
    return found


class _Names:
    """Ids by the order in which they are first met."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def of(self, value: Any) -> Any:
        """`#1`, `#2` … for text; anything else stays."""
        return self._known.setdefault(value, f"#{len(self._known) + 1}") if isinstance(value, str) else value


def _message(message: Any, names: _Names) -> Any:
    """One of chat completions' or of Anthropic's."""
    if not isinstance(message, dict):
        return message
    found = _named(message, names)
    calls = message.get("tool_calls")
    if isinstance(calls, list):
        found["tool_calls"] = [_called(each, names) for each in calls]
    content = message.get("content")
    if isinstance(content, list):
        found["content"] = [_block(each, names) for each in content]
    return found


def _block(block: Any, names: _Names) -> Any:
    if not isinstance(block, dict):
        return block
    return _called(block, names) if block.get("type") == "tool_use" else _named(block, names)


def _called(call: Any, names: _Names) -> Any:
    if not isinstance(call, dict):
        return call
    found = _named(call, names)
    if "id" in found:
        found["id"] = names.of(found["id"])
    return found


def _item(item: Any, names: _Names) -> Any:
    """One input item of the Responses API."""
    if not isinstance(item, dict):
        return item
    found = _named(item, names)
    if item.get("type") != "item_reference":
        found.pop("id", None)
    return found


def _named(part: dict[str, Any], names: _Names) -> dict[str, Any]:
    return {name: names.of(value) if name in _CALL_IDS else value for name, value in part.items()}
