"""A graph made by a function at the first turn, with a tool that loses the framework's state and one that asks a person."""

import os
import shutil

from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import interrupt

from moorage import HostedAgent


def forget() -> str:
    """Loses what the framework kept."""
    shutil.rmtree(f"{os.environ['MOORAGE_WORKSPACE']}/.moorage")
    return "forgotten"


def buy() -> str:
    """Buys what is on the list."""
    return f"bought: {interrupt({'really': 'buy'})}"


def make():
    model = ChatOpenAI(model="m-1").bind_tools([forget, buy])

    async def think(state: MessagesState):
        return {"messages": [await model.ainvoke(state["messages"])]}

    builder = StateGraph(MessagesState)
    builder.add_node("think", think)
    builder.add_node("tools", ToolNode([forget, buy]))
    builder.add_edge(START, "think")
    builder.add_conditional_edges("think", tools_condition)
    builder.add_edge("tools", "think")
    return builder.compile(checkpointer=InMemorySaver())


HostedAgent(agent=make).serve()
