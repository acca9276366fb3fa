"""OpenAI's Agents SDK in a function, with a toolbox and steps; each attempt asks its model otherwise."""

import uuid

from openai import AsyncOpenAI
from own_tools import hang, note

from agents import Agent, OpenAIChatCompletionsModel, Runner, function_tool, set_tracing_disabled
from moorage import HostedAgent, MCPToolbox, step_tool, text_of

set_tracing_disabled(True)


async def agent(items, ctx):
    searched = MCPToolbox("desk", tool_search=True)
    async with MCPToolbox("desk").openai_agents() as desk, searched.openai_agents(name="found") as found:
        made = Agent(
            "clerk",
            model=OpenAIChatCompletionsModel("m-1", AsyncOpenAI()),
            instructions=f"{uuid.uuid4()}",
            tools=[function_tool(step_tool(tool)) for tool in (note, hang)],
            mcp_servers=[desk, found],
        )
        yield (await Runner.run(made, text_of(items))).final_output


HostedAgent(agent=agent).serve()
