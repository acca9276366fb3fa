"""Pydantic AI in a function, with a toolbox and steps; each attempt asks its model otherwise."""

import uuid

from own_tools import hang, note
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel

from moorage import HostedAgent, MCPToolbox, step_tool, text_of


async def agent(items, ctx):
    searched = MCPToolbox("desk", tool_search=True)
    made = Agent(
        OpenAIChatModel("m-1"),
        instructions=f"{uuid.uuid4()}",
        tools=[step_tool(note), step_tool(hang)],
        toolsets=[MCPToolbox("desk").pydantic_ai(), searched.pydantic_ai(id="found")],
    )
    yield (await made.run(text_of(items))).output


HostedAgent(agent=agent).serve()
