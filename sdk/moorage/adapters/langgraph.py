"""Compiled graphs of LangGraph. Layer: SDK.

The framework is imported by its graph, never by us. Its state between turns is the thread's last checkpoint, kept on the workspace
(`graph_state`): a checkpointer that the graph was compiled with is put aside for it, since that one knows of no attempts.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from contextlib import aclosing
from importlib import import_module
from typing import Any

from moorage._context import Context
from moorage.adapters import chat, graph_state, graph_tools
from moorage.adapters.carried import Carried
from moorage.events import Event, ReasoningDelta, TextDelta, ToolCall, ToolResult, Usage

INTERRUPT = "interrupt"
"""Name of the call by which a graph's `interrupt(value)` is told; its result is what the graph goes on with."""

_MODEL = frozenset({"ai", "AIMessageChunk"})


class LangGraphAdapter:
    """Runs a graph whose state has `messages`. Raises TypeError for one that has none."""

    def __init__(self, graph: Any) -> None:
        if "messages" not in graph.channels:
            raise TypeError(
                "the graph's state has no `messages`: build it on MessagesState, or call it from a function agent(items, ctx)"
            )
        graph_tools.journal(graph)
        self._graph = graph

    async def run(self, items: list[dict[str, Any]], session: str, ctx: Context) -> AsyncGenerator[Event, None]:
        """Events of one turn. Raises what the graph raises, and ValueError for input or state that cannot be told or kept."""
        carried = Carried(ctx, "langgraph")
        kept = carried.load()
        saver = import_module("langgraph.checkpoint.memory").InMemorySaver()
        graph = copy.copy(self._graph)
        graph.checkpointer = saver
        config = {"configurable": {"thread_id": session}}
        restored = isinstance(kept, dict) and graph_state.restore(saver, session, kept.get("graph"))
        asked = kept.get("interrupts", {}) if restored and isinstance(kept, dict) else {}
        known = await _known(graph, config) if restored else frozenset()
        telling = _Telling(ctx.response_id, known)
        stream = graph.astream(
            _begin(items, [] if restored else ctx.history, asked),
            config,
            stream_mode=["messages", "updates"],
            durability="exit",
        )
        try:
            async with aclosing(stream):
                async for mode, told in stream:
                    for event in telling.piece(*told) if mode == "messages" else telling.patches(told):
                        yield event
            for event in telling.end():
                yield event
        except BaseException:  # closed, cancelled or failed: whatever is left running learns that the turn is over
            ctx.cancelled.set()
            raise
        carried.save({"graph": graph_state.export(saver, session), "interrupts": telling.interrupts})


def _begin(items: list[dict[str, Any]], history: list[dict[str, Any]], asked: Mapping[str, str]) -> Any:
    """What the graph is started with: new messages, or the answers to what it asked for by `interrupt`."""
    new = chat.messages(items, strict=True)
    answers = {
        asked[each.id]: _value(each.output) for each in new if isinstance(each, chat.Returned) and each.id in asked
    }
    if answers:
        return import_module("langgraph.types").Command(resume=answers)
    before = chat.settled(each for each in chat.messages(history, strict=False) if _plain(each))
    return {"messages": [_message(each) for each in (*before, *new)]}


def _plain(message: chat.Message) -> bool:
    return not (isinstance(message, chat.Called) and message.name == INTERRUPT)


async def _known(graph: Any, config: Any) -> frozenset[str]:
    """Ids of the messages that earlier turns told."""
    state = await graph.aget_state(config)
    return frozenset(each.id for each in state.values.get("messages") or () if getattr(each, "id", None))


