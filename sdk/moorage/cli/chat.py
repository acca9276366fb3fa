"""`moorage chat`: a conversation in the terminal. Layer: CLI.

A turn is read through the SDK's follower: when the connection breaks, it goes on from its cursor. Ctrl-C cancels the turn, not the chat.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moorage.cli import options, printing
from moorage.cli.answer import Answer

if TYPE_CHECKING:
    from moorage._blocking import Client


def chat(
    agent: options.AgentName,
    message: Annotated[
        str | None, typer.Argument(metavar="[MESSAGE]", help="Say this, print the answer and leave.")
    ] = None,
    session: Annotated[str | None, typer.Option("--session", help="Go on in this session.")] = None,
    after: Annotated[str | None, typer.Option("--after", help="Go on after this response.")] = None,
    url: options.Url = None,
    key: options.Key = None,
    as_json: options.Json = False,
) -> None:
    """Talk to an agent. Answers stream; Ctrl-C cancels the answer, Ctrl-D leaves. Calls of tools that a person must approve are asked
    about. With --json, events are printed as JSON lines."""
    with options.client(url, key) as client:
        talk = _Talk(client, agent, session=session, previous=after, as_json=as_json)
        if message is not None:
            if not talk.turn(message.rstrip("\n")):
                raise typer.Exit(1)
            return
        if sys.stdin.isatty():
            printing.note(f"Talking to {agent}. Ctrl-C cancels an answer, Ctrl-D leaves.")
        failed = False
        while (line := _ask()) is not None:
            if line.strip():
                failed = not talk.turn(line.rstrip("\n"))
            while talk.asked and (answers := _approvals(talk.asked)) is not None:
                failed = not talk.turn(answers)
        if failed and not sys.stdin.isatty():
            raise typer.Exit(1)


def _ask() -> str | None:
    if not sys.stdin.isatty():
        return sys.stdin.readline() or None
    try:
        import readline  # noqa: F401 (line editing and history for input())
    except ImportError:
        pass  # a Python without readline still reads lines
    while True:
        try:
            return input("\n> ")
        except EOFError:
            printing.note("")
            return None
        except KeyboardInterrupt:
            printing.note("  (Ctrl-D leaves)")


def _approvals(asked: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
    """What a person says to each call that waits for it; None where nobody is there to say, or says nothing."""
    if not sys.stdin.isatty():
        return None
    answers = []
    try:
        for item in asked:
            said = input(f"Approve {printing.clean(item.get('name'))}? [y/N] ").strip().lower()
            approve = said in ("y", "yes")
            answers.append({"type": "mcp_approval_response", "approval_request_id": item["id"], "approve": approve})
    except (EOFError, KeyboardInterrupt):
        printing.note("  (not answered: it waits for a day)")
        return None
    return answers


class _Talk:
    """One conversation: what was said last, and in which session."""

    def __init__(self, client: Client, agent: str, *, session: str | None, previous: str | None, as_json: bool) -> None:
        self._client = client
        self._agent = agent
        self._session = session
        self._previous = previous
        self._as_json = as_json
        self._told_session = False
        self.asked: list[dict[str, Any]] = []
        """What the last answer waits for a person's approval of."""

    def turn(self, said: str | list[dict[str, Any]]) -> bool:
        """Says it, streams the answer; True when it completed. Its response is what the next turn follows."""
        from moorage._errors import MoorageError

        printer, self.asked = Answer(self._as_json), []
        fields: dict[str, Any] = {"previous_response_id": self._previous} if self._previous else {}
        if self._session is not None and self._previous is None:
            fields["agent_session_id"] = self._session
        try:
            for event in self._client.stream_response(self._agent, said, **fields):
                printer.show(event)
        except KeyboardInterrupt:
            self._cancel(printer)
        except MoorageError as error:
            if not sys.stdin.isatty():
                raise
            printer.end()
            printing.note(f"Error: {printing.clean(error.message)}" + (f" {error.hint}" if error.hint else ""))
            return False
        printer.end()
        self.asked = printer.asked
        self._remember(printer)
        return printer.status == "completed"

    def _cancel(self, printer: Answer) -> None:
        printer.end()
        if printer.response_id is None:
            printing.note("(left before the answer began)")
            return
        cancelled = self._client.cancel_response(self._agent, printer.response_id)
        printer.status = str(cancelled.get("status"))
        printing.note(f"({printer.status})")

    def _remember(self, printer: Answer) -> None:
        if printer.status in ("completed", "incomplete", "failed") and printer.response_id is not None:
            self._previous = printer.response_id
        if printer.session is not None and not self._told_session and not self._as_json:
            self._told_session = True
            printing.note(f"\n(session {printer.session})")
