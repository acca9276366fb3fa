"""Turns as the routes see them: accept, follow, wait, get, cancel, delete, record, feedback.

The one door from HTTP to the engine. Ownership (tenant, user, agent) is compared by the routes on what `get` returns.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import orjson

from moorage_api.errors import ApiError, Kind
from moorage_api.ledger import keys
from moorage_api.ledger.records import ENDED, Entry, SessionIdentity, TurnRecord
from moorage_api.ledger.script import Lost, Unreachable
from moorage_api.ledger.turns import Acceptance, Accepted, TurnLedger
from moorage_gateway.auth import Principal
from moorage_gateway.clock import Clock
from moorage_gateway.ledger_client import Recovery
from moorage_gateway.sessions import Place, previous_not_found
from moorage_gateway.store.errors import StoreUnavailable
from moorage_gateway.turns import archive
from moorage_gateway.turns.held import Held
from moorage_gateway.turns.history import Link
from moorage_gateway.turns.keeper import Keeper, identity_of, template_of
from moorage_gateway.turns.normalise import Normaliser, Outcome, Template, created_event, response_from_log
from moorage_gateway.turns.readers import Readers
from moorage_gateway.turns.rules import Limits

T = TypeVar("T")
log = logging.getLogger(__name__)

PROOF_S = 1.0  # until a foreground turn's object `accepted`
ACCEPT_S = 5.0  # then 503 with Retry-After, before acceptance (faults.md F17)
CANCEL_S = 30.0
RETRY_S = 0.2


@dataclass(frozen=True)
class TurnRequest:
    """One create call, validated. `body` is the create body without transport fields and input; `created_at` in seconds."""

    response_id: str
    body: dict[str, Any]
    input_items: list[dict[str, Any]]
    stream: bool
    background: bool
    store: bool
    idempotency_key: str | None
    retry_count: int
    body_hash: str
    headers: dict[str, str]
    trace_id: str
    created_at: int


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


class Turns:
    """The service. Methods raise ApiError only."""

    def __init__(
        self,
        *,
        ledger: TurnLedger,
        keeper: Keeper,
        readers: Readers,
        store: archive.Archive,
        clock: Clock,
        recovery: Recovery,
        limits_of: Callable[[str, str], Limits],
        generation: Callable[[], int],
    ) -> None:
        self._ledger = ledger
        self._keeper = keeper
        self._readers = readers
        self._store = store
        self._clock = clock
        self._recovery = recovery
        self._limits_of = limits_of
        self._generation = generation
        self._chores: set[asyncio.Task[None]] = set()

    async def accept(self, caller: Principal, place: Place, request: TurnRequest) -> str:
        """Persists the turn; returns the response to follow (another one when the call joined it)."""
        await self._check_previous(place.tenant, request.body.get("previous_response_id"))
        limits = self._limits_of(place.tenant, place.agent)
        meta = self._meta(place, request)
        acceptance = await self._acceptance(caller, place, request, limits, meta)
        accepted = await self._accept(acceptance)
        match accepted.word:
            case "OK":
                if accepted.state == "running":
                    self._own(acceptance, accepted, request, limits, named=not place.is_new)
                if accepted.state in ("running", "queued"):
                    await self._prove(request, meta, queued=accepted.state == "queued")
                else:  # sent again: another owner has it, or it has ended
                    await self._prove_joined(request.response_id, place.tenant)
                return request.response_id
            case "JOIN":
                await self._prove_joined(accepted.response, place.tenant)
                return accepted.response
            case "CONFLICT":
                raise ApiError(
                    Kind.IDEMPOTENCY_CONFLICT,
                    "This Idempotency-Key was used with another body; use a new key for a new request.",
                    param="Idempotency-Key",
                )
            case "FULL":
                raise ApiError(
                    Kind.QUEUE_FULL,
                    f"{limits.queue} turns already wait in this session; wait for one to end, or use another session.",
                    retry_after=5,
                )
            case _:  # DELETED, FOREIGN: the same answer, so that nothing is given away
                raise ApiError(Kind.NOT_FOUND, "No such session; leave it out to start a new one.")

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
        return self._view(record, entries, items)

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

    async def aclose(self) -> None:
        """Waits for small writes that nobody else waits for."""
        if self._chores:
            await asyncio.wait(list(self._chores), timeout=5.0)

    # -- accepting ----------------------------------------------------------------------------------------------------

    async def _check_previous(self, tenant: str, previous: str | None) -> None:
        """What a turn continues must be there, running or stored. Its id names a session that was resolved as the caller's."""
        if previous is None:
            return
        record = await self._read(self._ledger.turn, previous)
        if record is not None:
            known = record.meta["tenant"] == tenant and record.meta.get("store", True)
        else:
            known = await self._document(tenant, previous) is not None
        if not known:
            raise previous_not_found()

    async def _acceptance(
        self, caller: Principal, place: Place, request: TurnRequest, limits: Limits, meta: dict[str, Any]
    ) -> Acceptance:
        template = self._template(meta, request.response_id)
        try:
            stored_input = await self._store.put_input(place.tenant, request.response_id, request.input_items)
        except StoreUnavailable as fault:
            raise unavailable(str(fault)) from fault
        idem = ""
        if request.idempotency_key is not None:
            digest = hashlib.sha256(request.idempotency_key.encode()).hexdigest()
            idem = keys.idempotency(place.tenant, place.user, place.agent, digest)
        credential = caller.key_id or f"{caller.tenant}/{caller.user}"
        return Acceptance(
            response=request.response_id,
            session=place.session_key,
            identity=SessionIdentity(
                place.tenant, place.agent, place.user, place.session_id, place.partition, place.revision
            ),
            queue_limit=limits.queue,
            deadline_ms=self._clock.now_ms() + int(limits.timeout_s * 1000),
            meta=meta,
            input=stored_input,
            running_events=[_json(e) for e in created_event(template, queued=False)],
            queued_events=[_json(e) for e in created_event(template, queued=True)],
            idempotency=idem,
            idempotency_hash=request.body_hash,
            retry=keys.retry(credential, request.body_hash),
            retry_count=request.retry_count,
        )

    async def _accept(self, acceptance: Acceptance) -> Accepted:
        return await self._write(lambda: self._ledger.accept(acceptance))

    def _own(self, a: Acceptance, accepted: Accepted, request: TurnRequest, limits: Limits, *, named: bool) -> None:
        record = TurnRecord.parse(
            a.response,
            {
                "state": "running",
                "session": a.session,
                "fence": str(accepted.fence),
                "attempt": "0",
                "begun": "0",
                "cancel": "0",
                "deadline": str(a.deadline_ms),
                "meta": _json(a.meta),
                "input": a.input,
                "generation": str(self._generation()),
                "accepted": str(accepted.accepted),
            },
        )
        assert record is not None
        self._keeper.hold(
            Held(
                record=record,
                fence=accepted.fence,
                template=self._template(a.meta, a.response),
                identity=a.identity,
                limits=limits,
                input_items=request.input_items,
                log=[Entry(0, 0, e.encode()) for e in a.running_events],
                named=named,
                proved=request.background,
            )
        )

    async def _prove(self, request: TurnRequest, meta: dict[str, Any], *, queued: bool) -> None:
        """Object `accepted`: before the answer of a background turn, else alongside (turns.md §2 row 3, decisions/0010).

        A turn that is not to be stored leaves no object at all: it lives as long as its owner or Redis.
        """
        if not request.store:
            return
        if not request.background:
            self._chore(self._prove_later(request.response_id, meta, queued=queued))
            return
        write = self._accepted_object(request.response_id, meta, queued=queued)
        for _ in range(3):
            try:
                await write
                return
            except StoreUnavailable as fault:
                problem = fault
                await self._clock.sleep(RETRY_S)
                write = self._accepted_object(request.response_id, meta, queued=queued)
        raise unavailable(str(problem))

    async def _prove_later(self, response_id: str, meta: dict[str, Any], *, queued: bool) -> None:
        """Most turns have their response stored by then, which proves more."""
        await self._clock.sleep(PROOF_S)
        held = self._keeper.get(response_id)
        if held is None:
            record = await self._read(self._ledger.turn, response_id)
            if record is None or (record.state in ENDED and not record.raw.get("unflushed")):
                return
        else:
            held.proved = True  # before the object is there: whoever ends the turn in between removes it
        await self._accepted_object(response_id, meta, queued=queued)

    async def _prove_joined(self, response_id: str, tenant: str) -> None:
        """The acceptor may have died between the script and its object: whoever answers for a turn proves it first."""
        record = await self._read(self._ledger.turn, response_id)
        if record is not None and (record.state in ENDED or not record.meta.get("background")):
            return
        try:
            if await self._store.accepted(response_id) is None:
                if record is None:
                    if await self._store.has(tenant, response_id):
                        return
                    raise unavailable("Redis lost it just now, before anything else knew of it")
                second = await self._ledger.log(response_id, 1, 1)
                queued = bool(second) and orjson.loads(second[0].data)["type"] == "response.queued"
                await self._accepted_object(response_id, record.meta, queued=queued)
        except (Lost, Unreachable) as fault:
            raise unavailable(str(fault)) from fault
        except StoreUnavailable as fault:
            raise unavailable(str(fault)) from fault

    async def _accepted_object(self, response_id: str, meta: dict[str, Any], *, queued: bool) -> None:
        proof = {"meta": meta, "accepted": self._clock.now_ms(), "generation": self._generation(), "queued": queued}
        await self._store.put_accepted(response_id, proof)
        with suppress(Lost, Unreachable):  # else the sweep of `open/` finds that it has ended
            record = await self._ledger.turn(response_id)
            if record is not None and record.state in ENDED and not record.raw.get("unflushed"):
                await self._store.settled(response_id)  # the turn was faster than its proof

    def _meta(self, place: Place, request: TurnRequest) -> dict[str, Any]:
        body = {k: v for k, v in request.body.items() if k != "input"}
        return {
            "tenant": place.tenant,
            "user": place.user,
            "agent": place.agent,
            "revision": place.revision,
            "session_id": place.session_id,
            "partition": place.partition,
            "created_at": request.created_at,
            "model": str(request.body.get("model") or place.agent),
            "body": body,
            "store": request.store,
            "background": request.background,
            "stream": request.stream,
            "trace_id": request.trace_id,
            "headers": request.headers,
            "versions": {"revision": place.revision},
        }

    def _template(self, meta: dict[str, Any], response_id: str) -> Template:
        return Template(
            response_id=response_id,
            created_at=meta["created_at"],
            model=meta["model"],
            agent=meta["agent"],
            revision=meta["revision"],
            session_id=meta["session_id"],
            body=meta["body"],
        )

    # -- reading ------------------------------------------------------------------------------------------------------

    def _view(self, record: TurnRecord, entries: list[Entry], items: list[dict[str, Any]]) -> StoredTurn:
        meta, ended = record.meta, record.state in ENDED
        events = [orjson.loads(e.data) for e in entries]
        if ended and events and "response" in events[-1]:
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

    async def _document(self, tenant: str, response_id: str) -> archive.Document | None:
        try:
            return await self._store.document(tenant, response_id)
        except StoreUnavailable as fault:
            raise unavailable(str(fault)) from fault

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
        return _json(finish.terminal), len(entries)

    # -- Redis within a request's patience ------------------------------------------------------------------------------

    async def _read(self, call: Callable[[str], Awaitable[T]], response_id: str) -> T:
        return await self._write(lambda: call(response_id))

    async def _write(self, call: Callable[[], Awaitable[T]]) -> T:
        """Sends until an answer comes or the request's patience ends: then 503, and nothing was promised."""
        deadline = self._clock.monotonic() + ACCEPT_S
        while True:
            await self._recovery.settled()
            try:
                return await call()
            except Lost:
                with suppress(Unreachable):
                    await self._recovery.recover()
            except Unreachable:
                await self._clock.sleep(RETRY_S)
            if self._clock.monotonic() >= deadline:
                raise unavailable("the ledger does not answer")

    async def _delivered(self, response_id: str) -> None:
        try:
            await self._ledger.delivered(response_id)
        except (Lost, Unreachable):
            return  # a retry may join an answer that was already read: it gets the same answer

    def _chore(self, work: Coroutine[Any, Any, None]) -> None:
        async def quiet() -> None:
            try:
                await work
            except (StoreUnavailable, Lost, Unreachable):
                log.warning("a side write failed; the turn itself is in the ledger")

        task = asyncio.get_running_loop().create_task(quiet())
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)


def unavailable(why: str) -> ApiError:
    """503 with Retry-After: nothing was accepted."""
    del why  # the address of a store or Redis is nobody's business outside
    return ApiError(
        Kind.UNAVAILABLE, "The platform's storage does not answer right now; try again shortly.", retry_after=2
    )


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()
