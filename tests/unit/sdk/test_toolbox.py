"""`MCPToolbox` and `step_tool` by themselves, and which tools of frameworks are left to a toolbox's journal. All together: `journey/`."""

from __future__ import annotations

import inspect
import json
from collections.abc import Awaitable, Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from moorage import MCPToolbox, OutcomeUnknown, step_tool
from moorage._errors import Misuse
from moorage.adapters import agent_framework, graph_tools
from moorage.adapters import once as once_module
from moorage.adapters.once import at_toolbox, mark_journaled
from moorage_api.wire.calls import TOOLBOXES_URL

pytestmark = pytest.mark.unit

HERE = "http://127.0.0.1:8099/toolboxes"


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOOLBOXES_URL, HERE)


def package(monkeypatch: pytest.MonkeyPatch, name: str, made: str, maker: object) -> None:
    """A framework's module with the one name that is taken from it."""
    module = ModuleType(name)
    setattr(module, made, maker)
    monkeypatch.setitem(__import__("sys").modules, name, module)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ((), {}),
        (("a",), {"endpoint": "http://x/mcp"}),
        (("http://x/mcp",), {}),
        (("A b",), {}),
        ((), {"endpoint": "http://x/mcp", "tool_search": True}),
    ],
)
def test_what_is_no_toolbox_is_refused_with_what_to_give(given: tuple[str, ...], named: dict[str, Any]) -> None:
    with pytest.raises(Misuse, match="MCPToolbox"):
        MCPToolbox(*given, **named)


def test_where_a_toolbox_is_is_read_when_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    desk, other = MCPToolbox("desk"), MCPToolbox(endpoint="https://tools.example.com/mcp")
    assert desk.url == f"{HERE}/desk/mcp" and other.url == "https://tools.example.com/mcp"
    monkeypatch.setenv(TOOLBOXES_URL, "http://127.0.0.1:9/toolboxes")
    assert desk.url == "http://127.0.0.1:9/toolboxes/desk/mcp"
    monkeypatch.delenv(TOOLBOXES_URL)
    with pytest.raises(Misuse, match=r"spec\.toolboxes"):
        desk.url  # noqa: B018


@pytest.mark.parametrize(("said", "query"), [(True, "?toolSearch=true"), (False, "?toolSearch=false"), (None, "")])
async def test_a_toolbox_that_is_to_be_searched_is_asked_so_by_every_framework(
    monkeypatch: pytest.MonkeyPatch, said: bool | None, query: str
) -> None:
    class Server:
        def __init__(self, url: str = "", **given: Any) -> None:
            self.url, self.given = url, given

        async def get_tools(self) -> list[Any]:
            return []

    made: list[Any] = []
    package(monkeypatch, "agent_framework", "MCPStreamableHTTPTool", Server)
    package(monkeypatch, "agents.mcp", "MCPServerStreamableHttp", dict)
    package(monkeypatch, "pydantic_ai.mcp", "MCPToolset", Server)
    package(
        monkeypatch, "langchain_mcp_adapters.client", "MultiServerMCPClient", lambda at: made.append(at) or Server()
    )
    desk = MCPToolbox("desk", tool_search=said)
    await desk.langgraph()
    found = [
        desk.agent_framework().url,
        desk.openai_agents()["params"]["url"],
        desk.pydantic_ai().url,
        made[0]["desk"]["url"],
    ]
    assert found == [f"{HERE}/desk/mcp{query}"] * 4 and at_toolbox(found[0])


def test_the_agent_frameworks_tool_knows_its_url_only_where_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    class Tool:
        def __init__(self, **given: Any) -> None:
            self.given, self.url = given, given["url"]

    package(monkeypatch, "agent_framework", "MCPStreamableHTTPTool", Tool)
    monkeypatch.delenv(TOOLBOXES_URL)
    tool = MCPToolbox("desk").agent_framework(allowed_tools=["add"])
    assert (tool.given["name"], tool.given["allowed_tools"]) == ("desk", ["add"])
    monkeypatch.setenv(TOOLBOXES_URL, HERE)
    assert tool.url == f"{HERE}/desk/mcp"


