"""No client at all but the standard library, for a pod that reaches nothing but its boundary: tools of a toolbox, two within steps."""

import asyncio
import json
import os
import urllib.request

import work
from reading import verdict

from moorage import AlreadyDone, HostedAgent, OutcomeUnknown, step

IN_STEPS = (1, 4)


def sent(url, body):
    head = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
    if "OPENAI_API_KEY" in os.environ:
        head["authorization"] = f"Bearer {os.environ['OPENAI_API_KEY']}"
    return work.DIRECT.open(urllib.request.Request(url, json.dumps(body).encode(), head), timeout=300)


def asked(text, **more):
    said = [{"role": "user", "content": text}]
    return sent(f"{os.environ['OPENAI_BASE_URL']}/chat/completions", {"model": "m-1", "messages": said, **more})


async def ask(text):
    with await asyncio.to_thread(asked, text) as answer:
        return json.load(answer)["choices"][0]["message"]["content"]


async def stream(text):
    with await asyncio.to_thread(asked, text, stream=True) as answer:
        while line := await asyncio.to_thread(answer.readline):
            if line.startswith(b"data: {"):
                for choice in json.loads(line.removeprefix(b"data: "))["choices"]:
                    yield choice["delta"].get("content") or ""


def called(name, key, *more):
    """A tool's result as text, as a client of MCP's older era gets it."""
    params = {"name": name, "arguments": {"key": key, "note": " ".join(more)}}
    said = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    with sent(f"{os.environ['MOORAGE_TOOLBOXES_URL']}/all/mcp", said) as answer:
        return " ".join(part["text"] for part in json.load(answer)["result"]["content"])


async def effect(name, n, key, more):
    if n not in IN_STEPS:
        return verdict(key, await asyncio.to_thread(called, name, key, *more))
    try:
        return verdict(key, await asyncio.to_thread(step, name, called, name, key, *more))
    except AlreadyDone as earlier:
        return verdict(key, f"already_done_in_earlier_attempt {earlier.arguments} {earlier.result}")
    except OutcomeUnknown:
        return verdict(key, "outcome_unknown")


def look(key):
    return called("is_there", key)


async def agent(items, ctx):
    async for piece in work.run(items, ask, stream, effect, look):
        yield piece


if __name__ == "__main__":
    HostedAgent(agent=agent).serve()
