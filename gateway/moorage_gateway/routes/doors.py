"""What the routes need of the services: Protocols, so that a route can be served by fakes. Layer: gateway, rim; no I/O."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from moorage_gateway.activation import Wanted
from moorage_gateway.audit import Entry, Origin
from moorage_gateway.auth import Principal
from moorage_gateway.sessions import Place
from moorage_gateway.turns.service import StoredTurn, TurnRequest
from moorage_gateway.upstream import Route


class TurnsDoor(Protocol):
    """Turns by response id. Methods raise ApiError only."""

    async def accept(self, caller: Principal, place: Any, request: TurnRequest) -> str:
        """`place` is a `sessions.Place`. The response to follow: the request's own, or that of the turn it joined."""

    def follow(
        self, response_id: str, *, tenant: str, after: int = -1, quick: Callable[[bytes], bool] | None = None
    ) -> AsyncIterator[tuple[int, bytes]]:
        """(sequence number, compact JSON) of each event after `after`; ends after the terminal event. An async generator."""

    async def wait(self, response_id: str, *, tenant: str) -> dict[str, Any]:
        """The final Response object."""

    async def get(self, response_id: str, *, tenant: str) -> StoredTurn | None:
        """The turn, live or stored; None: unknown, `store: false` or deleted."""

    async def cancel(self, response_id: str, *, tenant: str) -> dict[str, Any]:
        """Cancels; the Response object once the outcome is decided."""

    async def delete(self, response_id: str, *, tenant: str) -> None:
        """Removes log, record and stored bodies; refused while it runs."""

    async def record(self, response_id: str, *, tenant: str) -> dict[str, Any] | None:
        """The record: attempts, revision, trace, feedback."""

    async def add_feedback(self, response_id: str, feedback: dict[str, Any], *, tenant: str) -> dict[str, Any]:
        """Stores feedback with the response; returns it as stored."""

    def delivered(self, response_id: str) -> None:
        """This caller got the whole answer: no retry may join the turn any more."""


class JournalDoor(Protocol):
    """Journals of ended turns."""

    async def document(self, tenant: str, response: str) -> dict[str, Any] | None:
        """All of it; None once it is gone. Raises LedgerError."""


class ApprovalDoor(Protocol):
    """Calls of tools that wait for a person."""

    async def answered(self, session: str, items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Takes the answers among a caller's input items; the items with what the agent is told of them. Raises ApiError."""


class SessionDoor(Protocol):
    """Which session a request belongs to."""

    async def resolve(
        self,
        caller: Principal,
        agent: str,
        *,
        session_id: str | None,
        previous_response_id: str | None,
        conversation: str | None,
    ) -> Place:
        """Where the request runs; ApiError when it may not."""


class ActivationDoor(Protocol):
    """A sandbox for a session."""

    async def acquire(self, wanted: Wanted, *, deadline: float) -> Route:
        """The session's bound route, by a deadline on the monotonic clock."""

    def forget(self, key: str) -> None:
        """Ask the ledger next time."""

    async def lost(self, route: Route, reason: str) -> None:
        """Nothing answers at this route."""


class AuditDoor(Protocol):
    """The audit log."""

    def recording(
        self, caller: Principal, action: str, object: str, origin: Origin | None = None
    ) -> AbstractAsyncContextManager[Entry]:
        """Records what the block does, or refuses it when nothing can be recorded."""
