"""`moorage`: the commands in one place. Layer: CLI; the entry point.

Other distributions add commands by the entry point group `moorage.commands` (so `dev` exists where the local platform is installed); they
are loaded when called.
"""

from __future__ import annotations

import sys
from importlib import metadata
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from moorage._errors import MoorageError
from moorage.cli import agents, audit, chat, keys, login, logs, printing, responses, sessions, up

GROUP = "moorage.commands"


class Commands(TyperGroup):
    """Our own commands and those that other distributions bring."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Every name."""
        return sorted({*super().list_commands(ctx), *(entry.name for entry in metadata.entry_points(group=GROUP))})

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Our own command first; then one from elsewhere, loaded now. None: there is none, or its distribution is not whole."""
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        for entry in metadata.entry_points(group=GROUP, name=cmd_name):
            try:
                found = entry.load()
            except ModuleNotFoundError:
                return None  # the extra that brings it is not installed
            if isinstance(found, typer.Typer):
                return typer.main.get_command(found)
            if hasattr(found, "make_context"):
                return found
            single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
            single.command(name=cmd_name)(found)
            return typer.main.get_command(single)
        return None


def make_app() -> typer.Typer:
    """The whole command line."""
    app = typer.Typer(
        name="moorage",
        cls=Commands,
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
    app.add_typer(agents.app, name="agents")
    app.add_typer(sessions.app, name="sessions")
    app.add_typer(responses.app, name="responses")
    app.add_typer(keys.app, name="keys")
    return app


def moorage(
    version: Annotated[bool, typer.Option("--version", is_eager=True, help="Print the version.")] = False,
) -> None:
    """Moorage: the self-hosted runtime for AI agents."""
    if version:
        printing.out(metadata.version("moorage"))
        raise typer.Exit


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
