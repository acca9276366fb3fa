"""A LangGraph graph with a toolbox; each process asks its model otherwise."""

import uuid

from langchain_core.messages import SystemMessage
from langchain_openai import ChatOpenAI
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition

from moorage import HostedAgent, MCPToolbox


async def make():
    nonce = SystemMessage(f"{uuid.uuid4()}")
    tools = [*await MCPToolbox("desk").langgraph(), *await MCPToolbox("desk", tool_search=True).langgraph()]
    model = ChatOpenAI(model="m-1").bind_tools(tools)

    async def think(state: MessagesState):
        return {"messages": [await model.ainvoke([nonce, *state["messages"]])]}

    builder = StateGraph(MessagesState)
    builder.add_node("think", think)
    builder.add_node("tools", ToolNode(tools))
    builder.add_edge(START, "think")
    builder.add_conditional_edges("think", tools_condition)
    builder.add_edge("tools", "think")
    return builder.compile()


HostedAgent(agent=make).serve()
