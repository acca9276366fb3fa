"""Says the same words at the same pace in every attempt: `N words every M ms`, twenty every 30 ms by default."""

import asyncio
import re

from moorage import HostedAgent, text_of


async def paced(items, ctx):
    asked = re.findall(r"\d+", text_of(items))
    words, pace = (int(asked[0]) if asked else 20), (int(asked[1]) if len(asked) > 1 else 30)
    (ctx.workspace / "turns.log").open("a").write(f"{ctx.response_id} {ctx.attempt}\n")
    for n in range(words):
        yield f"w{n} "
        await asyncio.sleep(pace / 1000)


HostedAgent(agent=paced).serve()