class _Telling:
    """What a graph streams, as events: text as the models say it, calls and results when their node is done."""

    def __init__(self, response: str, known: frozenset[str]) -> None:
        self._response = response
        self._told = set(known)  # ids of messages whose calls and results were told
        self._heard: set[str] = set()  # ids of messages whose text and usage were told while they were said
        self._speaker: str | None = None
        self._awaited: list[str] = []  # ids of calls without a result, in the order they were asked
        self._results: dict[str, ToolResult] = {}
        self.interrupts: dict[str, str] = {}

    def piece(self, message: Any, _metadata: Any) -> Iterator[Event]:
        """Of a message while a model says it."""
        if getattr(message, "type", None) not in _MODEL or message.id in self._told:
            return
        yield from self._said(message)
        if message.id:
            self._heard.add(message.id)

    def patches(self, told: Mapping[str, Any]) -> Iterator[Event]:
        """Of what nodes changed in the state."""
        for node, patch in told.items():
            if node == "__interrupt__":
                yield from self._asked(patch)
                continue
            for each in patch if isinstance(patch, list | tuple) else (patch,):
                given = each.get("messages") if isinstance(each, Mapping) else None
                for message in given if isinstance(given, list | tuple) else (given,):
                    yield from self._message(message)

    def _message(self, message: Any) -> Iterator[Event]:
        kind, identity = getattr(message, "type", None), getattr(message, "id", None)
        if identity in self._told or kind not in ("tool", *_MODEL):
            return
        if kind == "tool":
            self._speaker = None
            content = message.content
            yield from self._result(
                ToolResult(message.tool_call_id, content if isinstance(content, str) else _text(content))
            )
        else:
            if identity not in self._heard:
                yield from self._said(message)
            for call in message.tool_calls:
                self._speaker = None
                self._awaited.append(call["id"])
                yield ToolCall(call["id"] or "", call["name"], call["args"])
        if identity:
            self._told.add(identity)

    def _result(self, result: ToolResult) -> Iterator[Event]:
        """Results in the order of their calls: tools that run at once end in any order, and each attempt shall say the same."""
        if result.id not in self._awaited:
            yield result
            return
        self._results[result.id] = result
        while self._awaited and self._awaited[0] in self._results:
            yield self._results.pop(self._awaited.pop(0))

    def end(self) -> Iterator[Event]:
        """Results that waited for one that never came."""
        yield from self._results.values()

    def _said(self, message: Any) -> Iterator[Event]:
        for kind, text in _pieces(message.content):
            if kind == "text":
                if self._speaker not in (None, message.id):
                    yield TextDelta("\n\n")  # another message right after one: they shall not run together
                self._speaker = message.id
                yield TextDelta(text)
            else:
                yield ReasoningDelta(text)
        used = getattr(message, "usage_metadata", None)
        if used:
            cached = (used.get("input_token_details") or {}).get("cache_read") or 0
            reasoned = (used.get("output_token_details") or {}).get("reasoning") or 0
            yield Usage(used.get("input_tokens") or 0, used.get("output_tokens") or 0, cached, reasoned)

    def _asked(self, interrupts: Iterable[Any]) -> Iterator[Event]:
        for each in interrupts:
            number = f"{self._response}/{len(self.interrupts)}"
            identity = f"interrupt_{hashlib.sha256(number.encode()).hexdigest()[:24]}"
            self.interrupts[identity] = each.id
            self._speaker = None
            yield ToolCall(identity, INTERRUPT, json.dumps({"value": each.value}, ensure_ascii=False, default=str))


def _pieces(content: Any) -> Iterator[tuple[str, str]]:
    """Texts of a message's content, with what they are: text or reasoning."""
    for block in [content] if isinstance(content, str) else content:
        if isinstance(block, str):
            kind, text = "text", block
        elif block.get("type") in ("text", "output_text"):
            kind, text = "text", block.get("text") or ""
        elif block.get("type") in ("reasoning", "thinking"):
            kind, text = "reasoning", block.get("reasoning") or block.get("thinking") or ""
        else:
            continue
        if text:
            yield kind, text


def _text(content: Any) -> str:
    """A tool's result as text: its texts, or all of it as JSON."""
    texts = [block if isinstance(block, str) else block.get("text") for block in content]
    if all(isinstance(text, str) for text in texts):
        return "\n".join(texts)
    return json.dumps(content, ensure_ascii=False, default=str)


def _value(output: str) -> Any:
    """What an interrupt is answered with: the value that a JSON text stands for, else the text."""
    try:
        return json.loads(output)
    except ValueError:
        return output


def _message(message: chat.Message) -> dict[str, Any]:
    """The form that LangChain reads from every model's users."""
    match message:
        case chat.Called(identity, name, arguments):
            call = {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}
            return {"role": "assistant", "content": "", "tool_calls": [call]}
        case chat.Returned(identity, output):
            return {"role": "tool", "tool_call_id": identity, "content": output}
        case chat.Said(role, parts):
            if all(part.kind == "text" for part in parts):
                return {"role": role, "content": "\n".join(part.text for part in parts)}
            return {"role": role, "content": [_block(part) for part in parts]}


def _block(part: chat.Part) -> dict[str, Any]:
    if part.kind == "text":
        return {"type": "text", "text": part.text}
    if part.kind == "image" and not part.file:
        return {"type": "image_url", "image_url": {"url": part.url}}
    file = {"file_id": part.file} if part.file else {"file_data": part.url, "filename": part.name}
    return {"type": "file", "file": file}
