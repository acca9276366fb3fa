"""Answers what the journey tests ask about the inside: history, files, environment, egress, agents of both protocols."""

import json
import os
import urllib.request

from moorage import HostedAgent, Request, Response, text_of


def shapes(items, ctx):
    word, _, rest = text_of(items).partition(" ")
    if word == "history":
        return json.dumps([i.get("role") or i.get("type") for i in ctx.history])
    if word == "write":
        (ctx.workspace / "note.txt").write_text(rest)
        return "written"
    if word == "read":
        note = ctx.workspace / "note.txt"
        return note.read_text() if note.exists() else "nothing"
    if word == "environment":
        return json.dumps(dict(os.environ))
    if word == "session":
        return ctx.session
    if word == "fetch":
        try:
            with urllib.request.urlopen(rest, timeout=10) as answer:
                return f"{answer.status}"
        except Exception as error:
            return f"refused: {error}"
    return f"heard {text_of(items)}"


async def invoke(request: Request) -> Response:
    return Response(request.stream(), headers={"x-method": request.method, "x-path": request.path})


HostedAgent(agent=shapes, invocations=invoke, protocol=("responses", "invocations")).serve()
