"""The stock clients of OpenAI and of MCP: every effect is a tool of a toolbox."""

import os

import work
from mcp import Client
from plain_openai import ask, stream
from reading import verdict

from moorage import HostedAgent


async def by_tool(name, n, key, more):
    async with Client(f"{os.environ['MOORAGE_TOOLBOXES_URL']}/all/mcp") as tools:
        found = await tools.call_tool(name, {"key": key, "note": " ".join(more)})
    return verdict(key, " ".join(part.text for part in found.content))


async def agent(items, ctx):
    async for piece in work.run(items, ask, stream, by_tool):
        yield piece


if __name__ == "__main__":
    HostedAgent(agent=agent).serve()
