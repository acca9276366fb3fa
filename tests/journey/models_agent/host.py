"""Asks models as its input says, a step a line, with the stock clients and nothing set but what the platform sets:

    chat TEXT   stream TEXT   responses TEXT   events TEXT   messages TEXT   tales TEXT   azure TEXT   module TEXT
    both A | B  (two at a time)   env NAME   exit-on N  (exits in attempt N)   fresh TEXT (with a nonce)

Every answer is a line of its own answer; `stream`, `events` and `tales` are told word by word.
"""

import asyncio
import os
import uuid

from anthropic import AsyncAnthropic
from openai import AsyncAzureOpenAI, AsyncOpenAI, OpenAI

from moorage import HostedAgent, text_of

MODULE = OpenAI()  # made before the fork, as most programs do


def said(text):
    return [{"role": "user", "content": text}]


async def chat(text, client=None):
    client = client or AsyncOpenAI()
    found = await client.chat.completions.create(model="m-1", messages=said(text))
    return found.choices[0].message.content


async def asker(items, ctx):
    for line in text_of(items).splitlines():
        step, _, text = line.partition(" ")
        async for piece in STEPS[step](text, ctx):
            yield piece
        yield "\n"


async def step_chat(text, ctx):
    yield await chat(text)


async def step_fresh(text, ctx):
    yield await chat(f"{uuid.uuid4()} {text}")


async def step_module(text, ctx):
    found = await asyncio.to_thread(MODULE.chat.completions.create, model="m-1", messages=said(text))
    yield found.choices[0].message.content


async def step_azure(text, ctx):
    yield await chat(text, AsyncAzureOpenAI(api_version="2025-04-01-preview"))


async def step_stream(text, ctx):
    async for chunk in await AsyncOpenAI().chat.completions.create(model="m-1", messages=said(text), stream=True):
        if chunk.choices and chunk.choices[0].delta.content:
            yield chunk.choices[0].delta.content


async def step_responses(text, ctx):
    yield (await AsyncOpenAI().responses.create(model="m-1", input=text)).output_text


async def step_events(text, ctx):
    async with AsyncOpenAI().responses.stream(model="m-1", input=text) as stream:
        async for event in stream:
            if event.type == "response.output_text.delta":
                yield event.delta


async def step_messages(text, ctx):
    found = await AsyncAnthropic().messages.create(model="c-1", max_tokens=9, messages=said(text))
    yield found.content[0].text


async def step_tales(text, ctx):
    async with AsyncAnthropic().messages.stream(model="c-1", max_tokens=9, messages=said(text)) as stream:
        async for piece in stream.text_stream:
            yield piece


async def step_both(text, ctx):
    one, two = text.split(" | ")
    yield " & ".join(await asyncio.gather(chat(one), chat(two)))


async def step_env(text, ctx):
    yield f"{text}={os.environ.get(text)} " + " ".join(sorted(name for name in os.environ if "KEY" in name))


STEPS = {name[5:]: found for name, found in list(globals().items()) if name.startswith("step_")}

if __name__ == "__main__":
    HostedAgent(agent=asker).serve()
