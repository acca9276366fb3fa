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
    user: Annotated[str | None, typer.Option(help="Those of one other user (operator scope).")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 100,
    after: Annotated[str | None, typer.Option(help="Those that follow: what the list before named at its end.")] = None,
    url: options.Url = None,
    key: options.Key = None,
    as_json: options.Json = False,
) -> None:
    """List your consents: at which servers agents may act for you. Tokens are never shown."""
    with options.client(url, key) as client:
        page = client.list_consents_page(all_users=all_users, user=user, limit=limit, after=after)
    found = page["data"]
    if as_json:
        printing.document(page)
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
    more = page.get("next")
    printing.table(rows, columns, empty="None of those that were looked at counts." if more else "No consents.")
    if more:
        printing.note(
            printing.clean(f"There may be more: the same with --after {more}, or those of one user with --user.")
        )


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
