"""`moorage toolboxes consent`: list, revoke. Layer: CLI."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from moorage.cli import options, printing

app = typer.Typer(help="What users have allowed agents to do for them.", no_args_is_help=True)


@app.command("list")
def list_consents(
    all_users: Annotated[
        bool, typer.Option("--all", help="Those of all users of the tenant (operator scope).")
    ] = False,
    url: options.Url = None,
    key: options.Key = None,
    as_json: options.Json = False,
) -> None:
    """List your consents: at which servers agents may act for you. Tokens are never shown."""
    with options.client(url, key) as client:
        found = client.list_consents(all_users=all_users)
    if as_json:
        printing.document(found)
        return
    rows = [
        {
            "user": each["user"],
            "toolbox": each["toolbox"],
            "upstream": each["upstream"],
            "scopes": " ".join(each["scopes"]) or "-",
            "since": time.strftime("%Y-%m-%d %H:%M", time.gmtime(each["created_at"])),
        }
        for each in found
    ]
    columns = {"user": "USER", "toolbox": "TOOLBOX", "upstream": "SERVER", "scopes": "SCOPES", "since": "SINCE (UTC)"}
    printing.table(rows, columns, empty="No consents.")


@app.command("revoke")
def revoke_consent(
    toolbox: Annotated[str, typer.Argument(metavar="TOOLBOX", help="Name of a toolbox.")],
    server: Annotated[str, typer.Argument(metavar="SERVER", help="Name of its upstream.")],
    user: Annotated[str | None, typer.Option(help="Another user's consent (operator scope).")] = None,
    url: options.Url = None,
    key: options.Key = None,
    as_json: options.Json = False,
) -> None:
    """End a consent, within five seconds everywhere. The next call asks for a new one."""
    with options.client(url, key) as client:
        found = client.revoke_consent(toolbox, server, user=user)
    if as_json:
        printing.document(found)
    else:
        printing.note(printing.clean(f"Agents may act for {found['user']} at {server} no more."))
