"""`moorage replay`. Layer: local, the outermost frame; the CLI finds it by entry point."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moorage.cli import options

if TYPE_CHECKING:
    from moorage_local.replay.matching import Matching
    from moorage_local.replay.running import Program, Ran

DIFFERS = 1
IMPOSSIBLE = 3
ENTRYPOINTS = ("host.py", "agent.py", "main.py")
PAUSE_S = 0.3
"""For what the agent says of a difference to reach the terminal."""


def replay(  # noqa: PLR0913, PLR0917 - options of a command line are its parameters
    response: options.ResponseId,
    folder: Annotated[Path, typer.Argument(help="The agent's folder.")] = Path("."),
    agent: Annotated[str | None, typer.Option("--agent", help="Its agent (looked up when left out).")] = None,
    entrypoint: Annotated[
        str | None, typer.Option("--entrypoint", help="The file that serves. Default: host.py, agent.py or main.py.")
    ] = None,
    python: Annotated[
        str | None, typer.Option("--python", help="Interpreter with the agent's packages. Default: this command's own.")
    ] = None,
    seconds: Annotated[float, typer.Option("--timeout", min=1, metavar="SECONDS", help="Longest run.")] = 300.0,
    url: options.Url = None,
    key: options.Key = None,
    as_json: options.Json = False,
) -> None:
    """Run an ended turn again, offline: the program of the folder is answered from the turn's journal, and asks nobody.

    Prints each call and the first difference. Exit codes: 0 the same calls and words, 1 something differs, 3 it cannot be replayed
    (journals are kept for half an hour after a response's end; the key needs the deploy scope).
    """
    from moorage._errors import MoorageError
    from moorage.cli.responses import find, text_of
    from moorage_local.replay.matching import Matching
    from moorage_local.replay.running import NotRunnable, Program, Ran

    named = [entrypoint] if entrypoint is not None else list(ENTRYPOINTS)
    file = next((each for each in named if (folder / each).is_file()), None)
    if file is None:
        raise typer.BadParameter(f"there is no {' or '.join(named)} in {folder}", param_hint="FOLDER")
    try:
        with options.client(url, key) as client:
            name, found = find(client, response, agent)
            journal = client.response_journal(name, response)
            matching = Matching.of(journal)
    except MoorageError as refused:
        raise _impossible(refused.message) from None
    except (KeyError, TypeError, ValueError):
        raise _impossible("The journal cannot be read: the platform is of another version than this command.") from None
    try:
        ran = asyncio.run(_run(journal, matching, Program(python or sys.executable, folder.resolve(), file), seconds))
    except (NotRunnable, OSError) as why:
        raise _impossible(f"{folder / file} cannot be replayed: {why}") from None
    raise typer.Exit(_report(matching, ran, Ran(text_of(found), str(found.get("status"))), as_json=as_json))


def _impossible(why: str) -> typer.Exit:
    from moorage.cli import printing

    printing.note(f"Error: {printing.clean(why)}")
    return typer.Exit(IMPOSSIBLE)


async def _run(journal: dict[str, Any], matching: Matching, program: Program, seconds: float) -> Ran | None:
    """How the run ended; None where it was ended by its first difference, or took too long."""
    from moorage_local.replay import running
    from moorage_local.replay.door import Door

    door = Door(journal, matching)
    with tempfile.TemporaryDirectory(prefix="moorage-replay-") as scratch:
        async with (
            door.serving() as place,
            running.program(program, place, Path(scratch), os.environ) as port,
        ):
            asking = asyncio.create_task(running.ask(port, journal))
            differing = asyncio.create_task(door.differed.wait())
            try:
                await asyncio.wait((asking, differing), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
                if door.differed.is_set():
                    await asyncio.wait((asking,), timeout=PAUSE_S)
                    return None
                if not asking.done():
                    raise running.NotRunnable(f"it did not end within {seconds:g} s")
                return asking.result()
            finally:
                for task in (asking, differing):
                    task.cancel()
                await asyncio.gather(asking, differing, return_exceptions=True)


def _report(matching: Matching, ran: Ran | None, recorded: Ran, *, as_json: bool) -> int:
    from moorage.cli import printing

    difference = matching.difference if ran is None else matching.ended()
    words = ran is None or (ran.text.split(), ran.status) == (recorded.text.split(), recorded.status)
    same = difference is None and words
    if as_json:
        about = (
            None
            if difference is None
            else {"call": difference.number, "message": difference.sentence, "diff": difference.lines}
        )
        printing.document(
            {
                "same": same,
                "calls": matching.asked,
                "recorded": len(matching.calls),
                "difference": about,
                "same_words": words,
            }
        )
        return 0 if same else DIFFERS
    left = {each.entry for each in matching.left()}
    for number, call in enumerate(matching.calls, 1):
        printing.out(f"{'  ' if call.entry in left else 'ok'}  {number:>3}  {printing.clean(call.name)}")
    if difference is not None:
        printing.out(f"\n{printing.clean(difference.sentence)}")
        for line in difference.lines:
            printing.out(printing.clean(line))
    elif not words and ran is not None:
        printing.out("\nThe calls are the same, the answer is not.")
        for mark, one in (("-", recorded), ("+", ran)):
            printing.out(f"{mark} {one.status}: {printing.clean(one.text.strip() or one.error)[:2000]}")
    else:
        printing.out(f"\nThe same: {matching.asked} calls, and the same answer.")
    return 0 if same else DIFFERS
