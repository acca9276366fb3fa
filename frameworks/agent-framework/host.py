"""An agent of the Microsoft Agent Framework, as its own documentation makes one, and one line to serve it."""

import os

from agent_framework import Agent
from agent_framework.openai import OpenAIChatCompletionClient
from list_tools import add_item, read_list

from moorage import HostedAgent

agent = Agent(
    OpenAIChatCompletionClient(model=os.environ.get("MODEL", "gpt-5-mini")),
    instructions="You keep a shopping list. Use the tools; never say that something is on the list that they do not show.",
    name="shopper",
    tools=[add_item, read_list],
)

HostedAgent(agent=agent).serve()
