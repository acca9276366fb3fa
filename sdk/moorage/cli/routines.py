"""`moorage routines`: list, show, run, cancel, suspend, resume, delete, history, logs. Layer: CLI."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moorage._errors import ApiStatusError, Misuse
from moorage.cli import options, printing, times
from moorage.cli.answer import Answer
from moorage.cli.responses import text_of

if TYPE_CHECKING:
    from moorage._blocking import Client

app = typer.Typer(help="Routines: when they run, how they ended, run one now.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="ROUTINE", help="Name of a routine.")]
MOST_LINES = 5000


@app.command("list")
@options.asks
def list_routines(platform: options.Platform) -> None:
    """List the routines with their next due time and their last outcome."""
    with platform.client() as client:
        found = client.list_routines()
    if platform.as_json:
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
@options.asks
def show(platform: options.Platform, name: Name) -> None:
    """Show a routine: the next five due times in words, the run that goes on, the last one, alerts that reached nobody."""
    with platform.client() as client:
        one = client.get_routine(name)
    if platform.as_json:
        printing.document(one)
        return
    printing.out(
        printing.clean(f"{one['name']}: agent {one['agent']}, {one['schedule']} {one['time_zone']}, {one['status']}")
    )
    for at in one["next"]:
        said = times.ahead(at, one["time_zone"], datetime.now(UTC))
        printing.out(printing.clean(f"  next     {said} ({at})"))
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
@options.asks
def run(
    platform: options.Platform,
    name: Name,
    wait: Annotated[
        bool, typer.Option("--wait", help="Print what it does until it has ended; exit code 1 unless it succeeded.")
    ] = False,
) -> None:
    """Run a routine now, whatever its schedule says."""
    with platform.client() as client:
        found = client.run_routine(name)
        if wait:
            found = _followed(client, name, found["id"], quiet=platform.as_json)
    platform.tell(found, lambda found: printing.out(printing.clean(_said(found))))
    if wait and found["outcome"] != "succeeded":
        raise typer.Exit(1)


@app.command("logs")
@options.asks
def logs(
    platform: options.Platform,
    name: Name,
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN",
            help="A run's id, its due time, or one of its responses or invocations. Default: the newest run.",
        ),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run has ended.")] = False,
    tail: Annotated[
        int, typer.Option("--tail", "-n", min=0, max=MOST_LINES, help="Lines of what its sandbox printed.")
    ] = 100,
) -> None:
    """Print what a run said, how far it is, and what its sandbox printed meanwhile."""
    with platform.client() as client:
        routine = client.get_routine(name)
        agent = routine["agent"]
        found = _run_of(client, name, run)
        if follow and found["outcome"] is None and platform.as_json:
            for event in client.follow_run(name, found["id"]):
                printing.document(event)
            return
        if follow and found["outcome"] is None:
            found = _followed(client, name, found["id"], quiet=False)
            responses: list[dict[str, Any]] = []
        else:
            responses = _responses(client, agent, found)
        lines = _printed(client, routine, found, tail)
    if platform.as_json:
        printing.document({"run": found, "responses": responses, "lines": lines})
        return
    for response in responses:
        printing.out(text_of(response))
    _heard(found)
    for line in lines:
        printing.note(printing.clean(f"{line['stream']}: {line['text']}"))
    printing.out(printing.clean(_said(found)))


@app.command("cancel")
def cancel(name: Name, url: options.Url = None, key: options.Key = None) -> None:
    """End the run that goes on, without a further try. What it said is kept."""
    with options.client(url, key) as client:
        found = client.cancel_run(name)
    printing.out(printing.clean(f"{name}: the run due {found['scheduled_time']} is being ended."))


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


@app.command("delete")
def delete(name: Name, url: options.Url = None, key: options.Key = None) -> None:
    """Take a routine away that came through the API. What runs of it is cancelled."""
    with options.client(url, key) as client:
        client.delete_routine(name)
    printing.out(f"{printing.clean(name)} is deleted.")


@app.command("history")
@options.asks
def history(
    platform: options.Platform,
    name: Name,
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many runs.")] = 20,
) -> None:
    """List a routine's runs, the newest first, with their responses or invocations."""
    with platform.client() as client:
        found = client.list_runs(name, limit=limit)
    if platform.as_json:
        printing.document(found)
        return
    rows = [
        {
            "at": one["scheduled_time"],
            "outcome": one["outcome"] or "running",
            "tries": one["tries"],
            "response": (_tries(one) or ["-"])[-1],
            "error": one["error"],
        }
        for one in found
    ]
    columns = {"at": "DUE", "outcome": "OUTCOME", "tries": "TRIES", "response": "RESPONSE", "error": "ERROR"}
    printing.table(rows, columns, empty="No runs.")


