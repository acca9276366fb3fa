"""Says other words in every attempt: what was open ends `incomplete`, new items follow."""

import asyncio

from moorage import HostedAgent


async def other(items, ctx):
    for n in range(25):
        yield f"a{ctx.attempt}.{n} "
        await asyncio.sleep(0.03)


HostedAgent(agent=other).serve()
