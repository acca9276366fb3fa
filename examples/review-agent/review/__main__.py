"""The engine in a terminal: `python -m review "pypi:httpx 0.27.2..0.28.1"`. Files go to `--workspace`, else nowhere that stays."""

import argparse
import os
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path

from . import clients, conversation


def main(arguments: list[str]) -> int:
    """Print the answer. 0 when there is a report, 1 when the question could not be answered."""
    parser = argparse.ArgumentParser(prog="review", description="Review two versions of a Python project.")
    parser.add_argument("request", nargs="+", help='such as "pypi:httpx 0.27.2..0.28.1"')
    parser.add_argument("--workspace", type=Path, help="folder for review.md and review.json; follow-ups read it")
    parser.add_argument("--tools", metavar="URL", help="a server like workshop/, for `tools:NAME OLD..NEW`")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="review-") as temporary:
        workspace = given.workspace or Path(temporary)
        workspace.mkdir(parents=True, exist_ok=True)
        tools = clients.Toolbox(given.tools) if given.tools else None
        world = conversation.World.from_environment(os.environ, tools=tools)
        return 0 if _print(conversation.answer(" ".join(given.request), workspace.resolve(), world)) else 1


def _print(pieces: Generator[str, None, bool]) -> bool:
    while True:
        try:
            sys.stdout.write(next(pieces))
            sys.stdout.flush()
        except StopIteration as end:
            return bool(end.value)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
