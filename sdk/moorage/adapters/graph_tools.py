"""The tools of a LangGraph graph as steps of the journal. Layer: SDK, under the LangGraph adapter.

Every `ToolNode` of the graph and of the graphs in it runs its tools through a wrapper, inside those that it was made with. Tools that
a node calls by itself are its own code: nobody else sees them.
"""

from __future__ import annotations

import base64
import inspect
import json
from collections.abc import Awaitable, Callable, Iterator
from importlib import import_module
from typing import Any

from moorage.adapters.once import JOURNALED, Told, at_toolbox, once, reads_only

Execute = Callable[[Any], Awaitable[Any]]
_DONE = "_moorage_journaled"


def journal(graph: Any) -> None:
    """Makes the tools of all nodes steps, once a node. Raises TypeError for a node whose wrapper is only a blocking one."""
    for node in _tool_nodes(graph):
        if not hasattr(node, _DONE):
            _wrap(node)
            setattr(node, _DONE, True)


def _tool_nodes(graph: Any) -> Iterator[Any]:
    inner = [each for _, each in graph.get_subgraphs(recurse=True)]
    for each in (graph, *inner):
        for node in getattr(each, "nodes", {}).values():
            bound = getattr(node, "bound", None)
            for step in (bound, *getattr(bound, "steps", ())):
                if hasattr(step, "tools_by_name") and hasattr(step, "_awrap_tool_call"):
                    yield step


def _wrap(node: Any) -> None:
    before = node._awrap_tool_call
    if before is None and node._wrap_tool_call is not None:
        raise TypeError(
            f"the tools of node {node.name!r} have a blocking wrapper: give its ToolNode awrap_tool_call as well"
        )

    async def wrapper(request: Any, execute: Execute) -> Any:
        async def made(request: Any) -> Any:
            return await _once(request, execute)

        return await (made(request) if before is None else before(request, made))

    node._awrap_tool_call = wrapper


async def _once(request: Any, execute: Execute) -> Any:
    """The result of one call of a tool: a message, or a command to the graph."""
    call, tool = request.tool_call, request.tool
    function, coroutine = getattr(tool, "func", None), getattr(tool, "coroutine", None)
    if tool is None or reads_only(function) or reads_only(coroutine) or _journaled(coroutine):
        return await execute(request)
    codec = import_module("langgraph.checkpoint.serde.jsonplus").JsonPlusSerializer()
    bubbles = (import_module("langgraph.errors").GraphBubbleUp,)

    def pack(result: Any) -> list[str]:
        kind, data = codec.dumps_typed(result)
        return [kind, base64.b64encode(data).decode("ascii")]

    def unpack(kept: Any) -> Any:
        return codec.loads_typed((kept[0], base64.b64decode(kept[1])))

    def readable(kept: Any) -> Any:
        result = kept if isinstance(kept, str) else unpack(kept)
        return getattr(result, "content", str(result))

    found = await once(call["name"], call["args"], lambda: execute(request), pack, bubbles)
    if isinstance(found, Told):
        said = json.dumps(found.as_json(readable), ensure_ascii=False, default=str)
        message = import_module("langchain_core.messages").ToolMessage
        return message(content=said, name=call["name"], tool_call_id=call["id"], status="error")
    return _for(call["id"], unpack(found))


def _journaled(coroutine: Any) -> bool:
    """Whether it calls a toolbox: as `MCPToolbox` marks it, or as langchain-mcp-adapters makes a tool, around the connection's settings."""
    if getattr(coroutine, JOURNALED, False):
        return True
    if not inspect.isfunction(coroutine):
        return False
    connection = inspect.getclosurevars(coroutine).nonlocals.get("connection")
    return isinstance(connection, dict) and at_toolbox(connection.get("url"))


def _for(identity: str, result: Any) -> Any:
    """The recorded result under this attempt's name of the call: a model that was asked anew names it anew."""
    if hasattr(result, "tool_call_id"):
        return result.model_copy(update={"tool_call_id": identity})
    update = getattr(result, "update", None)
    if isinstance(update, dict) and isinstance(update.get("messages"), list):
        update["messages"] = [
            _for(identity, each) if hasattr(each, "tool_call_id") else each for each in update["messages"]
        ]
    return result
