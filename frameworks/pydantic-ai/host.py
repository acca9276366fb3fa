"""An agent of Pydantic AI, called by a function: the tool with an effect is a step, and what the model says goes on as it comes."""

import os

from list_tools import add_item, read_list
from pydantic_ai import Agent, ModelRequest, ModelResponse, TextPart
from pydantic_ai.models.openai import OpenAIChatModel

from moorage import HostedAgent, step_tool, text_of


async def agent(items, ctx):
    shopper = Agent(
        OpenAIChatModel(os.environ.get("MODEL", "gpt-5-mini")),
        instructions="You keep a shopping list. Use the tools; never say that something is on the list that they do not show.",
        tools=[step_tool(add_item), read_list],
    )
    async with shopper.run_stream(text_of(items), message_history=list(said(ctx.history))) as run:
        async for text in run.stream_text(delta=True, debounce_by=None):
            yield text


def said(history):
    """The conversation so far, as the framework keeps it."""
    for item in history:
        if item.get("role") == "user":
            yield ModelRequest.user_text_prompt(text_of([item]))
        elif item.get("role") == "assistant":
            yield ModelResponse([TextPart(text_of([item]))])


HostedAgent(agent=agent).serve()
