"""`moorage responses`: show, follow, cancel, feedback. Layer: CLI."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moorage.cli import options, printing
from moorage.cli.answer import Answer

if TYPE_CHECKING:
    from moorage._blocking import Client

app = typer.Typer(help="Responses: show, follow, cancel, give feedback.", no_args_is_help=True)

Of = Annotated[str | None, typer.Option("--agent", help="Its agent (looked up when left out).")]


class Rating(StrEnum):
    """What feedback says."""

    positive = "positive"
    negative = "negative"
    neutral = "neutral"


@app.command("show")
@options.asks
def show(platform: options.Platform, response: options.ResponseId, agent: Of = None) -> None:
    """Show a response and its record: attempts with their reasons, session, trace."""
    from moorage._errors import ApiStatusError

    with platform.client() as client:
        name, found = find(client, response, agent)
        try:
            record = client.response_record(name, response)
        except ApiStatusError as missing:
            if missing.status != 404:
                raise
            record = {}
    if platform.as_json:
        printing.document({"response": found, "record": record})
        return
    text = text_of(found)
    printing.fields(
        {"id": response, "agent": name, "status": found.get("status"), "error": found.get("error"), **record}
    )
    if text:
        printing.out(f"\n{text}")


@app.command("follow")
@options.asks
def follow(
    platform: options.Platform,
    response: options.ResponseId,
    agent: Of = None,
    after: Annotated[int, typer.Option("--after", min=-1, help="Only events over this sequence number.")] = -1,
) -> None:
    """Read a response's stream from a cursor up to its end, through broken connections."""
    printer = Answer(platform.as_json)
    with platform.client() as client:
        name, _ = find(client, response, agent)
        for event in client.follow_response(name, response, after=after):
            printer.show(event)
    printer.end()
    if printer.status not in ("completed", "incomplete"):
        raise typer.Exit(1)


@app.command("cancel")
@options.asks
def cancel(platform: options.Platform, response: options.ResponseId, agent: Of = None) -> None:
    """Cancel a running response."""
    with platform.client() as client:
        name, _ = find(client, response, agent)
        found = client.cancel_response(name, response)
    platform.say(found, f"{response} is {printing.cell(found.get('status'))}.")


@app.command("feedback")
@options.asks
def feedback(
    platform: options.Platform,
    response: options.ResponseId,
    rating: Annotated[Rating | None, typer.Argument(help="positive, negative or neutral.")] = None,
    score: Annotated[float | None, typer.Option("--score", help="A number of your own scale.")] = None,
    comment: Annotated[str | None, typer.Option("--comment", "-m", help="Why.")] = None,
    agent: Of = None,
) -> None:
    """Keep feedback with a response: a rating, a score, or both."""
    if rating is None and score is None:
        raise typer.BadParameter("give positive, negative or neutral, or --score")
    with platform.client() as client:
        name, _ = find(client, response, agent)
        kept = client.add_feedback(
            name, response, rating=rating.value if rating else None, score=score, comment=comment
        )
    platform.say(kept, "Thank you: kept with the response.")


def find(client: Client, response: str, agent: str | None) -> tuple[str, dict[str, Any]]:
    """The response and its agent; without one named, every agent that this key may use is asked."""
    from moorage._errors import ApiStatusError, Misuse

    candidates = [agent] if agent is not None else [str(each["name"]) for each in client.list_agents()]
    for name in candidates:
        try:
            return name, client.get_response(name, response)
        except ApiStatusError as refused:
            if refused.status != 404 or agent is not None:
                raise
    raise Misuse(
        f"There is no response {response} for this key.", hint="Check the id; deleted and unstored responses are gone."
    )


def text_of(response: dict[str, Any]) -> str:
    """Its words."""
    parts = [
        part
        for item in response.get("output") or []
        if item.get("type") == "message"
        for part in item.get("content") or []
    ]
    return "\n".join(printing.clean(part.get("text") or part.get("refusal") or "") for part in parts)
