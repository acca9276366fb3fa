"""The Microsoft Agent Framework with a toolbox made at import; each process asks its model otherwise."""

import uuid

from agent_framework import Agent
from agent_framework.openai import OpenAIChatCompletionClient

from moorage import HostedAgent, MCPToolbox

desk = MCPToolbox("desk").agent_framework()
found = MCPToolbox("desk", tool_search=True).agent_framework(name="found")


def make():
    return Agent(OpenAIChatCompletionClient(model="m-1"), instructions=f"{uuid.uuid4()}", tools=[desk, found])


HostedAgent(agent=make).serve()
