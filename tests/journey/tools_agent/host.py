"""Calls tools as its input says, a step a line, with the stock MCP client and nothing set but what the platform sets:

    call TOOL TEXT   old TOOL TEXT (a client of the older era)   list   both TOOL A | B  (two at a time)   env NAME
    ask AGENT STEPS  (of the toolbox `team`; `;` between steps)   asks AGENT A | B  (two at a time)   past (what was said before)

Every answer is a line of its own answer; a tool's error stands in brackets.
"""

import asyncio
import os

from mcp import Client

from moorage import HostedAgent, text_of


def client(mode="auto", box="desk"):
    return Client(f"{os.environ['MOORAGE_TOOLBOXES_URL']}/{box}/mcp", mode=mode)


async def call(text, mode="auto"):
    tool, _, text = text.partition(" ")
    async with client(mode) as tools:
        return shown(await tools.call_tool(tool, {"text": text}))


def shown(found):
    told = " ".join(part.text for part in found.content)
    return f"[{told}]" if found.is_error else told


async def caller(items, ctx):
    for line in text_of(items).splitlines():
        step, _, text = line.partition(" ")
        if step == "past":
            yield f"{ctx.user}: {text_of(ctx.history)!r}\n"
        else:
            yield await STEPS[step](text) + "\n"


async def step_call(text):
    return await call(text)


async def step_old(text):
    return await call(text, "legacy")


async def step_list(text):
    async with client() as tools:
        return " ".join(tool.name for tool in (await tools.list_tools()).tools)


async def step_both(text):
    tool, _, texts = text.partition(" ")
    return " & ".join(await asyncio.gather(*(call(f"{tool} {each}") for each in texts.split(" | "))))


async def step_ask(text):
    agent, _, steps = text.partition(" ")
    async with client(box="team") as tools:
        return shown(await tools.call_tool(f"{agent}_ask", {"input": steps.replace(";", "\n")})).strip()


async def step_asks(text):
    agent, _, texts = text.partition(" ")
    return " & ".join(await asyncio.gather(*(step_ask(f"{agent} {each}") for each in texts.split(" | "))))


async def step_The(text):
    """What the platform says of an approval."""
    return f"The {text}"


async def step_env(text):
    return f"{text}={os.environ.get(text)} " + " ".join(sorted(name for name in os.environ if "TOKEN" in name))


STEPS = {name[5:]: found for name, found in list(globals().items()) if name.startswith("step_")}

if __name__ == "__main__":
    HostedAgent(agent=caller).serve()
