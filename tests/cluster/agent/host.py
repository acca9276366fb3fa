"""The agent of the cluster tests: remembers what it was told, looks around, dies when asked to."""

import json
import os
import signal
import socket
import time
from pathlib import Path

if os.environ.get("MODE") == "broken":
    raise ImportError("parrot")

from moorage import HostedAgent, text_of

NOTES = Path("/workspace/notes.txt")


def reached(where):
    host, _, port = where.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
        return True
    except OSError:
        return False


def agent(items, ctx):
    wanted = text_of(items)
    if wanted == "look":
        yield json.dumps(
            {"uid": os.getuid(), "mode": os.environ.get("MODE", ""), "workspace": sorted(os.listdir("/workspace"))}
        )
    elif wanted.startswith("reach "):
        yield json.dumps({where: reached(where) for where in wanted.split()[1:]})
    elif wanted.startswith("slow "):
        for number in range(int(wanted.split()[1])):
            yield f"{number} "
            time.sleep(0.1)
    elif wanted == "die":
        yield "before "
        mark = Path("/workspace/died")
        if not mark.exists():
            mark.write_text("once")
            os.kill(os.getpid(), signal.SIGKILL)
        yield "after"
    else:
        with NOTES.open("a") as file:
            file.write(wanted + "\n")
        for line in NOTES.read_text().splitlines():
            yield line + " "


HostedAgent(agent=agent).serve()
