"""The stock client of Anthropic, and nothing else."""

import work
from anthropic import AsyncAnthropic

from moorage import HostedAgent


def said(text):
    return {"model": "c-1", "max_tokens": 9, "messages": [{"role": "user", "content": text}]}


async def ask(text):
    return (await AsyncAnthropic().messages.create(**said(text))).content[0].text


async def stream(text):
    async with AsyncAnthropic().messages.stream(**said(text)) as tale:
        async for piece in tale.text_stream:
            yield piece


async def agent(items, ctx):
    async for piece in work.run(items, ask, stream):
        yield piece


if __name__ == "__main__":
    HostedAgent(agent=agent).serve()