def _tries(run: dict[str, Any]) -> list[str]:
    """What names its tries, the newest last."""
    return [*run["response_ids"], *run["invocation_ids"]]


def _heard(run: dict[str, Any]) -> None:
    """What an invocation answered, as much as is kept of it."""
    if run["invocation_ids"] and run["output"]:
        printing.out(printing.clean(run["output"].rstrip("\n")))


def _run_of(client: Client, name: str, wanted: str | None) -> dict[str, Any]:
    """A run by what names it; the newest without a word. Raises Misuse."""
    runs = client.list_runs(name, limit=1 if wanted is None else 500)
    for one in runs:
        if wanted is None or wanted in (one["id"], one["scheduled_time"], *_tries(one)):
            return one
    what = "has not run yet" if wanted is None else f"has no run {printing.clean(wanted)}"
    raise Misuse(f"{name} {what}.", hint=f"See `moorage routines history {name}`.")


def _followed(client: Client, name: str, run: str, *, quiet: bool) -> dict[str, Any]:
    """The run once it has ended; what it says and how far it is are printed as they come, unless `quiet`."""
    printer, found = Answer(False), {}
    for event in client.follow_run(name, run):
        if event["type"] == "routine.run":
            found = event["run"]
        elif quiet:
            continue
        elif event["type"] == "routine.progress":
            printer.end()
            printing.note(printing.clean(f"  · {_far(event['progress'])}"))
        else:
            printer.show(event)
    printer.end()
    if not quiet:
        _heard(found)
    return found


def _responses(client: Client, agent: str, run: dict[str, Any]) -> list[dict[str, Any]]:
    """Its responses as they stand; deleted ones are left out."""
    found = []
    for each in run["response_ids"]:
        try:
            found.append(client.get_response(agent, each))
        except ApiStatusError as gone:
            if gone.status != 404:
                raise
    return found


def _printed(client: Client, routine: dict[str, Any], run: dict[str, Any], tail: int) -> list[dict[str, Any]]:
    """What its sandbox printed while it ran, where the platform has it: on a laptop; in a cluster `kubectl logs` has."""
    if not tail or not _tries(run) or not run["started_at"]:
        return []
    agent = routine["agent"]
    try:
        if run["response_ids"]:
            session = client.response_record(agent, run["response_ids"][-1])["session"]
        else:
            alone = "" if routine["session"] == "persistent" else f"-{run['id'].removeprefix('run_')}"
            session = f"routine-{routine['name']}{alone}"
        lines = list(client.session_logs(session, agent=agent, tail=MOST_LINES))
    except (ApiStatusError, KeyError):
        return []
    began, ended = _instant(run["started_at"]), _instant(run["ended_at"]) if run["ended_at"] else float("inf")
    return [one for one in lines if began <= one["time"] < ended + 1000][-tail:]


def _instant(text: str) -> float:
    return datetime.fromisoformat(text).timestamp() * 1000


def _far(progress: dict[str, Any]) -> str:
    """`12 of 30 issues (40 %)`."""
    part = progress["fraction"]
    return str(progress["text"]) + ("" if part is None else f" ({part * 100:.0f} %)")


def _said(one: dict[str, Any]) -> str:
    """A run in a line."""
    words = [one["outcome"] or "running", f"due {one['scheduled_time']}"]
    if one.get("progress"):
        words.append(_far(one["progress"]))
    if one["ended_at"]:
        words.append(f"ended {one['ended_at']}")
    words += _tries(one)[-1:]
    if one["error"]:
        words.append(one["error"])
    return ", ".join(words)
