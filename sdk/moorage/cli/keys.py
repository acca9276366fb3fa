"""`moorage keys`: create, list, revoke. Layer: CLI."""

from __future__ import annotations

from typing import Annotated

import typer

from moorage.cli import options, printing

app = typer.Typer(help="API keys: create, list, revoke.", no_args_is_help=True)


@app.command("create")
@options.asks
def create(
    platform: options.Platform,
    name: Annotated[str, typer.Argument(help="What it is for.")] = "",
    user: Annotated[str | None, typer.Option("--user", help="Whom it speaks for (default: you).")] = None,
    agent: Annotated[list[str] | None, typer.Option("--agent", help="Only this agent; may be given again.")] = None,
    scope: Annotated[
        list[str] | None, typer.Option("--scope", help="invoke, deploy, operator or admin; may be given again.")
    ] = None,
) -> None:
    """Create an API key and print it, once."""
    with platform.client() as client:
        made = client.create_key(name=name, user=user, agents=agent or None, scopes=scope or None)
    if platform.as_json:
        printing.document(made)
        return
    printing.out(str(made.get("key") or made.get("api_key")))
    printing.note(f"Key {made.get('id')}: keep it now, it cannot be shown again.")


@app.command("list")
@options.asks
def list_keys(platform: options.Platform) -> None:
    """List the keys, without their text."""
    with platform.client() as client:
        found = client.list_keys()
    if platform.as_json:
        printing.document(found)
        return
    columns = {
        "id": "KEY",
        "name": "NAME",
        "user": "USER",
        "scopes": "SCOPES",
        "agents": "AGENTS",
        "made": "CREATED (UTC)",
        "state": "STATE",
    }
    rows = [
        {
            **each,
            "scopes": ", ".join(each.get("scopes") or []),
            "agents": ", ".join(each["agents"]) if each.get("agents") else "all",
            "made": printing.when(each.get("created_at")),
            "state": "revoked" if each.get("revoked_at") or each.get("revoked") else "valid",
        }
        for each in found
    ]
    printing.table(rows, columns, empty="No keys.")


@app.command("revoke")
@options.asks
def revoke(
    platform: options.Platform,
    key_id: Annotated[str, typer.Argument(metavar="KEY", help="Id of a key, as `keys list` shows it.")],
) -> None:
    """Revoke a key, for good."""
    with platform.client() as client:
        done = client.revoke_key(key_id)
    platform.say(done, f"{key_id} is revoked.")
