"""Says the same text in every attempt, cut into other chunks each time: `N words, M ms a chunk`."""

import asyncio
import random
import re

from moorage import HostedAgent, text_of


async def rechunked(items, ctx):
    asked = re.findall(r"\d+", text_of(items))
    words, pace = (int(asked[0]) if asked else 40), (int(asked[1]) if len(asked) > 1 else 20)
    rest = "".join(f"w{n} " for n in range(words))
    dice = random.Random(f"{ctx.response_id}/{ctx.attempt}")
    while rest:
        size = dice.randrange(1, 9)
        yield rest[:size]
        rest = rest[size:]
        await asyncio.sleep(pace / 1000)


HostedAgent(agent=rechunked).serve()
