"""Turns as the routes see them: accept, follow, wait, get, cancel, delete, record, feedback.

The one door from HTTP to the engine. Ownership (tenant, user, agent) is compared by the routes on what `get` returns.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import orjson

from moorage_api.errors import ApiError, Kind
from moorage_api.ledger.records import ENDED, Entry, TurnRecord
from moorage_api.ledger.script import Lost, Unreachable
from moorage_gateway.conversation import for_agent
from moorage_gateway.store.errors import StoreUnavailable
from moorage_gateway.turns import archive
from moorage_gateway.turns.accepting import RETRY_S, Accepting, TurnRequest, as_text, unavailable
from moorage_gateway.turns.history import History, Link
from moorage_gateway.turns.keeper import identity_of, template_of
from moorage_gateway.turns.normalise import Normaliser, Outcome, response_from_log

__all__ = ["StoredTurn", "TurnRequest", "Turns", "unavailable"]

CANCEL_S = 30.0


@dataclass(frozen=True)
class StoredTurn:
    """A response as it is now. `ended`: its status is final."""

    response: dict[str, Any]
    input_items: list[dict[str, Any]]
    tenant: str
    user: str
    agent: str
    session_id: str
    background: bool
    stream: bool
    store: bool
    ended: bool


class Turns(Accepting):
    """The service. Methods raise ApiError only."""

    def follow(
        self, response_id: str, *, tenant: str, after: int = -1, quick: Callable[[bytes], bool] | None = None
    ) -> AsyncIterator[tuple[int, bytes]]:
        """(sequence_number, event JSON) from the cursor to the terminal event; `quick`: see Readers.follow."""
        return self._readers.follow(response_id, tenant=tenant, after=after, quick=quick)

    async def wait(self, response_id: str, *, tenant: str) -> dict[str, Any]:
        """The final Response object."""
        last = b""
        async for _, data in self._readers.follow(response_id, tenant=tenant):
            last = data
        if not last:
            raise ApiError(Kind.NOT_FOUND, f"No response {response_id}; it may have been deleted.")
        return dict(orjson.loads(last)["response"])

    async def get(self, response_id: str, *, tenant: str) -> StoredTurn | None:
        """The turn, live or stored; None when unknown in this tenant, deleted, or not stored by the caller's wish."""
        record = await self._read(self._ledger.turn, response_id)
        if record is None:
            return await self._stored(response_id, tenant)
        if not record.meta.get("store", True) or record.meta["tenant"] != tenant:
            return None
        entries = await self._read(self._ledger.log, response_id)
        items = await self._items(record)
        if record.state in ENDED and not record.ends_with(entries[-1] if entries else None):
            # One of the two went between the readings. The store has the end, or nobody may count on one.
            stored = await self._stored(response_id, tenant)
            if stored is not None:
                return stored
        return self._view(record, entries, items)

    async def known(self, response_id: str) -> TurnRecord | None:
        """The turn as Redis has it, for parts of the gateway: whose it is, is theirs to know."""
        return await self._read(self._ledger.turn, response_id)

    async def exists(self, response_id: str, *, tenant: str) -> bool:
        """Whether there is such a turn, live or stored."""
        return await self.known(response_id) is not None or await self._document(tenant, response_id) is not None

    async def cancel(self, response_id: str, *, tenant: str) -> dict[str, Any]:
        """Stops the turn; returns after its outcome is decided. An ended turn is returned as it is."""
        deadline = self._clock.monotonic() + CANCEL_S
        while self._clock.monotonic() < deadline:
            record = await self._read(self._ledger.turn, response_id)
            if record is None or record.state in ENDED:
                found = await self.get(response_id, tenant=tenant)
                if found is None:
                    raise ApiError(Kind.NOT_FOUND, f"No response {response_id}.")
                if found.ended:
                    return found.response
                await self._clock.sleep(RETRY_S)
                continue  # Redis had lost it for a moment: its owner has written it anew
            if record.state != "closing":
                terminal, index = await self._cancelled(record)
                word, _ = await self._write(lambda: self._ledger.cancel(response_id, "cancelled", index, terminal))  # noqa: B023
                if word == "GAP":
                    continue
                self._keeper.hint(response_id)
            async with asyncio.timeout(max(0.1, deadline - self._clock.monotonic())):
                return await self.wait(response_id, tenant=tenant)
        raise unavailable("the outcome was not decided in time")

    async def delete(self, response_id: str, *, tenant: str) -> None:
        """Removes log, record and stored bodies. A running turn is refused: cancel it first."""
        if await self._write(lambda: self._ledger.forget(response_id)) == "STATE":
            raise ApiError(Kind.INVALID_REQUEST, "The response is still running; cancel it, then delete it.")
        try:
            await self._store.delete(tenant, response_id)
        except StoreUnavailable as fault:
            raise unavailable(str(fault)) from fault

    async def record(self, response_id: str, *, tenant: str) -> dict[str, Any] | None:
        """The record of a response, attempts and feedback included; None when unknown in this tenant."""
        turn = await self._read(self._ledger.turn, response_id)
        if turn is not None:
            if turn.meta["tenant"] != tenant:
                return None
            attempts = await self._read(self._ledger.attempts, response_id)
            found = archive.describe(turn, attempts, turn.state)
        else:
            document = await self._document(tenant, response_id)
            if document is None:
                return None
            found = dict(document.record)
        try:
            return found | {"feedback": await self._store.feedback(tenant, response_id)}
        except StoreUnavailable as fault:
            raise unavailable(str(fault)) from fault

    async def add_feedback(self, response_id: str, feedback: dict[str, Any], *, tenant: str) -> dict[str, Any]:
        """Stores a feedback with its response; the caller has verified that the response is in this tenant."""
        body = feedback | {"response_id": response_id, "created_at": self._clock.now_ms() // 1000}
        try:
            number = await self._store.add_feedback(tenant, response_id, body)
        except ValueError as fault:
            raise ApiError(Kind.INVALID_REQUEST, str(fault)) from fault
        except StoreUnavailable as fault:
            raise unavailable(str(fault)) from fault
        return body | {"object": "response.feedback", "id": f"{response_id}/{number}"}

    def delivered(self, response_id: str) -> None:
        """This caller has the whole answer, so no counted retry may join the turn."""
        self._chore(self._delivered(response_id))

    async def link(self, response_id: str, tenant: str) -> Link | None:
        """For history: the items of an ended turn, and the turn before it."""
        found = await self.get(response_id, tenant=tenant)
        if found is None or not found.ended:
            return None
        return [*found.input_items, *found.response.get("output", [])], found.response.get("previous_response_id")

    async def asked(self, tenant: str, response_id: str) -> dict[str, Any] | None:
        """What the agent of a turn was asked, as an attempt gets it; None where the ledger does not know the turn any more."""
        record = await self._read(self._ledger.turn, response_id)
        if record is None or record.meta["tenant"] != tenant:
            return None

        async def link(previous: str) -> Link | None:
            return await self.link(previous, tenant)

        body = dict(template_of(record).body)
        history = await History(link).before(body.get("previous_response_id"))
        agent, items = str(record.meta["agent"]), for_agent(await self._items(record))
        return {"agent": agent, "asked": body | {"input": items}, "history": history}

    # -- reading ------------------------------------------------------------------------------------------------------

    def _view(self, record: TurnRecord, entries: list[Entry], items: list[dict[str, Any]]) -> StoredTurn:
        meta, ended = record.meta, record.ends_with(entries[-1] if entries else None)
        events = [orjson.loads(e.data) for e in entries]
        if ended:
            response = events[-1]["response"]
        else:
            status = "queued" if record.state == "queued" else "in_progress"
            response = response_from_log(template_of(record), events, status=status)
        who = identity_of(record)
        return StoredTurn(
            response=response,
            input_items=items,
            tenant=who.tenant,
            user=who.user,
            agent=who.agent,
            session_id=who.session,
            background=bool(meta.get("background")),
            stream=bool(meta.get("stream")),
            store=bool(meta.get("store", True)),
            ended=ended,
        )

    async def _stored(self, response_id: str, tenant: str) -> StoredTurn | None:
        document = await self._document(tenant, response_id)
        if document is None:
            return None
        about = document.record
        return StoredTurn(
            response=document.response,
            input_items=document.input,
            tenant=str(about["tenant"]),
            user=str(about["user"]),
            agent=str(about["agent"]),
            session_id=str(about["session"]),
            background=bool(about.get("background")),
            stream=True,
            store=True,
            ended=True,
        )

    async def _items(self, record: TurnRecord) -> list[dict[str, Any]]:
        try:
            return await self._store.input(str(record.meta["tenant"]), record.response, record.input)
        except StoreUnavailable as fault:
            raise unavailable(str(fault)) from fault

    async def _cancelled(self, record: TurnRecord) -> tuple[str, int]:
        """The terminal event a waiting turn would get, and its index."""
        if record.state != "queued":
            return "", 0
        entries = await self._read(self._ledger.log, record.response)
        events = [orjson.loads(e.data) for e in entries]
        normaliser = Normaliser(template_of(record), events, continues=True)
        finish = normaliser.finish(Outcome(status="cancelled"), completed_at=self._clock.now_ms() // 1000)
        return as_text(finish.terminal), len(entries)

    async def _delivered(self, response_id: str) -> None:
        try:
            await self._ledger.delivered(response_id)
        except (Lost, Unreachable):
            return  # a retry may join an answer that was already read: it gets the same answer