def test_what_is_given_by_name_goes_before_what_is_set_here(monkeypatch: pytest.MonkeyPatch) -> None:
    package(monkeypatch, "agents.mcp", "MCPServerStreamableHttp", dict)
    package(monkeypatch, "pydantic_ai.mcp", "MCPToolset", lambda url, **given: given | {"url": url})
    found = MCPToolbox("desk").openai_agents(cache_tools_list=False)
    assert found["params"]["url"] == f"{HERE}/desk/mcp" and found["cache_tools_list"] is False
    assert found["client_session_timeout_seconds"] > 900, "its own five seconds would end a call that goes on"
    toolset = MCPToolbox("desk").pydantic_ai(id="mine")
    assert toolset["id"] == "mine" and toolset["url"] == f"{HERE}/desk/mcp"
    assert toolset["tool_error_behavior"] == "failed", "by itself it tells a model to try again"


def connected(url: str) -> Callable[..., Awaitable[str]]:
    """As langchain-mcp-adapters makes a tool: a function around its connection."""
    connection = {"url": url}

    async def call_tool() -> str:
        return connection["url"]

    return call_tool


@pytest.mark.parametrize(
    ("url", "left"), [(f"{HERE}/desk/mcp", True), ("https://tools.example.com/mcp", False), (f"{HERE}-x/mcp", False)]
)
async def test_a_graphs_tools_at_a_toolbox_are_no_steps(monkeypatch: pytest.MonkeyPatch, url: str, left: bool) -> None:
    assert at_toolbox(url) is left
    steps = []

    async def step(name: str, *_: object) -> None:
        steps.append(name)
        raise OutcomeUnknown(name)

    class Plain:
        def __init__(self, **given: Any) -> None:
            self.given = given

    monkeypatch.setattr(once_module, "step", step)
    package(monkeypatch, "langgraph.checkpoint.serde.jsonplus", "JsonPlusSerializer", SimpleNamespace)
    package(monkeypatch, "langgraph.errors", "GraphBubbleUp", KeyError)
    package(monkeypatch, "langchain_core.messages", "ToolMessage", Plain)

    async def execute(_: Any) -> str:
        return "done"

    request = SimpleNamespace(
        tool_call={"name": "add", "args": {}, "id": "c"}, tool=SimpleNamespace(func=None, coroutine=connected(url))
    )
    found = await graph_tools._once(request, execute)
    assert (found == "done", steps) == ((True, []) if left else (False, ["add"]))
    mark_journaled(request.tool.coroutine)
    assert await graph_tools._once(request, execute) == "done"


class Refused(Exception):
    """What the framework makes of a result with `isError`."""


@pytest.mark.parametrize("at_door", [True, False])
async def test_an_agents_tools_at_a_toolbox_are_no_steps_and_their_errors_are_told(
    monkeypatch: pytest.MonkeyPatch, at_door: bool
) -> None:
    steps = []

    async def once(name: str, *_: object) -> str:
        steps.append(name)
        return "as a step"

    monkeypatch.setattr(agent_framework, "once", once)
    framework = SimpleNamespace(
        Content=SimpleNamespace(from_text=lambda text: text),
        MiddlewareTermination=KeyError,
        FunctionMiddleware=object,
        exceptions=SimpleNamespace(UserInputRequiredException=KeyError, ToolExecutionException=Refused),
    )
    function = SimpleNamespace(name="add", func=None)
    server = SimpleNamespace(url=f"{HERE}/desk/mcp" if at_door else "https://x.example.com/mcp", functions=[function])

    class Agent:
        mcp_tools = (server,)

        def run(self, middleware: object) -> None: ...

    async def refused() -> None:
        raise Refused("outcome_unknown: the call was sent")

    context = SimpleNamespace(function=function, arguments={}, result=None)
    (middleware,) = agent_framework._journaled(framework, Agent())["middleware"]
    await middleware.process(context, refused)
    assert (context.result, steps) == (
        (["outcome_unknown: the call was sent"], []) if at_door else ("as a step", ["add"])
    )


async def test_a_step_tool_keeps_what_a_framework_reads_and_tells_what_must_not_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def charge(order: str, amount: int = 2) -> str:
        """Charges it."""
        return f"{amount} for {order}"

    tool = step_tool(charge)
    assert tool.__name__ == "charge" and tool.__doc__ == "Charges it."
    assert inspect.signature(tool) == inspect.signature(charge)
    assert await tool("a", amount=3) == "3 for a"

    async def lost(name: str, _: object, given: dict[str, Any]) -> None:
        assert given == {"order": "a"}
        raise OutcomeUnknown(name)

    monkeypatch.setattr(once_module, "step", lost)
    assert json.loads(await tool("a"))["error"] == "outcome_unknown"


async def test_a_step_tool_of_a_coroutine_runs_it() -> None:
    async def charge(order: str) -> list[str]:
        return [order]

    assert await step_tool(charge)("a") == ["a"]
