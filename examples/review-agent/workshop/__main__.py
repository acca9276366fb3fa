"""`python -m workshop --log tools.jsonl`: the tools on loopback, until Ctrl-C.

Without `--repositories` it has one, `quayside`: the sample with planted findings, made anew at each start.
"""

import argparse
import asyncio
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from review import sample
from review.budget import Budget
from review.errors import NotFound
from review.index import Index
from review.licences import IndexLicences, Licences, RecordedLicences
from review.repositories import Git
from review.transport import NetworkSettings

from .repositories import Shelf, binary, found_in
from .server import served


def main() -> None:
    """Serve."""
    parser = argparse.ArgumentParser(prog="workshop", description="Git and package tools for the review agent.")
    parser.add_argument("--port", type=int, default=8765)
    parser.add_argument("--repositories", type=Path, help="folder with git repositories; default: the sample alone")
    parser.add_argument(
        "--log", type=Path, default=Path("tools.jsonl"), help="gets a line as each call begins and ends"
    )
    parser.add_argument("--slow", type=float, default=0.0, metavar="SECONDS", help="let every call take so much longer")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="workshop-") as folder, given.log.open("a", buffering=1) as log:

        async def note(line: dict[str, Any]) -> None:
            log.write(json.dumps(line) + "\n")

        shelf = made(Path(folder), given.repositories)
        server = served(shelf, note, slow=given.slow)
        asyncio.run(server.run_streamable_http_async(port=given.port, stateless_http=True, json_response=True))


def made(folder: Path, repositories: Path | None) -> Shelf:
    """The tools over a folder of repositories, or over the sample, which is made in `folder`. Raises `NotFound`."""
    git = Git(binary(), os.environ, folder / "git")
    if repositories is not None:
        licences: Licences = IndexLicences(Index.over_http(NetworkSettings.from_environment(os.environ)), folder)
        return Shelf(found_in(repositories), git, licences)
    quayside = sample.made(git, folder / "git" / "quayside", Budget.start())
    if quayside is None:
        raise NotFound("git did not make the sample repository.")
    return Shelf({"quayside": quayside}, git, RecordedLicences(sample.LICENCES))


if __name__ == "__main__":
    main()
