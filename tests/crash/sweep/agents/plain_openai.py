"""The stock client of OpenAI, and nothing else."""

import work
from openai import AsyncOpenAI

from moorage import HostedAgent


def said(text):
    return [{"role": "user", "content": text}]


async def ask(text):
    found = await AsyncOpenAI().chat.completions.create(model="m-1", messages=said(text))
    return found.choices[0].message.content


async def stream(text):
    async for chunk in await AsyncOpenAI().chat.completions.create(model="m-1", messages=said(text), stream=True):
        if chunk.choices and chunk.choices[0].delta.content:
            yield chunk.choices[0].delta.content


async def agent(items, ctx):
    async for piece in work.run(items, ask, stream):
        yield piece


if __name__ == "__main__":
    HostedAgent(agent=agent).serve()
