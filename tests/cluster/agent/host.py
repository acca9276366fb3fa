"""The agent of the cluster tests: remembers what it was told and prints it, looks around, dies when asked to."""

import json
import os
import signal
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

if os.environ.get("MODE") == "broken":
    raise ImportError("parrot")

from reaching import all_of

from moorage import HostedAgent, text_of

NOTES = Path("/workspace/notes.txt")
TOLD = Path("/workspace/hog")


def asked(text):
    """What the first model of this agent answers, as any client would ask it."""
    head = {"content-type": "application/json", "authorization": f"Bearer {os.environ['OPENAI_API_KEY']}"}
    body = json.dumps({"model": "m-1", "messages": [{"role": "user", "content": text}]}).encode()
    request = urllib.request.Request(f"{os.environ['OPENAI_BASE_URL']}/chat/completions", body, head)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)["choices"][0]["message"]["content"]
    except urllib.error.HTTPError as refused:
        return f"refused {refused.code}: {refused.read()[:1000].decode()}"


def called(text):
    """What the tool `do` of the toolbox `all` says, as a client of MCP gets it."""
    head = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
    params = {"name": "do", "arguments": {"text": text}}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).encode()
    request = urllib.request.Request(f"{os.environ['MOORAGE_TOOLBOXES_URL']}/all/mcp", body, head)
    with urllib.request.urlopen(request, timeout=100) as answer:
        said = json.load(answer)
    return " ".join(part["text"] for part in said["result"]["content"]) if "result" in said else json.dumps(said)


def hog():
    """Takes memory until it is taken from us."""
    held = []
    while True:
        held.append(bytearray(b"\1" * (8 << 20)))


def hog_when_told():
    while not TOLD.exists():  # another process tells it; it ends with the container
        time.sleep(0.05)
    TOLD.unlink()
    hog()


if os.environ.get("MODE") == "hog":
    # In the container's first process, from which agent processes are forked: when that one goes, the container does.
    threading.Thread(target=hog_when_told, daemon=True).start()


def agent(items, ctx):
    wanted = text_of(items)
    if wanted == "look":
        yield json.dumps(
            {"uid": os.getuid(), "mode": os.environ.get("MODE", ""), "workspace": sorted(os.listdir("/workspace"))}
        )
    elif wanted.startswith("reach "):
        yield json.dumps(all_of(wanted.split()[1:]))
    elif wanted == "told":
        yield json.dumps([text_of([item]) for item in ctx.history])
    elif wanted == "environment":
        yield json.dumps(dict(os.environ))
    elif wanted.startswith("model "):
        yield asked(wanted.removeprefix("model "))
    elif wanted.startswith("tool "):
        yield called(wanted.removeprefix("tool "))
    elif wanted.startswith(("slow ", "hog ")):
        how, count = wanted.split()
        for number in range(int(count)):
            if how == "hog" and ctx.attempt == 1 and number == int(count) // 3:
                TOLD.touch() if os.environ.get("MODE") == "hog" else hog()
            yield f"{number} "
            time.sleep(0.1)  # the pace is the point
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
        print(f"noted {wanted}", flush=True)
        for line in NOTES.read_text().splitlines():
            yield line + " "


HostedAgent(agent=agent).serve()
