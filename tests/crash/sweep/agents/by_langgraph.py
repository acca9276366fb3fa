"""A LangGraph graph by its adapter: own functions, and LangChain's adapter of MCP, which speaks the older era."""

import os

import tools
from langchain_core.messages import SystemMessage
from langchain_mcp_adapters.client import MultiServerMCPClient
from langchain_openai import ChatOpenAI
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition

from moorage import HostedAgent


async def make():
    place = {"transport": "streamable_http", "url": f"{os.environ['MOORAGE_TOOLBOXES_URL']}/desk/mcp"}
    offered = [*tools.ALL, tools.is_there, *await MultiServerMCPClient({"desk": place}).get_tools()]
    model = ChatOpenAI(model="m-1").bind_tools(offered)

    async def think(state: MessagesState):
        said = [SystemMessage(tools.prompt(state["messages"][0].content)), *state["messages"]]
        return {"messages": [await model.ainvoke(said)]}

    builder = StateGraph(MessagesState)
    builder.add_node("think", think)
    builder.add_node("tools", ToolNode(offered, handle_tool_errors=True))
    builder.add_edge(START, "think")
    builder.add_conditional_edges("think", tools_condition)
    builder.add_edge("tools", "think")
    return builder.compile()


HostedAgent(agent=make).serve()
