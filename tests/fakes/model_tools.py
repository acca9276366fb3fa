"""What the scripted models answer when they are told to call tools: `call NAME {JSON}`, more of them behind `;`.

Only when the request offers tools: chat completions and Responses, whole and streamed. Every call has an id of its own, arguments come
in two pieces, and the answer counts 3 tokens in and 5 out. `pause` in such a text steers what follows, by the tool's result.
"""

from __future__ import annotations

import json
import re
from typing import Any

USED_IN, USED_OUT = 3, 5


def asked(text: str, body: dict[str, Any], number: int) -> list[tuple[str, str]]:
    """Names and arguments of the calls that the text asks for; NUMBER in them is how many answers there were with this one."""
    if not body.get("tools"):
        return []
    text = text.replace("NUMBER", str(number))
    return [(name, arguments) for name, arguments in re.findall(r"call (\w+) (\{.*?\})(?=;|$)", text)]


def answer(path: str, body: dict[str, Any], number: int, calls: list[tuple[str, str]]) -> dict[str, Any]:
    """The whole answer."""
    model = body.get("model", "deployed")
    if "/responses" in path:
        return {
            "id": f"resp_{number}", "object": "response", "created_at": 1, "model": model, "status": "completed",
            "output": [_item(number, n, *call) for n, call in enumerate(calls)], "parallel_tool_calls": True, "tool_choice": "auto",
            "tools": [], "usage": _responses_usage(),
        }  # fmt: skip
    message = {
        "role": "assistant",
        "content": None,
        "tool_calls": [_call(number, n, *call) for n, call in enumerate(calls)],
    }
    choice = {"index": 0, "finish_reason": "tool_calls", "message": message}
    return {
        "id": f"chatcmpl-{number}", "object": "chat.completion", "created": 1, "model": model, "choices": [choice], "usage": _chat_usage(),
    }  # fmt: skip


def events(path: str, body: dict[str, Any], number: int, calls: list[tuple[str, str]]) -> list[bytes]:
    """The same as server-sent events."""
    return (_responses if "/responses" in path else _chunks)(path, body, number, calls)


def _chunks(path: str, body: dict[str, Any], number: int, calls: list[tuple[str, str]]) -> list[bytes]:
    base = {
        "id": f"chatcmpl-{number}",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": body.get("model", "deployed"),
    }

    def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        return {**base, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}

    told = [chunk({"role": "assistant", "content": None})]
    for n, (name, arguments) in enumerate(calls):
        half = len(arguments) // 2
        head = {"index": n, "id": f"call_{number}_{n}", "type": "function", "function": {"name": name, "arguments": ""}}
        told.append(chunk({"tool_calls": [head]}))
        pieces = (arguments[:half], arguments[half:])
        told += [chunk({"tool_calls": [{"index": n, "function": {"arguments": piece}}]}) for piece in pieces]
    told.append(chunk({}, "tool_calls"))
    if (body.get("stream_options") or {}).get("include_usage"):
        told.append({**base, "choices": [], "usage": _chat_usage()})
    return [*(b"data: %b\n\n" % json.dumps(each).encode() for each in told), b"data: [DONE]\n\n"]


def _responses(path: str, body: dict[str, Any], number: int, calls: list[tuple[str, str]]) -> list[bytes]:
    whole = answer(path, body, number, calls)
    told: list[tuple[str, dict[str, Any]]] = [
        ("response.created", {"response": whole | {"status": "in_progress", "output": []}})
    ]
    for n, item in enumerate(whole["output"]):
        where = {"item_id": item["id"], "output_index": n}
        told += [
            (
                "response.output_item.added",
                {"output_index": n, "item": item | {"arguments": "", "status": "in_progress"}},
            ),
            ("response.function_call_arguments.delta", {**where, "delta": item["arguments"][:3]}),
            ("response.function_call_arguments.delta", {**where, "delta": item["arguments"][3:]}),
            ("response.function_call_arguments.done", {**where, "name": item["name"], "arguments": item["arguments"]}),
            ("response.output_item.done", {"output_index": n, "item": item}),
        ]
    told.append(("response.completed", {"response": whole}))
    return [
        b"event: %b\ndata: %b\n\n"
        % (kind.encode(), json.dumps({"type": kind, "sequence_number": at, **value}).encode())
        for at, (kind, value) in enumerate(told)
    ]


def _item(number: int, n: int, name: str, arguments: str) -> dict[str, Any]:
    return {
        "type": "function_call", "id": f"fc_{number}_{n}", "call_id": f"call_{number}_{n}", "name": name, "arguments": arguments,
        "status": "completed",
    }  # fmt: skip


def _call(number: int, n: int, name: str, arguments: str) -> dict[str, Any]:
    return {"id": f"call_{number}_{n}", "type": "function", "function": {"name": name, "arguments": arguments}}


def _chat_usage() -> dict[str, Any]:
    return {"prompt_tokens": USED_IN, "completion_tokens": USED_OUT, "total_tokens": USED_IN + USED_OUT}


def _responses_usage() -> dict[str, Any]:
    return {
        "input_tokens": USED_IN, "output_tokens": USED_OUT, "total_tokens": USED_IN + USED_OUT,
        "input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0},
    }  # fmt: skip
