"""OpenAI's Agents SDK in a function: steps, and its own client of MCP."""

import os

import stepping
import tools
from agents.mcp import MCPServerStreamableHttp
from openai.types.responses import ResponseTextDeltaEvent

from agents import Agent, Runner, function_tool, set_tracing_disabled
from moorage import HostedAgent, text_of

set_tracing_disabled(True)


async def agent(items, ctx):
    said = text_of(items)
    place = {"url": f"{os.environ['MOORAGE_TOOLBOXES_URL']}/desk/mcp", "timeout": 60}
    async with MCPServerStreamableHttp(place, client_session_timeout_seconds=120) as desk:
        made = Agent(
            "poster",
            model="m-1",
            instructions=lambda context, agent: tools.prompt(said),
            tools=[function_tool(tool) for tool in (*stepping.ALL, tools.is_there)],
            mcp_servers=[desk],
        )
        async for event in Runner.run_streamed(made, said, max_turns=50).stream_events():
            if event.type == "raw_response_event" and isinstance(event.data, ResponseTextDeltaEvent):
                yield event.data.delta


if __name__ == "__main__":
    HostedAgent(agent=agent).serve()
