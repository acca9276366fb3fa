"""A toolbox, or any MCP server, as the tools of a framework: `moorage.MCPToolbox`. Layer: SDK, public.

Each method gives the framework's own class for MCP, set up so that a model reads every result, `outcome_unknown` and
`already_done_in_earlier_attempt` among them, and that no clock of the client's ends a call before the toolbox does. The framework, with
what it needs for MCP, is the agent's to bring.
"""

from __future__ import annotations

import os
import re
from importlib import import_module
from typing import Any

from moorage._errors import Misuse
from moorage.adapters.once import mark_journaled
from moorage_api.wire.calls import TOOL_SEARCH, TOOLBOXES_URL

LONGEST_S = 960.0
"""For one call: a toolbox waits 15 minutes at most for a server (`timeout` of an upstream), and a minute is for the way."""
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


class MCPToolbox:
    """The tools of toolbox `name`, or of the MCP server at the URL `endpoint`.

        MCPToolbox("tickets").agent_framework()     # a tool of an Agent: tools=[…]
        await MCPToolbox("tickets").langgraph()     # a list of tools for ToolNode and bind_tools
        MCPToolbox("tickets").openai_agents()       # async with … as server: mcp_servers=[server]
        MCPToolbox("tickets").pydantic_ai()         # a toolset: toolsets=[…]

    What else the framework's class takes may be given by name, and goes before what is set here. A toolbox is named in the manifest's
    `spec.toolboxes`; where it is, is read from MOORAGE_TOOLBOXES_URL when it is used, since in plain mode that differs from sandbox to
    sandbox. Calls at an `endpoint` of one's own pass no journal.

    `tool_search=True`: the model is shown `tool_search` and `call_tool` in place of all tools, `False`: all tools; None: as the toolbox'
    manifest says. It changes what is listed to this client: what may be called, and how a call is recorded, stays.

    Raises Misuse for neither name nor endpoint, both, what is no name, and `tool_search` of an endpoint, which no gateway reads.
    """

    def __init__(
        self, name: str | None = None, /, *, endpoint: str | None = None, tool_search: bool | None = None
    ) -> None:
        if (name is None) == (endpoint is None):
            raise Misuse('MCPToolbox takes the name of a toolbox or the URL of a server: MCPToolbox("tickets").')
        if name is not None and not _NAME.fullmatch(name):
            raise Misuse(f"{name[:80]!r} is no name of a toolbox. For a URL: MCPToolbox(endpoint=…).")
        if endpoint is not None and tool_search is not None:
            raise Misuse("tool_search is a toolbox's: MCPToolbox(endpoint=…) shows what that server lists.")
        self._name = name
        self._endpoint = endpoint
        self._query = "" if tool_search is None else f"?{TOOL_SEARCH}={'true' if tool_search else 'false'}"

    @property
    def url(self) -> str:
        """Where it is now. Raises Misuse when no toolbox can be reached from here."""
        if self._endpoint is not None:
            return self._endpoint
        here = os.environ.get(TOOLBOXES_URL, "")
        if not here:
            raise Misuse(
                f"Toolbox {self._name!r} cannot be reached from here: {TOOLBOXES_URL} is not set. It is set in a sandbox whose "
                "manifest names a toolbox in spec.toolboxes; elsewhere give MCPToolbox(endpoint=…)."
            )
        return f"{here}/{self._name}/mcp{self._query}"

    def agent_framework(self, **more: Any) -> Any:
        """An `MCPStreamableHTTPTool` of the Microsoft Agent Framework, which needs `mcp` and `tenacity`. May be made at import: its URL is
        read when it connects, in an agent's first run. A call ends after five minutes there, unless it is given an `http_client`."""
        where = self

        class Toolbox(import_module("agent_framework").MCPStreamableHTTPTool):  # type: ignore[misc]
            """Knows its URL only where it is used."""

            @property
            def url(self) -> str:
                """Of the toolbox."""
                return where.url

            @url.setter
            def url(self, _: str | None) -> None:
                """What the framework was given in its place."""

        return Toolbox(**{"name": self._short, "url": "http://toolbox.invalid/mcp", "load_prompts": False} | more)

    async def langgraph(self, **more: Any) -> list[Any]:
        """Its tools as LangChain's, by `langchain-mcp-adapters`: lists them now, so give `HostedAgent` an async function that makes the
        graph. `more` is of the connection."""
        place = {"transport": "streamable_http", "url": self.url, "timeout": LONGEST_S, "sse_read_timeout": LONGEST_S}
        client = import_module("langchain_mcp_adapters.client").MultiServerMCPClient({self._short: place | more})
        tools: list[Any] = await client.get_tools()
        if self._endpoint is None:
            for tool in tools:
                mark_journaled(tool.coroutine)
        return tools

    def openai_agents(self, **more: Any) -> Any:
        """An `MCPServerStreamableHttp` of the OpenAI Agents SDK: `async with` it in the agent's function."""
        place = {"url": self.url, "timeout": LONGEST_S, "sse_read_timeout": LONGEST_S}
        ours = {"name": self._short, "client_session_timeout_seconds": LONGEST_S, "cache_tools_list": True}
        return import_module("agents.mcp").MCPServerStreamableHttp(**{"params": place} | ours | more)

    def pydantic_ai(self, **more: Any) -> Any:
        """An `MCPToolset` of Pydantic AI (`pydantic-ai-slim[mcp]`): make it in the agent's function. A result with `isError` is a
        result there, and not an order to try the same again."""
        ours = {"id": self._short, "tool_error_behavior": "failed", "read_timeout": LONGEST_S}
        return import_module("pydantic_ai.mcp").MCPToolset(self.url, **ours | more)

    @property
    def _short(self) -> str:
        return self._name or "toolbox"
