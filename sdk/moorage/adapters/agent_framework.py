"""Agents of the Microsoft Agent Framework: what has `run(messages, stream=True, session=…)`. Layer: SDK.

The framework is imported by its agent, never by us. Its `AgentSession` is what it carries between turns: with it, its history.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from importlib import import_module
from typing import Any

from moorage._context import Context
from moorage.adapters import chat
from moorage.adapters.carried import Carried
from moorage.adapters.once import Told, at_toolbox, once, reads_only
from moorage.events import Error, Event, ReasoningDelta, TextDelta, ToolCall, ToolResult, Usage


class AgentFrameworkAdapter:
    """Runs an agent of the framework; stateless, so one agent serves all turns."""

    def __init__(self, agent: Any) -> None:
        self._agent = agent

    async def run(self, items: list[dict[str, Any]], session: str, ctx: Context) -> AsyncGenerator[Event, None]:
        """Events of one turn. Raises what the agent raises, and ValueError for input or state that cannot be told or kept."""
        framework = import_module("agent_framework")
        carried = Carried(ctx, "agent-framework")
        kept = carried.load()
        said = chat.messages(items, strict=True)
        if isinstance(kept, dict) and isinstance(kept.get("session_id"), str):
            thread = framework.AgentSession.from_dict(kept)
        else:
            thread = framework.AgentSession(session_id=session)
            said = [*chat.settled(chat.messages(ctx.history, strict=False)), *said]
        telling = _Telling()
        stream = self._agent.run(
            [_message(framework, each) for each in said],
            stream=True,
            session=thread,
            **_journaled(framework, self._agent),
        )
        if not hasattr(stream, "__aiter__"):
            stream = await stream
        try:
            async for update in stream:
                for event in telling.tell(update.contents):
                    yield event
            for event in telling.end():
                yield event
            final = getattr(stream, "get_final_response", None)
            if final is not None:
                await final()  # runs what the agent's providers do after a run: they write into the session
        except BaseException:  # closed, cancelled or failed: whatever is left running learns that the turn is over
            ctx.cancelled.set()
            raise
        finally:
            close = getattr(stream, "close", None) or getattr(stream, "aclose", None)
            if close is not None:
                await close()
        carried.save(thread.to_dict())


def _journaled(framework: Any, agent: Any) -> dict[str, Any]:
    """Arguments of `run` by which the agent's function tools become steps; an agent that takes no middleware has none of them."""
    if "middleware" not in inspect.signature(agent.run).parameters:
        return {}
    content = framework.Content
    passing = (framework.MiddlewareTermination, framework.exceptions.UserInputRequiredException)

    class Journaled(framework.FunctionMiddleware):  # type: ignore[misc]
        """Runs the call inside it once in a turn."""

        async def process(self, context: Any, call_next: Any) -> None:
            if reads_only(getattr(context.function, "func", None)):
                await call_next()
                return
            if _calls_toolbox(agent, context.function):
                try:
                    await call_next()
                except (
                    framework.exceptions.ToolExecutionException
                ) as refused:  # whose words the framework keeps from the model
                    context.result = [content.from_text(str(refused))]
                return

            async def run() -> Any:
                await call_next()
                return context.result

            given = context.arguments
            arguments = dict(given) if isinstance(given, Mapping) else given.model_dump(mode="json")
            found = await once(context.function.name, arguments, run, _packed, passing)
            if isinstance(found, Told):
                context.result = [content.from_text(_json(found.as_json(_readable)))]
            elif isinstance(found, dict):
                context.result = [content.from_dict(each) for each in found["contents"]]
            else:
                context.result = found

    return {"middleware": [Journaled()]}


def _calls_toolbox(agent: Any, function: Any) -> bool:
    """Whether it is a tool of a toolbox, whose journal has the call."""
    doors = [tool for tool in getattr(agent, "mcp_tools", ()) if at_toolbox(getattr(tool, "url", None))]
    return any(each is function for tool in doors for each in tool.functions)


def _packed(result: Any) -> Any:
    if isinstance(result, list) and all(hasattr(each, "to_dict") for each in result):
        return {"contents": [each.to_dict() for each in result]}
    return result if isinstance(result, str) else json.dumps(result, ensure_ascii=False, default=str)


def _readable(kept: Any) -> Any:
    return "\n".join(str(each.get("text") or "") for each in kept["contents"]) if isinstance(kept, dict) else kept


