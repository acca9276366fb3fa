"""`moorage`: the commands in one place. Layer: CLI; the entry point.

Other distributions add commands by the entry point group `moorage.commands` (so `dev` exists where the local platform is installed); they
are loaded when called.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from importlib import metadata
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from moorage._errors import MoorageError
from moorage.cli import agents, audit, chat, keys, login, logs, printing, responses, routines, sessions, toolboxes, up
from moorage.cli.doctor import command as doctor

GROUP = "moorage.commands"

Brought = Callable[[], Iterable[metadata.EntryPoint]]


def installed() -> Iterable[metadata.EntryPoint]:
    """Commands that installed distributions bring."""
    return metadata.entry_points(group=GROUP)


def make_app(brought: Brought = installed) -> typer.Typer:
    """The whole command line, with the commands that `brought` names."""
    app = typer.Typer(
        name="moorage",
        cls=_group(brought),
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    app.callback()(moorage)
    app.command("up")(up.up)
    app.command("chat")(chat.chat)
    app.command("logs")(logs.logs)
    app.command("audit")(audit.audit)
    app.command("login")(login.login)
    app.command("doctor")(doctor.doctor)
    app.add_typer(agents.app, name="agents")
    app.add_typer(sessions.app, name="sessions")
    app.add_typer(responses.app, name="responses")
    app.add_typer(keys.app, name="keys")
    app.add_typer(toolboxes.app, name="toolboxes")
    app.add_typer(routines.app, name="routines")
    return app


def main() -> None:
    """Runs the command line. Exit codes: 0 done, 1 refused or failed (one sentence on stderr), 2 wrong usage, 130 interrupted."""
    try:
        make_app()()
    except MoorageError as error:
        printing.note(f"Error: {printing.clean(error.message)}" + (f"\n  {error.hint}" if error.hint else ""))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output left, as `head` does; nothing more can or need be said
        sys.exit(1)


def _version(asked: bool) -> None:
    if asked:
        printing.out(metadata.version("moorage"))
        raise typer.Exit


def moorage(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Moorage: the self-hosted runtime for AI agents."""


def _group(brought: Brought) -> type[TyperGroup]:
    class Commands(TyperGroup):
        """Our own commands, then those that other distributions bring."""

        def list_commands(self, ctx: Any) -> list[str]:
            return sorted({*super().list_commands(ctx), *(entry.name for entry in brought())})

        def get_command(self, ctx: Any, cmd_name: str) -> Any:
            own = super().get_command(ctx, cmd_name)
            entry = next((each for each in brought() if each.name == cmd_name), None)
            return own if own is not None or entry is None else _load(entry)

    return Commands


def _load(entry: metadata.EntryPoint) -> Any:
    """The command behind an entry point: a typer app, a command, or a function. None: the extra it needs is not installed."""
    try:
        found = entry.load()
    except ModuleNotFoundError:
        return None
    if not isinstance(found, typer.Typer) and not hasattr(found, "make_context"):
        single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        single.command()(found)
        found = single
    command = typer.main.get_command(found) if isinstance(found, typer.Typer) else found
    command.name = entry.name
    return command
