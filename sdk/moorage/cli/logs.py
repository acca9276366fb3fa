"""`moorage logs`: what agents write to stdout and stderr. Layer: CLI."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from moorage.cli import options, printing

if TYPE_CHECKING:
    from moorage._blocking import Client


def logs(
    target: Annotated[str, typer.Argument(metavar="AGENT|SESSION", help="An agent's name, or a session's id.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new lines until Ctrl-C.")] = False,
    tail: Annotated[int, typer.Option("--tail", "-n", min=0, max=5000, help="Lines from before now.")] = 100,
    url: options.Url = None,
    key: options.Key = None,
    as_json: options.Json = False,
) -> None:
    """Print the log lines of an agent, or of one session. On Kubernetes: name the kubectl command that does."""
    with options.client(url, key) as client:
        agent = _agent_of(client, target)
        found = client.session_logs(target, agent=agent, follow=follow, tail=tail) if agent else None
        for line in found or client.agent_logs(target, follow=follow, tail=tail):
            if as_json:
                printing.document(line)
            else:
                printing.out(_words(line))


def _agent_of(client: Client, target: str) -> str | None:
    """The agent of a session; None when `target` is an agent itself. Raises Misuse when it is neither."""
    from moorage._errors import ApiStatusError, Misuse
    from moorage_api import names

    if names.AGENT.match(target) and any(agent["name"] == target for agent in client.list_agents()):
        return None
    try:
        return str(client.get_session(target)["agent"])
    except ApiStatusError as refused:
        if refused.status not in (400, 404):
            raise
    raise Misuse(
        f"{target} is neither an agent nor a session of yours.", hint="See `moorage agents` and `moorage sessions`."
    )


def _words(line: dict[str, Any]) -> str:
    session = str(line.get("session") or "")
    prefix = f"[{session[:12]}] " if session else ""
    return printing.clean(f"{prefix}{line.get('text', '')}")
