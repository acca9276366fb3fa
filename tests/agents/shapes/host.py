"""Answers what the journey tests ask about the inside: history, files, environment, egress, agents of both protocols."""

import asyncio
import json
import os
import urllib.request

from moorage import HostedAgent, Request, Response, text_of


def shapes(items, ctx):
    word, _, rest = text_of(items).partition(" ")
    if word == "history":
        return json.dumps([i.get("role") or i.get("type") for i in ctx.history])
    if word == "told":
        return json.dumps([text_of([item]) for item in ctx.history])
    if word == "write":
        (ctx.workspace / "note.txt").write_text(rest)
        return "written"
    if word == "read":
        note = ctx.workspace / (rest or "note.txt")
        return note.read_text() if note.exists() else "nothing"
    if word == "environment":
        return json.dumps(dict(os.environ))
    if word == "session":
        return ctx.session
    if word == "request":
        return json.dumps({"request": ctx.request, "headers": dict(ctx.headers), "user": ctx.user})
    if word == "print":
        print(rest, flush=True)
        return "printed"
    if word == "fetch":
        try:
            with urllib.request.urlopen(rest, timeout=10) as answer:
                return f"{answer.status}"
        except Exception as error:
            return f"refused: {error}"
    return f"heard {text_of(items)}"


async def ticks(count: int, pace: float):
    for n in range(count):
        yield f"tick {n}\n"
        await asyncio.sleep(pace)


async def waits(note):
    """Says that it waits, then waits for ever, and notes how that ended."""
    try:
        yield "waiting\n"
        await asyncio.sleep(3600)
    except BaseException as end:
        note.write_text(type(end).__name__)
        raise


async def invoke(request: Request) -> Response:
    """An echo; below it `/ticks/N/MS`, `/wait` and `/count` (reads all, answers with its size)."""
    about = {"x-method": request.method, "x-path": request.path, "x-query": request.query}
    about["x-content-type"] = request.headers.get("content-type", "")
    match request.path.strip("/").split("/"):
        case ["ticks", count, pace]:
            return Response(ticks(int(count), int(pace) / 1000), headers=about | {"content-type": "text/plain"})
        case ["wait"]:
            return Response(waits(request.workspace / "note.txt"), headers=about)
        case ["count"]:
            size = 0
            async for chunk in request.stream():
                size += len(chunk)
            return Response({"size": size}, headers=about)
        case ["teapot"]:
            return Response("short and stout", status=418, headers=about)
    return Response(
        request.stream(), headers=about | {"content-type": request.headers.get("content-type", "text/plain")}
    )


HostedAgent(agent=shapes, invocations=invoke, protocol=("responses", "invocations")).serve()
