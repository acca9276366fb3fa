"""A graph made by a function at the first turn, a new one in each process, with tools that tell what was done."""

import os
import shutil
import time
import uuid

from langchain_core.messages import SystemMessage
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import interrupt

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


def buy() -> str:
    """Buys what is on the list."""
    return f"bought: {interrupt({'really': 'buy'})}"


def make():
    nonce = SystemMessage(f"{uuid.uuid4()}")  # a later attempt's process asks its model otherwise
    tools = [forget, note, look, hang, refuse, buy]
    model = ChatOpenAI(model="m-1").bind_tools(tools)

    async def think(state: MessagesState):
        return {"messages": [await model.ainvoke([nonce, *state["messages"]])]}

    builder = StateGraph(MessagesState)
    builder.add_node("think", think)
    builder.add_node("tools", ToolNode(tools, handle_tool_errors=True))
    builder.add_edge(START, "think")
    builder.add_conditional_edges("think", tools_condition)
    builder.add_edge("tools", "think")
    return builder.compile(checkpointer=InMemorySaver())


HostedAgent(agent=make).serve()
