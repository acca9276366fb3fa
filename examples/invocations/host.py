"""One agent, both protocols: Responses for a conversation, Invocations for a protocol of its own.

Below `/invocations` everything belongs to the agent: path, method, body, content type. Here `/upper` streams the body back in capitals,
chunk by chunk as it arrives, and every other path answers with what it was sent.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from moorage import Context, HostedAgent, Request, Response, text_of


async def converse(items: list[dict[str, Any]], ctx: Context) -> AsyncGenerator[str, None]:
    """The Responses side: the last message in capitals, and how many items came before it."""
    for word in text_of(items).split():
        yield word.upper() + " "
    yield f"({len(ctx.history)} earlier items)"


async def invoke(request: Request) -> Response:
    """The Invocations side. The body is never held as a whole, so it may be of any size."""
    kind = request.headers.get("content-type", "application/octet-stream")
    headers = {"content-type": kind, "x-method": request.method, "x-path": request.path}
    if request.path == "/upper":
        return Response(_upper(request.stream()), headers=headers)
    return Response(request.stream(), headers=headers)


async def _upper(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    async for chunk in chunks:
        yield chunk.upper()  # ASCII letters only, so a chunk may end in the middle of a character


if __name__ == "__main__":
    HostedAgent(agent=converse, invocations=invoke, protocol=("responses", "invocations")).serve()
