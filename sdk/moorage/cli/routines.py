"""`moorage routines`: list, show, run, suspend, resume, history. Layer: CLI."""

from __future__ import annotations

import threading
import time
from typing import Annotated, Any

import typer

from moorage._errors import Misuse
from moorage.cli import options, printing

app = typer.Typer(help="Routines: when they run, how they ended, run one now.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="ROUTINE", help="Name of a routine.")]
LOOK_S = 1.0
LONGEST_S = 2 * 86_400.0  # a day is the longest try


@app.command("list")
def list_routines(url: options.Url = None, key: options.Key = None, as_json: options.Json = False) -> None:
    """List the routines with their next due time and their last outcome."""
    with options.client(url, key) as client:
        found = client.list_routines()
    if as_json:
        printing.document(found)
        return
    rows = [
        {
            "name": one["name"],
            "agent": one["agent"],
            "schedule": f"{one['schedule']} {one['time_zone']}".strip(),
            "status": "running" if one["running"] else one["status"],
            "next": one["next"][0] if one["next"] else "-",
            "last": one["last"]["outcome"] if one["last"] else "-",
            "failures": one["failures"],
        }
        for one in found
    ]
    columns = {
        "name": "ROUTINE",
        "agent": "AGENT",
        "schedule": "SCHEDULE",
        "status": "STATUS",
        "next": "NEXT",
        "last": "LAST",
        "failures": "FAILURES",
    }
    printing.table(rows, columns, empty="No routines.")


@app.command("show")
def show(name: Name, url: options.Url = None, key: options.Key = None, as_json: options.Json = False) -> None:
    """Show a routine: the next five due times, the run that goes on, the last one, alerts that reached nobody."""
    with options.client(url, key) as client:
        one = client.get_routine(name)
    if as_json:
        printing.document(one)
        return
    printing.out(
        printing.clean(f"{one['name']}: agent {one['agent']}, {one['schedule']} {one['time_zone']}, {one['status']}")
    )
    for at in one["next"]:
        printing.out(f"  next     {printing.clean(at)}")
    for what, run in (("running", one["running"]), ("last", one["last"])):
        if run is not None:
            printing.out(printing.clean(f"  {what:8} {_said(run)}"))
    if one["failures"]:
        printing.out(f"  {one['failures']} failed in a row")
    if one["waiting_alerts"]:
        printing.out(f"  {one['waiting_alerts']} alerts wait to be told")
    for letter in one["dead_letters"]:
        printing.out(printing.clean(f"  not told {letter['target']}: {letter['why']} ({letter['id']})"))


@app.command("run")
def run(
    name: Name,
    wait: Annotated[bool, typer.Option("--wait", help="Until it has ended; exit code 1 unless it succeeded.")] = False,
    url: options.Url = None,
    key: options.Key = None,
    as_json: options.Json = False,
) -> None:
    """Run a routine now, whatever its schedule says."""
    with options.client(url, key) as client:
        found, pause, until = client.run_routine(name), threading.Event(), time.monotonic() + LONGEST_S
        while wait and found["outcome"] is None and time.monotonic() < until:
            pause.wait(LOOK_S)
            found = next((one for one in client.list_runs(name) if one["id"] == found["id"]), found)
    if as_json:
        printing.document(found)
    else:
        printing.out(printing.clean(_said(found)))
        if found["output"]:
            printing.out(printing.clean(found["output"]))
    if wait and found["outcome"] != "succeeded":
        raise typer.Exit(1)


@app.command("suspend")
def suspend(name: Name, url: options.Url = None, key: options.Key = None) -> None:
    """Run no due time from now on. What runs, goes on."""
    with options.client(url, key) as client:
        client.suspend_routine(name)
    printing.out(f"{printing.clean(name)} is suspended.")


@app.command("resume")
def resume(name: Name, url: options.Url = None, key: options.Key = None) -> None:
    """Run due times again, also of a routine that was stopped after failures."""
    with options.client(url, key) as client:
        found = client.resume_routine(name)
    if found["status"] == "suspended":
        raise Misuse(f"The manifest of {name} says suspend: true.", hint="Change it there.")
    printing.out(printing.clean(f"{name} runs next at {found['next'][0] if found['next'] else 'no time any more'}."))


@app.command("history")
def history(
    name: Name,
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many runs.")] = 20,
    url: options.Url = None,
    key: options.Key = None,
    as_json: options.Json = False,
) -> None:
    """List a routine's runs, the newest first, with their responses."""
    with options.client(url, key) as client:
        found = client.list_runs(name, limit=limit)
    if as_json:
        printing.document(found)
        return
    rows = [
        {
            "at": one["scheduled_time"],
            "outcome": one["outcome"] or "running",
            "tries": one["tries"],
            "response": one["response_ids"][-1] if one["response_ids"] else "-",
            "error": one["error"],
        }
        for one in found
    ]
    columns = {"at": "DUE", "outcome": "OUTCOME", "tries": "TRIES", "response": "RESPONSE", "error": "ERROR"}
    printing.table(rows, columns, empty="No runs.")


def _said(one: dict[str, Any]) -> str:
    """A run in a line."""
    words = [one["outcome"] or "running", f"due {one['scheduled_time']}"]
    if one["ended_at"]:
        words.append(f"ended {one['ended_at']}")
    if one["response_ids"]:
        words.append(one["response_ids"][-1])
    if one["error"]:
        words.append(one["error"])
    return ", ".join(words)
