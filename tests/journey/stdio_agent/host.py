"""Calls tools as its input says, a step a line, with the stock MCP client and with the SDK's toolbox in a framework:

    call BOX TOOL TEXT   sdk BOX TOOL TEXT (by MCPToolbox, of the OpenAI Agents SDK)   list BOX   env   files

Every answer is a line of its own answer; a tool's error stands in brackets.
"""

import os
from pathlib import Path

from mcp import Client

from moorage import HostedAgent, MCPToolbox, text_of


async def caller(items, ctx):
    for line in text_of(items).splitlines():
        step, _, text = line.partition(" ")
        yield await STEPS[step](text) + "\n"


async def step_call(text):
    box, tool, said = text.split(" ", 2)
    async with Client(f"{os.environ['MOORAGE_TOOLBOXES_URL']}/{box}/mcp") as tools:
        found = await tools.call_tool(tool, {"text": said})
    told = " ".join(part.text for part in found.content)
    return f"[{told}]" if found.is_error else told


async def step_sdk(text):
    box, tool, said = text.split(" ", 2)
    async with MCPToolbox(box).openai_agents() as server:
        found = await server.call_tool(tool, {"text": said})
    return " ".join(part.text for part in found.content)


async def step_list(text):
    async with Client(f"{os.environ['MOORAGE_TOOLBOXES_URL']}/{text}/mcp") as tools:
        return " ".join(tool.name for tool in (await tools.list_tools()).tools)


async def step_env(_):
    return " ".join(f"{name}={value}" for name, value in sorted(os.environ.items()))


async def step_files(_):
    return " ".join(str(each) for each in sorted(Path("/app").glob("*")))


STEPS = {name[5:]: found for name, found in list(globals().items()) if name.startswith("step_")}

if __name__ == "__main__":
    HostedAgent(agent=caller).serve()
