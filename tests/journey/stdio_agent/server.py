"""A server over stdin and stdout, of the `mcp` package: every call is a line in the file `calls` of its home folder."""

import os
import time
from pathlib import Path

from mcp.server.mcpserver import MCPServer

server = MCPServer("notes")
CALLS = Path(os.environ["HOME"], "calls")


@server.tool()
def note(text: str) -> str:
    """Writes a line down."""
    with CALLS.open("a") as file:
        file.write(text + "\n")
    word, _, name = text.partition(" ")
    deadline = time.monotonic() + 60
    while word == "wait" and not Path(os.environ["HOME"], name).exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    return f"noted {text} in {os.environ['MODE']}"


@server.tool()
def count() -> int:
    """How many lines there are."""
    return len(CALLS.read_text().splitlines())


@server.tool()
def tell() -> str:
    """Says its secret, and prints it."""
    print("the token is", os.environ["API_TOKEN"], file=__import__("sys").stderr, flush=True)
    return f"the token is {os.environ['API_TOKEN']}"


if __name__ == "__main__":
    server.run("stdio")
