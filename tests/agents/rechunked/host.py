"""Says the same text in every attempt, cut into other chunks each time."""

import asyncio
import random

from moorage import HostedAgent


async def rechunked(items, ctx):
    rest = "".join(f"w{n} " for n in range(40))
    dice = random.Random(f"{ctx.response_id}/{ctx.attempt}")
    while rest:
        size = dice.randrange(1, 9)
        yield rest[:size]
        rest = rest[size:]
        await asyncio.sleep(0.02)


HostedAgent(agent=rechunked).serve()
