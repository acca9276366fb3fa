"""Five questions to a model and five effects, some beside each other. Its input: `RUN MODE`.

MODE `same` asks the same in every attempt, `clock` puts the time everywhere, `fresh` a nonce beside it.
"""

import asyncio
import json
import os
import time
import urllib.request
import uuid

from reading import AGAIN, DONE, FOUND, LOOK, MISSING, POSTED

import moorage
from moorage import text_of

DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # the ledger is no model, and needs no proxy


def post(key, *_):
    body = json.dumps({"key": key}).encode()
    with DIRECT.open(urllib.request.Request(f"{os.environ['LEDGER_URL']}/post", body), timeout=60) as answer:
        return f"{POSTED} {json.load(answer)['posted']}"


def look(key):
    with DIRECT.open(f"{os.environ['LEDGER_URL']}/is/{key}", timeout=60) as answer:
        return f"{FOUND if json.load(answer)['found'] else MISSING} {key}"


async def post_later(key, *more):
    return await asyncio.to_thread(post, key, *more)


def now(mode):
    """What makes it another question, or another effect, in every attempt."""
    return {"same": (), "clock": (f"at {time.time()}",), "fresh": (f"at {time.time()} {uuid.uuid4()}",)}[mode]


async def by_step(name, n, key, more):
    """One try at an effect of one's own: a verdict."""
    try:
        if n % 2:
            await asyncio.to_thread(moorage.step, name, post, key, *more)
        else:
            await moorage.step(name, post_later, key, *more)
    except moorage.AlreadyDone as earlier:
        if (earlier.arguments or {}).get("args", [])[:1] != [key]:
            return AGAIN  # something else of this tool: this one is meant
        return DONE if earlier.known else LOOK
    except moorage.OutcomeUnknown:
        return LOOK
    return DONE


class Work:
    def __init__(self, run, mode, effect, look):
        self.run, self.mode, self.make, self.look = run, mode, effect, look

    def question(self, n):
        return " ".join((self.run, f"q{n}", *now(self.mode)))

    async def effect(self, n):
        """Who asks otherwise has a tool for each; who asks the same has one for all."""
        key, more = f"{self.run}-{n}", now(self.mode)
        name, verdict = f"post_{n}" if more else "post", AGAIN
        while verdict != DONE:
            if verdict == AGAIN:
                verdict = await self.make(name, n, key, more)
            else:
                verdict = DONE if (await asyncio.to_thread(self.look, key)).startswith(FOUND) else AGAIN
        return key


async def run(items, ask, stream, effect=by_step, look=look):
    """`ask(text)` gives the whole answer, `stream(text)` its pieces; `effect` is one try at one, `look` says whether it happened."""
    work = Work(*text_of(items).split(), effect, look)
    yield f"{await ask(work.question(1))}\n"
    yield f"did {await work.effect(1)}\n"
    answer, one, two = await asyncio.gather(ask(work.question(2)), work.effect(2), work.effect(3))
    yield f"{answer}\ndid {one}\ndid {two}\n"
    async for piece in stream(work.question(3)):
        yield piece
    yield f"\ndid {await work.effect(4)}\n"
    for answer in await asyncio.gather(ask(work.question(4)), ask(work.question(5))):
        yield f"{answer}\n"
    yield f"did {await work.effect(5)}\n"
