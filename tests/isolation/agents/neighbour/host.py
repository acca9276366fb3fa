"""A quiet agent beside a loud one: keeps a secret, answers at once."""

from moorage import HostedAgent, Request, Response, text_of


def neighbour(items, ctx):
    for place in (ctx.workspace / "secret", ctx.workspace.parent / "tmp" / "secret"):
        place.write_text(text_of(items))
    return "kept"


async def invoke(request: Request) -> Response:
    return Response("here")


HostedAgent(agent=neighbour, invocations=invoke, protocol=("responses", "invocations")).serve()
