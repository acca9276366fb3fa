"""Short clocks: a turn may take three seconds, one may wait, a session sleeps after two idle ones. `wait` never ends."""

import asyncio
import json
import tempfile
from pathlib import Path

from moorage import HostedAgent, text_of


def places(ctx):
    return {"workspace": ctx.workspace, "home": Path.home(), "tmp": Path(tempfile.gettempdir())}


async def brief(items, ctx):
    word, _, rest = text_of(items).partition(" ")
    if word == "wait":
        yield "waiting "
        await asyncio.sleep(3600)
    elif word == "write":
        for folder in places(ctx).values():
            (folder / "note.txt").write_text(rest)
        yield "written"
    elif word == "read":
        notes = {name: folder / "note.txt" for name, folder in places(ctx).items()}
        yield json.dumps({name: note.read_text() if note.exists() else None for name, note in notes.items()})
    else:
        yield "ok"


HostedAgent(agent=brief).serve()
