"""Options and arguments that many commands share, and the client behind them. Layer: CLI."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from moorage._blocking import Client

Url = Annotated[
    str | None, typer.Option("--url", help="The platform's URL (else MOORAGE_URL, else the one kept by login or dev).")
]
Key = Annotated[
    str | None, typer.Option("--key", help="An API key (else MOORAGE_API_KEY, else the one kept by login or dev).")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
AgentName = Annotated[str, typer.Argument(metavar="AGENT", help="Name of an agent.")]
AgentOption = Annotated[str | None, typer.Option("--agent", help="Only of this agent.")]
SessionId = Annotated[str, typer.Argument(metavar="SESSION", help="Id of a session.")]
ResponseId = Annotated[str, typer.Argument(metavar="RESPONSE", help="Id of a response (caresp_…).")]


@contextmanager
def client(url: str | None, key: str | None) -> Iterator[Client]:
    """A client for the platform that options, environment or file name."""
    from moorage._blocking import Client
    from moorage.cli import connection

    found = connection.find(url, key, os.environ)
    with Client(url=found.url, key=found.key) as made:
        yield made
