"""An agent of OpenAI's Agents SDK, called by a function: the tool with an effect is a step, and what the model says goes on as it comes."""

import os

from list_tools import add_item, read_list
from openai import AsyncOpenAI
from openai.types.responses import ResponseTextDeltaEvent

from agents import Agent, OpenAIChatCompletionsModel, Runner, function_tool, set_tracing_disabled
from moorage import HostedAgent, step_tool

set_tracing_disabled(True)  # it would send traces to its maker


async def agent(items, ctx):
    shopper = Agent(
        "shopper",
        model=OpenAIChatCompletionsModel(os.environ.get("MODEL", "gpt-5-mini"), AsyncOpenAI()),
        instructions="You keep a shopping list. Use the tools; never say that something is on the list that they do not show.",
        tools=[function_tool(step_tool(add_item)), function_tool(read_list)],
    )
    async for event in Runner.run_streamed(shopper, [*ctx.history, *items]).stream_events():
        if event.type == "raw_response_event" and isinstance(event.data, ResponseTextDeltaEvent):
            yield event.data.delta


HostedAgent(agent=agent).serve()