class _Telling:
    """The framework's contents as events. Calls arrive in pieces: a call is told when something else follows."""

    def __init__(self) -> None:
        self._calls: dict[str, _Call] = {}
        self._at: dict[object, str] = {}  # index of a call in the model's answer, to its id
        self._last = ""
        self._text = {"text": "", "text_reasoning": ""}
        self._used: tuple[int, ...] = (0, 0, 0, 0)

    def tell(self, contents: Iterable[Any]) -> Iterator[Event]:
        """Events of one update."""
        for content in contents:
            if content.type == "function_call":
                self._collect(content)
                continue
            if content.type in self._text:
                event = self._more(content)
                if event is None:
                    continue
                yield from self.end()
                yield event
                continue
            yield from self.end()
            if content.type == "usage":
                yield self._more_used(content)
                continue
            yield from _whole(content)

    def end(self) -> Iterator[Event]:
        """The calls that were still growing."""
        for identity, call in self._calls.items():
            yield ToolCall(identity, call.name, call.arguments or "{}")
        self._calls, self._at = {}, {}

    def _collect(self, content: Any) -> None:
        openai = (content.additional_properties or {}).get("openai")
        index = openai.get("tool_call_index") if isinstance(openai, dict) else None
        identity = content.call_id or (self._at.get(index) if index is not None else None) or self._last
        if index is not None:
            self._at[index] = identity
        self._last = identity
        call = self._calls.setdefault(identity, _Call())
        call.name = content.name or call.name
        if isinstance(content.arguments, str) and content.merge_mode != "replace":
            call.arguments += content.arguments
        elif content.arguments is not None:
            call.arguments = _json(content.arguments)

    def _more(self, content: Any) -> Event | None:
        """The text that is new: some models tell a whole part again when it is over."""
        kind, text = content.type, content.text or ""
        if getattr(content, "merge_mode", None) == "replace":
            told, self._text[kind] = self._text[kind], ""
            if not text.startswith(told):
                return None
            text = text[len(told) :]
        else:
            self._text[kind] += text
        if not text:
            return None
        return TextDelta(text) if kind == "text" else ReasoningDelta(text)

    def _more_used(self, content: Any) -> Usage:
        """The tokens that are new: from a turn's second request to a model on the framework tells all that were used so far."""
        details = content.usage_details or {}
        names = ("input", "output", "cache_read_input", "reasoning_output")
        told = tuple(int(details.get(f"{name}_token_count") or 0) for name in names)
        replaces = getattr(content, "merge_mode", None) == "replace"
        new = [max(0, one - had) if replaces else one for one, had in zip(told, self._used, strict=True)]
        self._used = tuple(had + one for had, one in zip(self._used, new, strict=True))
        return Usage(*new)


class _Call:
    """A call while it is told."""

    def __init__(self) -> None:
        self.name = ""
        self.arguments = ""


def _whole(content: Any) -> Iterator[Event]:
    """Events of a content that arrives at once; contents that have no place in an answer are left out."""
    match content.type:
        case "function_result":
            yield ToolResult(content.call_id, content.result if content.result is not None else "")
        case "error":
            yield Error(content.message or "the model failed", content.error_code or "server_error")
        case "function_approval_request":
            called = content.function_call
            yield Error(
                f"the agent asks for approval of {getattr(called, 'name', 'a function')}, which cannot be asked for here:"
                ' make the tool with approval_mode="never_require"'
            )


def _message(framework: Any, message: chat.Message) -> Any:
    """The framework's own message."""
    make = framework.Content
    match message:
        case chat.Called(identity, name, arguments):
            return framework.Message("assistant", [make.from_function_call(identity, name, arguments=arguments)])
        case chat.Returned(identity, output):
            return framework.Message("tool", [make.from_function_result(identity, result=output)])
        case chat.Said(role, parts):
            return framework.Message(role, [_content(make, part) for part in parts])


def _content(make: Any, part: chat.Part) -> Any:
    if part.kind == "text":
        return make.from_text(part.text)
    if part.file:
        return make.from_hosted_file(part.file)
    if part.url.startswith("data:"):
        return make.from_uri(part.url)
    return make.from_uri(part.url, media_type="image/*" if part.kind == "image" else "application/octet-stream")


def _json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(dict(value), ensure_ascii=False)
