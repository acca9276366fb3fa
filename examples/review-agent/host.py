"""The review agent on Moorage: a question in, markdown out, a line at a time. All the work is in the `review` package beside it."""

import os
from collections.abc import Generator
from typing import Any

from review import conversation

from moorage import Context, HostedAgent, text_of


def review_agent(items: list[dict[str, Any]], ctx: Context) -> Generator[str, None, bool]:
    """A generator: closing it (a cancelled turn) closes the review, and what it waits for looks at `ctx.cancelled`."""
    world = conversation.World.from_environment(os.environ)
    return (yield from conversation.answer(text_of(items), ctx.workspace, world, ctx.cancelled.is_set))


if __name__ == "__main__":
    HostedAgent(agent=review_agent, protocol="responses").serve()
