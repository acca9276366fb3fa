"""Runs the Python it is sent and answers `result` as JSON: an agent as hostile as whoever calls it."""

import asyncio
import json
import textwrap
import traceback

from moorage import HostedAgent, Request, Response, text_of


def run(code):
    world = {"result": None}
    try:
        exec(compile(textwrap.dedent(code), "told", "exec"), world)
        return json.dumps({"result": world["result"]})
    except BaseException:
        return json.dumps({"error": traceback.format_exc()})


def prober(items, ctx):
    yield "began "
    yield run(text_of(items))


async def invoke(request: Request) -> Response:
    code = await request.text()
    # Some calls (signal handlers) belong to the main thread, all others must not hold up its server.
    answer = run(code) if request.path == "/main" else await asyncio.to_thread(run, code)
    return Response(answer, headers={"content-type": "application/json"})


HostedAgent(agent=prober, invocations=invoke, protocol=("responses", "invocations")).serve()
