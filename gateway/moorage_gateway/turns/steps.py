"""What every step of driving a turn shares: its ports, sending until an answer comes, logging, letting go.

Base of `Closing` and `Engine`; no step of the order of writes is in here but `append`.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from moorage_api.ledger.records import Entry
from moorage_api.ledger.turns import TurnLedger
from moorage_gateway.activation import Activation
from moorage_gateway.clock import Clock
from moorage_gateway.insisting import Insisting
from moorage_gateway.recovery import Recovery
from moorage_gateway.turns import archive
from moorage_gateway.turns.held import Dropped, Held
from moorage_gateway.upstream import Shims

T = TypeVar("T")


class Observer(Protocol):
    """What telemetry sees of attempts; the span's context is handed to the agent as traceparent."""

    def attempt(self, held: Held, number: int) -> AbstractContextManager[Attempted]: ...


@dataclass
class Attempted:
    """Filled in as the attempt goes; read by the observer at its end."""

    traceparent: str | None = None
    fault: str | None = None
    outcome: str | None = None


@dataclass(frozen=True)
class Ports:
    """Everything the engine reaches. `generation`: the ledger's; `calm`: seconds until attempts may begin again."""

    ledger: TurnLedger
    activation: Activation
    shims: Shims
    archive: archive.Archive
    clock: Clock
    recovery: Recovery
    observer: Observer
    history: Callable[[Held], Awaitable[list[dict[str, Any]]]]
    generation: Callable[[], int]
    calm: Callable[[], float]
    calls: Callable[[str], Awaitable[int]]
    """How many calls past the boundary a turn has recorded: progress, as logged events are (turns.md §2). Raises LedgerError."""
    asked: Callable[[Held], Awaitable[list[dict[str, Any]]]]
    """Items that a turn's calls put at the end of its output: what a person must approve. Raises LedgerError."""


class Steps:
    """Ports and the calls that may be repeated. Raises Dropped when this process must let go of the turn."""

    def __init__(self, ports: Ports) -> None:
        self._ledger = ports.ledger
        self._activation = ports.activation
        self._shims = ports.shims
        self._store = ports.archive
        self._clock = ports.clock
        self._recovery = ports.recovery
        self._until = Insisting(ports.recovery, ports.clock)
        self._observer = ports.observer
        self._history = ports.history
        self._generation = ports.generation
        self._calm = ports.calm
        self._calls = ports.calls
        self._asked = ports.asked

    async def _append(self, held: Held, entries: list[Entry]) -> None:
        """Logs a group, then shows it to the readers here."""
        if entries:
            await self._log(held, entries)
            held.logged(entries)

    async def _log(self, held: Held, entries: list[Entry]) -> int:
        """Writes `entries` behind what is logged, and first what Redis lacks of that. The log's length then."""
        first, group = len(held.log), entries
        while True:
            send = functools.partial(self._ledger.append, held.response, held.fence, first, group)
            word, length = await self._insist(held, send)
            if word == "GAP" and length <= len(held.log):
                # Restored from memory while an acknowledgement was still on its way here: send what it lacks again. Restored once more
                # meanwhile, it may lack less.
                first, group = length, [*held.log[length:], *entries]
                continue
            if word != "OK":
                held.interrupt(fenced=True)
                self._stay(held)
            return length

    async def _note(self, held: Held) -> None:
        index = len(held.attempts) - 1
        if index >= 0:
            await self._insist(held, lambda: self._ledger.note(held.response, held.fence, index, held.attempts[index]))

    def _stay(self, held: Held) -> None:
        """Raises Dropped when this process must let go of the turn."""
        if held.fenced or held.releasing:
            raise Dropped

    async def _insist(self, held: Held, call: Callable[[], Awaitable[T]]) -> T:
        """Sends until an answer comes: every script answers the same when sent again. Dropped ends it."""
        return await self._until.while_wanted(call, functools.partial(self._stay, held))
