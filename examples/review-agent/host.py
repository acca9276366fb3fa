"""The review agent on Moorage: a question in, markdown out, a line at a time. All the work is in the `review` package beside it."""

import os
from collections.abc import Generator, Mapping
from typing import Any

from review import clients, conversation

from moorage import Context, HostedAgent, text_of


def review_agent(items: list[dict[str, Any]], ctx: Context) -> Generator[str, None, bool]:
    """A generator: closing it (a cancelled turn) closes the review, and what it waits for looks at `ctx.cancelled`."""
    world = world_of(os.environ)
    return (yield from conversation.answer(text_of(items), ctx.workspace, world, ctx.cancelled.is_set))


def world_of(environ: Mapping[str, str]) -> conversation.World:
    """With the tools and the model that the manifest gives this agent: `REVIEW_TOOLBOX` and `REVIEW_MODEL` name them."""
    box, model = environ.get("REVIEW_TOOLBOX"), environ.get("REVIEW_MODEL")
    tools = clients.Toolbox(f"{environ['MOORAGE_TOOLBOXES_URL']}/{box}/mcp") if box else None
    return conversation.World.from_environment(environ, tools=tools, words=clients.Model(model) if model else None)


if __name__ == "__main__":
    HostedAgent(agent=review_agent, protocol="responses").serve()
