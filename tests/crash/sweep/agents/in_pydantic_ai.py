"""Pydantic AI in a function: steps, and its own client of MCP."""

import os

import stepping
import tools
from pydantic_ai import Agent, RunContext
from pydantic_ai.mcp import MCPToolset
from pydantic_ai.models.openai import OpenAIChatModel

from moorage import HostedAgent, text_of


async def agent(items, ctx):
    said = text_of(items)
    desk = MCPToolset(f"{os.environ['MOORAGE_TOOLBOXES_URL']}/desk/mcp", tool_error_behavior="failed")

    def dated(context: RunContext) -> str:
        return tools.prompt(said)

    made = Agent(
        OpenAIChatModel("m-1"), instructions=dated, tools=[*stepping.ALL, tools.is_there], toolsets=[desk], retries=20
    )
    async with made:
        yield (await made.run(said)).output


if __name__ == "__main__":
    HostedAgent(agent=agent).serve()
