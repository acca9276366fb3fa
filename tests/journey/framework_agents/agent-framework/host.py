"""An agent made by a function at the first turn, a new one in each process, with tools that tell what was done."""

import os
import shutil
import time
import uuid

from agent_framework import Agent, tool
from agent_framework.openai import OpenAIChatCompletionClient

from moorage import HostedAgent, read_only


def forget() -> str:
    """Loses what the framework kept."""
    shutil.rmtree(f"{os.environ['MOORAGE_WORKSPACE']}/.moorage")
    return "forgotten"


def written(name: str, line: str) -> int:
    """How many lines a file has with this one."""
    with open(f"{os.environ['MOORAGE_WORKSPACE']}/{name}", "a+") as file:
        file.write(f"{line}\n")
        file.seek(0)
        return len(file.readlines())


def note(text: str) -> str:
    """Notes a text."""
    written("notes.txt", text)
    return f"noted {text}"


@read_only
def look(text: str) -> str:
    """Notes too, and says that it does not."""
    written("looks.txt", text)
    return f"seen {text}"


def hang(text: str) -> str:
    """Is killed in the middle, the first time."""
    if written("hung.txt", text) == 1:
        time.sleep(60)
    return "ended"


def refuse(text: str) -> str:
    """Fails."""
    written("refused.txt", text)
    raise ValueError("no lemons")


@tool(approval_mode="always_require")
def buy() -> str:
    """Buys what is on the list."""
    return "bought"


def make():
    nonce = f"{uuid.uuid4()}"  # a later attempt's process asks its model otherwise
    tools = [forget, note, look, hang, refuse, buy]
    return Agent(OpenAIChatCompletionClient(model="m-1"), instructions=nonce, tools=tools)


HostedAgent(agent=make).serve()
