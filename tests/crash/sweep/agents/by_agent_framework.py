"""The Microsoft Agent Framework by its adapter: own functions, and the framework's client of MCP."""

import os

import tools
from agent_framework import Agent, MCPStreamableHTTPTool, Message, chat_middleware
from agent_framework.openai import OpenAIChatCompletionClient

from moorage import HostedAgent


@chat_middleware
async def dated(context, call_next):
    said = next(each.text for each in context.messages if each.role == "user")
    context.messages.insert(0, Message("system", [tools.prompt(said)]))
    await call_next()


def make():
    desk = MCPStreamableHTTPTool("desk", f"{os.environ['MOORAGE_TOOLBOXES_URL']}/desk/mcp", load_prompts=False)
    client = OpenAIChatCompletionClient(
        model="m-1", function_invocation_configuration={"include_detailed_errors": True}
    )
    return Agent(client, tools=[*tools.ALL, tools.is_there, desk], middleware=[dated])


HostedAgent(agent=make).serve()
