"""Says other words in every attempt (`N words every M ms`): what was open ends `incomplete`, new items follow."""

import asyncio
import re

from moorage import HostedAgent, text_of


async def other(items, ctx):
    asked = re.findall(r"\d+", text_of(items))
    words, pace = (int(asked[0]) if asked else 25), (int(asked[1]) if len(asked) > 1 else 30)
    for n in range(words):
        yield f"a{ctx.attempt}.{n} "
        await asyncio.sleep(pace / 1000)


HostedAgent(agent=other).serve()
