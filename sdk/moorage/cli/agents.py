"""`moorage agents`: list, show, delete. Layer: CLI."""

from __future__ import annotations

import typer

from moorage.cli import options, printing

app = typer.Typer(help="Agents: list, show, delete.", no_args_is_help=False, invoke_without_command=True)


@app.callback()
def agents(ctx: typer.Context, url: options.Url = None, key: options.Key = None, as_json: options.Json = False) -> None:
    """The agents you may use (the same as `agents list`)."""
    if ctx.invoked_subcommand is None:
        list_agents(url=url, key=key, as_json=as_json)


@app.command("list")
@options.asks
def list_agents(platform: options.Platform) -> None:
    """List the agents you may use."""
    with platform.client() as client:
        found = client.list_agents()
    if platform.as_json:
        printing.document(found)
        return
    columns = {"name": "AGENT", "ready": "READY", "protocols": "PROTOCOLS", "revision": "REVISION", "message": "WHY"}
    rows = [{**agent, "protocols": ", ".join(agent.get("protocols") or [])} for agent in found]
    printing.table(rows, columns, empty="No agents yet. Deploy one: moorage up FOLDER")


@app.command("show")
@options.asks
def show(platform: options.Platform, agent: options.AgentName) -> None:
    """Show one agent with its conditions."""
    with platform.client() as client:
        found = client.get_agent(agent)
    platform.tell(found, printing.fields)


@app.command("delete")
@options.asks
def delete(platform: options.Platform, agent: options.AgentName, yes: options.Yes = False) -> None:
    """Delete an agent."""
    options.sure(yes, f"Delete {agent}? Its sessions cannot be reached afterwards")
    with platform.client() as client:
        done = client.delete_agent(agent)
    platform.say(done, f"{agent} is deleted.")
