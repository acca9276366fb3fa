"""Options and arguments that many commands share, and the platform behind them. Layer: CLI."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, ParamSpec, TypeVar

import typer

from moorage.cli import printing

if TYPE_CHECKING:
    from moorage._blocking import Client

P = ParamSpec("P")
T = TypeVar("T")

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
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
ResponseId = Annotated[str, typer.Argument(metavar="RESPONSE", help="Id of a response (caresp_…).")]


@contextmanager
def client(url: str | None, key: str | None) -> Iterator[Client]:
    """A client for the platform that options, environment or file name."""
    from moorage._blocking import Client
    from moorage.cli import connection

    found = connection.find(url, key, os.environ)
    with Client(url=found.url, key=found.key) as made:
        yield made


@dataclass(frozen=True)
class Platform:
    """The platform that a command asks, and how it tells the answer: its options `--url`, `--key` and `--json`."""

    url: str | None
    key: str | None
    as_json: bool

    def client(self) -> AbstractContextManager[Client]:
        """Opened when it is entered: what a person is asked before comes first."""
        return client(self.url, self.key)

    def tell(self, found: T, in_words: Callable[[T], None]) -> None:
        """Prints an answer, as it is where JSON is asked for."""
        if self.as_json:
            printing.document(found)
        else:
            in_words(found)

    def say(self, found: object, sentence: str) -> None:
        """As `tell`, in a sentence."""
        self.tell(found, lambda _: printing.out(sentence))


def asks(work: Callable[Concatenate[Platform, P], None]) -> Callable[..., None]:
    """A command of `work`: typer sees its parameters, and in place of the platform the three options, last."""
    own = [*inspect.signature(work, eval_str=True).parameters.values()][1:]
    every = inspect.signature(_every, eval_str=True)

    @functools.wraps(work)
    def command(*, url: str | None = None, key: str | None = None, as_json: bool = False, **given: Any) -> None:
        work(Platform(url, key, as_json), **given)  # type: ignore[call-arg]

    seen = every.replace(parameters=[*own, *every.parameters.values()])
    command.__annotations__ = {name: each.annotation for name, each in seen.parameters.items()}
    command.__signature__ = seen  # type: ignore[attr-defined]
    return command


def _every(url: Url = None, key: Key = None, as_json: Json = False) -> None:
    """What every command takes."""


def sure(yes: bool, question: str) -> None:
    """Asks, unless that was answered beforehand. Raises Abort for a no."""
    if not yes:
        typer.confirm(question, abort=True, err=True)
