"""A scripted MCP server over stdin and stdout, good and bad: notes what it ran, and behaves as its arguments say.

Run as a program of its own, with nothing but Python. Limits: one call at a time; tools only; no checks of what it is sent. Told by its
environment: `NOTES` (a file that gets a line for each call that was run), `ERA` (`old`, `new`), `AT_ONCE` (`exit`: ends before it answers
anything; `garbage`: prints a banner first; `silent`: never answers). Its one tool, `do`, takes a `text`, which steers a call:

    exit N        ran, then ends with that code
    hang          ran, then no answer; later messages are read and not answered
    slow NAME     ran, then waits until the file NAME exists
    big N         N bytes of text
    garbage       prints lines that are no JSON-RPC, and answers
    noise N       prints N lines on stderr, and answers
    deep          a result nested 300 levels deep
    asks          asks the client something first, and answers with what it was told
    refuse        a JSON-RPC error
    environment   its environment, as JSON
    child         begins a process in a session of its own, and answers with its number
    where         the folder it is in, and what lies there
    network       whether it gets a connection to 1.1.1.1
"""

import json
import os
import socket
import subprocess
import sys
import time

SCHEMA = {"type": "object", "properties": {"text": {"type": "string"}}}
TOOLS = [{"name": "do", "description": "Does as it is told.", "inputSchema": SCHEMA}]
NEW = os.environ.get("ERA") == "new"


def say(message):
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def main():
    at_once = os.environ.get("AT_ONCE", "")
    if at_once == "exit":
        sys.stderr.write("cannot begin: there is no database\n")
        sys.exit(3)
    if at_once == "garbage":
        print("Welcome to the server!\n{not json}\n[1, 2]", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        if at_once == "silent" or "id" not in asked:
            continue
        answer(asked["id"], asked.get("method"), asked.get("params") or {})


def answer(number, method, params):
    if method == "initialize" and not NEW:
        say(
            {
                "id": number,
                "result": {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "s"}},
            }
        )
    elif method == "server/discover" and NEW:
        say({"id": number, "result": {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}})
    elif method == "tools/list":
        say({"id": number, "result": {"tools": TOOLS}})
    elif method == "tools/call":
        call(number, params)
    elif method == "ping":
        say({"id": number, "result": {}})
    else:
        say({"id": number, "error": {"code": -32601, "message": "unknown"}})


def call(number, params):
    text = params["arguments"].get("text", "")
    with open(os.environ["NOTES"], "a") as file:
        file.write(text + "\n")
    word, _, rest = text.partition(" ")
    if word == "exit":
        os._exit(int(rest))
    if word == "hang":
        for _ in sys.stdin:
            pass
        os._exit(0)
    if word == "refuse":
        say({"id": number, "error": {"code": -32000, "message": "not on a Sunday"}})
        return
    if word == "deep":
        nested = '{"a":' * 300 + "1" + "}" * 300
        sys.stdout.write(f'{{"jsonrpc":"2.0","id":{number},"result":{nested}}}\n')
        sys.stdout.flush()
        return
    told = STEPS.get(word, lambda _: text)(rest)
    meta = {"meta": params.get("_meta", {})}
    say(
        {
            "id": number,
            "result": {"content": [{"type": "text", "text": told}], "isError": False, "structuredContent": meta},
        }
    )


def slow(name):
    deadline = time.monotonic() + 60
    while not os.path.exists(name) and time.monotonic() < deadline:
        time.sleep(0.02)
    return "slow"


def garbage(_):
    for each in ("debug: here I am", '{"jsonrpc": "1.0"}', "\x1b[31mred\x1b[0m", '{"half":'):
        print(each, flush=True)
    return "after garbage"


def noise(many):
    for each in range(int(many)):
        sys.stderr.write(f"line {each}\n")
    sys.stderr.flush()
    return "noisy"


def asks(_):
    say({"id": "mine-1", "method": "sampling/createMessage", "params": {}})
    return sys.stdin.readline()


def child(_):
    # The mark of its own group of processes is kept, its pipes are not.
    made = subprocess.Popen(
        ["sleep", "600"],
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return str(made.pid)


def network(_):
    try:
        socket.create_connection(("1.1.1.1", 443), timeout=2).close()
    except OSError as fault:
        return f"no: {fault.strerror or fault}"
    return "yes"


STEPS = {
    "slow": slow,
    "big": lambda many: "x" * int(many),
    "garbage": garbage,
    "noise": noise,
    "asks": asks,
    "environment": lambda _: json.dumps(dict(os.environ)),
    "child": child,
    "where": lambda _: f"{os.getcwd()} {sorted(os.listdir())}",
    "network": network,
}

if __name__ == "__main__":
    main()
