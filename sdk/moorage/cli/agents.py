"""`moorage agents`: list, show, delete. Layer: CLI."""

from __future__ import annotations

from typing import Annotated

import typer

from moorage.cli import options, printing

app = typer.Typer(help="Agents: list, show, delete.", no_args_is_help=False, invoke_without_command=True)


@app.callback()
def agents(ctx: typer.Context, url: options.Url = None, key: options.Key = None, as_json: options.Json = False) -> None:
    """The agents you may use (the same as `agents list`)."""
    if ctx.invoked_subcommand is None:
        list_agents(url, key, as_json)


@app.command("list")
def list_agents(url: options.Url = None, key: options.Key = None, as_json: options.Json = False) -> None:
    """List the agents you may use."""
    with options.client(url, key) as client:
        found = client.list_agents()
    if as_json:
        printing.document(found)
        return
    columns = {"name": "AGENT", "ready": "READY", "protocols": "PROTOCOLS", "revision": "REVISION", "message": "WHY"}
    rows = [{**agent, "protocols": ", ".join(agent.get("protocols") or [])} for agent in found]
    printing.table(rows, columns, empty="No agents yet. Deploy one: moorage up FOLDER")


@app.command("show")
def show(
    agent: options.AgentName, url: options.Url = None, key: options.Key = None, as_json: options.Json = False
) -> None:
    """Show one agent with its conditions."""
    with options.client(url, key) as client:
        found = client.get_agent(agent)
    if as_json:
        printing.document(found)
    else:
        printing.fields(found)


@app.command("delete")
def delete(
    agent: options.AgentName,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    url: options.Url = None,
    key: options.Key = None,
    as_json: options.Json = False,
) -> None:
    """Delete an agent."""
    if not yes:
        typer.confirm(f"Delete {agent}? Its sessions cannot be reached afterwards", abort=True, err=True)
    with options.client(url, key) as client:
        done = client.delete_agent(agent)
    if as_json:
        printing.document(done)
    else:
        printing.out(f"{agent} is deleted.")
