"""What the scripted model of a framework's agent asks for: five questions, five effects, two beside each other. Pure.

Everything is read out of the conversation, as a model does: which effects were told as done, which are to be looked for, which to be made
(again). The first user message is `RUN MODE`. Limits: chat completions and Responses; one turn a conversation.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from crash.sweep.agents.reading import AGAIN, DONE, LOOK, verdict

STAGES = ((1,), (2, 3), (4,), (5,))
"""Effects by the question that is answered with them; one question more is answered with words."""
OVER_MCP = frozenset({3, 5})
_ASKED = re.compile(r"([0-9a-f]{12}) (same|clock|fresh)")
_MARKS = re.compile(r"at [\d.]+(?: [0-9a-f-]{36})?")


def read(body: dict[str, Any]) -> tuple[str, str] | None:
    """`RUN QUESTION MARKS`, and the calls to make (`model_tools`), for a request of such an agent; None for any other."""
    said = list(_said(body))
    first = next((found for kind, text in said if kind == "user" and (found := _ASKED.fullmatch(text.strip()))), None)
    if first is None:
        return None
    run, mode = first.groups()
    marks = " ".join(found[0] for kind, text in said if kind == "system" and (found := _MARKS.search(text)))
    question, calls = _next(run, mode, _known(said))
    return f"{run} {question} {marks}".strip(), "; ".join(calls)


def _known(said: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Keys that something was told of, with the verdict; in the order of the telling."""
    keys = {name: json.loads(text)["key"] for kind, text in said if (name := kind.removeprefix("call ")) != kind}
    return [
        (keys[name], verdict(keys[name], text)) for kind, text in said if (name := kind.removeprefix("told ")) != kind
    ]


def _next(run: str, mode: str, known: list[tuple[str, str]]) -> tuple[str, list[str]]:
    state = dict(known)
    for number, effects in enumerate(STAGES, 1):
        keys = {f"{run}-{n}": n for n in effects}
        open_ = {key: n for key, n in keys.items() if state.get(key) != DONE}
        if open_:
            again = f".{len(known)}" if keys.keys() & state.keys() else ""
            return f"q{number}{again}", [_call(mode, key, n, state.get(key, AGAIN)) for key, n in open_.items()]
    return f"q{len(STAGES) + 1}", []


def _call(mode: str, key: str, n: int, what: str) -> str:
    if what == LOOK:
        return f'call is_there {{"key": "{key}"}}'
    name = f"post_{n}" if mode != "same" else "book" if n in OVER_MCP else "post"
    return f'call {name} {{"key": "{key}", "note": "answer NUMBER"}}'


def _said(body: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(who or what, text): `system`, `user`, `call ID` with arguments, `told ID` with a result."""
    if isinstance(body.get("instructions"), str):
        yield "system", body["instructions"]
    given = body.get("messages") or body.get("input") or []
    messages: list[Any] = [{"role": "user", "content": given}] if isinstance(given, str) else given
    for each in messages:
        kind, role = each.get("type", "message"), each.get("role", "")
        for call in each.get("tool_calls") or ():
            yield f"call {call['id']}", call["function"]["arguments"]
        if kind == "function_call":
            yield f"call {each['call_id']}", each["arguments"]
        elif kind == "function_call_output":
            yield f"told {each['call_id']}", _text(each["output"])
        elif role == "tool":
            yield f"told {each['tool_call_id']}", _text(each["content"])
        elif role in ("system", "developer"):
            yield "system", _text(each["content"])
        elif role == "user":
            yield "user", _text(each["content"])


def _text(content: Any) -> str:
    return content if isinstance(content, str) else " ".join(str(part.get("text", "")) for part in content or ())
