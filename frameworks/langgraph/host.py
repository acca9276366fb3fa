"""A LangGraph graph, as its own documentation makes one, and one line to serve it."""

import os

from langchain_core.messages import SystemMessage
from langchain_openai import ChatOpenAI
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from list_tools import add_item, read_list

from moorage import HostedAgent

TOOLS = [add_item, read_list]
PROMPT = SystemMessage(
    "You keep a shopping list. Use the tools; never say that something is on the list that they do not show."
)
model = ChatOpenAI(model=os.environ.get("MODEL", "gpt-5-mini"), stream_usage=True).bind_tools(TOOLS)


async def think(state: MessagesState):
    return {"messages": [await model.ainvoke([PROMPT, *state["messages"]])]}


builder = StateGraph(MessagesState)
builder.add_node("think", think)
builder.add_node("tools", ToolNode(TOOLS))
builder.add_edge(START, "think")
builder.add_conditional_edges("think", tools_condition)
builder.add_edge("tools", "think")

HostedAgent(agent=builder.compile()).serve()
