"""An agent made by a function at the first turn, with a tool that loses the framework's state and one that wants approval."""

import os
import shutil

from agent_framework import Agent, tool
from agent_framework.openai import OpenAIChatCompletionClient

from moorage import HostedAgent


def forget() -> str:
    """Loses what the framework kept."""
    shutil.rmtree(f"{os.environ['MOORAGE_WORKSPACE']}/.moorage")
    return "forgotten"


@tool(approval_mode="always_require")
def buy() -> str:
    """Buys what is on the list."""
    return "bought"


def make():
    return Agent(OpenAIChatCompletionClient(model="m-1"), tools=[forget, buy])


HostedAgent(agent=make).serve()
