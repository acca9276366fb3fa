"""`moorage toolboxes`: list, tools, call, consent. Layer: CLI."""

from __future__ import annotations

import json
import time
from typing import Annotated, Any

import typer

from moorage._errors import Misuse
from moorage.cli import consents, options, printing

app = typer.Typer(help="Toolboxes: list them and their tools, try a tool.", no_args_is_help=True)
app.add_typer(consents.app, name="consent")

Name = Annotated[str, typer.Argument(metavar="TOOLBOX", help="Name of a toolbox.")]


@app.command("list")
@options.asks
def list_toolboxes(platform: options.Platform) -> None:
    """List the toolboxes with their servers and agents."""
    with platform.client() as client:
        found = client.list_toolboxes()
    if platform.as_json:
        printing.document(found)
        return
    rows = [
        {
            "name": box["name"],
            "upstream": each["name"],
            "type": each["type"],
            "url": each["url"] or each.get("command") or each["agent"],
        }
        for box in found
        for each in box["upstreams"]
    ]
    columns = {"name": "TOOLBOX", "upstream": "SERVER", "type": "TYPE", "url": "URL, PROGRAM OR AGENT"}
    printing.table(rows, columns, empty="No toolboxes.")
    for box in found:
        for each in box["upstreams"]:
            if each.get("problem"):
                seen = time.strftime("%Y-%m-%d %H:%M", time.gmtime(each["problem_at"]))
                printing.note(printing.clean(f"{box['name']}/{each['name']}, seen at {seen} UTC: {each['problem']}"))


@app.command("tools")
@options.asks
def tools(platform: options.Platform, name: Name) -> None:
    """Ask a toolbox' servers for their tools. DIGEST is what `pin` in its manifest takes."""
    with platform.client() as client:
        found = client.list_tools(name)
    if platform.as_json:
        printing.document(found)
        return
    rows = [
        {
            "name": each["name"] or "-",
            "upstream": each["upstream"],
            "tool": each["tool"],
            "state": "held back" if each["held_back"] else "for agents" if each["name"] else "hidden",
            "effect": each["effect"],
            "digest": each["digest"],
        }
        for each in found["data"]
    ]
    columns = {
        "name": "NAME",
        "upstream": "SERVER",
        "tool": "ITS NAME",
        "state": "STATE",
        "effect": "RUN",
        "digest": "DIGEST",
    }
    printing.table(rows, columns, empty="No tools.")
    for server, why in found["unavailable"].items():
        printing.note(printing.clean(f"{server}: {why}"))
    for what, why in found.get("left_out", {}).items():
        printing.note(printing.clean(f"no tool is {what}: it {why}"))


@app.command("call")
@options.asks
def call(
    platform: options.Platform,
    name: Name,
    tool: Annotated[str, typer.Argument(metavar="TOOL", help="Name of a tool as agents know it.")],
    arguments: Annotated[str, typer.Argument(help="Its arguments as a JSON object.")] = "{}",
) -> None:
    """Run one tool, as an agent would, and print what it gives. Exit code 1 for an error of the tool's."""
    try:
        given = json.loads(arguments)
    except ValueError as wrong:
        raise Misuse(f"The arguments are not JSON: {wrong}.", hint="""Write them like '{"title": "x"}'.""") from wrong
    if not isinstance(given, dict):
        raise Misuse("The arguments are not a JSON object.", hint="""Write them like '{"title": "x"}'.""")
    with platform.client() as client:
        result = client.call_tool(name, tool, given)
    platform.tell(result, _say)
    if result.get("isError"):
        raise typer.Exit(1)


def _say(result: dict[str, Any]) -> None:
    for part in result.get("content", []):
        printing.out(_text(part))


def _text(part: dict[str, Any]) -> str:
    """One part of a result; what is no text is named."""
    if part.get("type") == "text":
        return printing.clean(part.get("text", ""))
    return f"[{printing.clean(part.get('type'))}]"
