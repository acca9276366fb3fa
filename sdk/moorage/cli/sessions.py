"""`moorage sessions`: list, show, stop, delete, and their checkpoints. Layer: CLI."""

from __future__ import annotations

from typing import Annotated

import typer

from moorage.cli import options, printing

app = typer.Typer(
    help="Sessions: list, show, stop, delete, checkpoint, restore, fork.",
    no_args_is_help=False,
    invoke_without_command=True,
)

Status = Annotated[str | None, typer.Option("--status", help="Only in this state: active, idle, hibernated …")]


@app.callback()
def sessions(
    ctx: typer.Context, url: options.Url = None, key: options.Key = None, as_json: options.Json = False
) -> None:
    """Your sessions (the same as `sessions list`)."""
    if ctx.invoked_subcommand is None:
        list_sessions(url=url, key=key, as_json=as_json)


@app.command("list")
@options.asks
def list_sessions(platform: options.Platform, agent: options.AgentOption = None, status: Status = None) -> None:
    """List your sessions, newest first."""
    with platform.client() as client:
        found = client.list_sessions(agent=agent, status=status)
    if platform.as_json:
        printing.document(found)
        return
    columns = {"id": "SESSION", "agent": "AGENT", "status": "STATUS", "last": "LAST USED (UTC)", "box": "SANDBOX"}
    rows = [
        {**each, "last": printing.when(each.get("last_accessed_at")), "box": (each.get("sandbox") or {}).get("id")}
        for each in found
    ]
    printing.table(rows, columns, empty="No sessions. Start one: moorage chat AGENT")


@app.command("show")
@options.asks
def show(platform: options.Platform, session: options.SessionId, agent: options.AgentOption = None) -> None:
    """Show one session."""
    with platform.client() as client:
        found = client.get_session(session, agent=agent)
    platform.tell(found, printing.fields)


@app.command("stop")
@options.asks
def stop(platform: options.Platform, session: options.SessionId, agent: options.AgentOption = None) -> None:
    """Let the session's sandbox go. Its workspace stays; the next call wakes it."""
    with platform.client() as client:
        found = client.stop_session(session, agent=agent)
    platform.say(found, f"{session} is {printing.cell(found.get('status') or 'stopping')}.")


@app.command("delete")
@options.asks
def delete(
    platform: options.Platform,
    session: options.SessionId,
    agent: options.AgentOption = None,
    yes: options.Yes = False,
) -> None:
    """Delete a session with its responses and files."""
    options.sure(yes, f"Delete session {session} with its responses and files")
    with platform.client() as client:
        done = client.delete_session(session, agent=agent)
    platform.say(done, f"{session} is deleted.")


Checkpoint = Annotated[str | None, typer.Option("--from", help="Id of a checkpoint (see `sessions checkpoints`).")]


@app.command("checkpoint")
@options.asks
def checkpoint(platform: options.Platform, session: options.SessionId, agent: options.AgentOption = None) -> None:
    """Save the session's files as they are now."""
    with platform.client() as client:
        made = client.checkpoint_session(session, agent=agent)
    platform.say(made, f"{printing.cell(made.get('id'))}: {made.get('files')} files, {made.get('bytes')} bytes.")


@app.command("checkpoints")
@options.asks
def checkpoints(platform: options.Platform, session: options.SessionId, agent: options.AgentOption = None) -> None:
    """List the session's checkpoints, newest first."""
    with platform.client() as client:
        found = client.list_checkpoints(session, agent=agent)
    if platform.as_json:
        printing.document(found)
        return
    columns = {
        "id": "CHECKPOINT",
        "at": "MADE (UTC)",
        "reason": "FOR",
        "quiet": "QUIET",
        "files": "FILES",
        "bytes": "BYTES",
    }
    rows = [{**each, "at": printing.when(each.get("created_at"))} for each in found]
    printing.table(rows, columns, empty="No checkpoints yet. Make one: moorage sessions checkpoint SESSION")


@app.command("restore")
@options.asks
def restore(
    platform: options.Platform,
    session: options.SessionId,
    checkpoint: Checkpoint = None,
    agent: options.AgentOption = None,
    yes: options.Yes = False,
) -> None:
    """Put a checkpoint's files in place of the session's. What changed since is lost."""
    options.sure(yes, f"Replace the files of session {session}")
    with platform.client() as client:
        done = client.restore_session(session, checkpoint, agent=agent)
    platform.say(done, f"{session} has the files of {printing.cell(done.get('id'))}.")


@app.command("fork")
@options.asks
def fork(
    platform: options.Platform,
    session: options.SessionId,
    checkpoint: Checkpoint = None,
    to: Annotated[str | None, typer.Option("--to", help="Id of the new session; made when left out.")] = None,
    agent: options.AgentOption = None,
) -> None:
    """Start a new session with this one's files."""
    with platform.client() as client:
        made = client.fork_session(session, checkpoint=checkpoint, to=to, agent=agent)
    platform.say(made, f"{printing.cell(made.get('id'))} begins with the files of {session}.")
