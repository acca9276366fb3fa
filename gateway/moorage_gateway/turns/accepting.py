"""How a turn is accepted: one script that writes everything, its owner, and the object that proves it (turns.md §2 rows 1 to 3).

Base of `Turns`. Every call to Redis has a request's patience: then 503, and nothing was promised.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Coroutine
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
from moorage_gateway.recovery import Recovery
from moorage_gateway.sessions import Place, previous_not_found
from moorage_gateway.store.errors import StoreUnavailable
from moorage_gateway.turns import archive
from moorage_gateway.turns.held import Fate, Held
from moorage_gateway.turns.keeper import Keeper, has_waited
from moorage_gateway.turns.normalise import Template, created_event
from moorage_gateway.turns.readers import Readers
from moorage_gateway.turns.rules import Limits

T = TypeVar("T")
log = logging.getLogger(__name__)

PROOF_S = 1.0  # until a foreground turn's object `accepted`
ACCEPT_S = 5.0  # then 503 with Retry-After, before acceptance (faults.md F17)
RETRY_S = 0.2


@dataclass(frozen=True)
class TurnRequest:
    """One create call, validated. `body` is the create body without transport fields and input; `created_at` in seconds.

    `called_by`, of a turn that another agent's made: the calling `response`, and the `agents` from the first one to that one.
    """

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
    timeout_s: float | None = None
    """In place of the agent's `turn.timeout`."""
    called_by: dict[str, Any] | None = None
    carries: bool = False
    """It begins with what an earlier turn of its run completed (`journal/carrying.py`)."""


class Accepting:
    """Methods raise ApiError only."""

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
        template = self._template(meta, request.response_id)
        acceptance = await self._acceptance(caller, place, request, limits, meta, template)
        accepted = await self._accept(acceptance)
        match accepted.word:
            case "OK":
                fate = Fate()
                if accepted.state == "running":
                    fate = self._own(acceptance, accepted, request, limits, template, named=not place.is_new)
                if accepted.state in ("running", "queued"):
                    await self._prove(request, meta, fate, queued=accepted.state == "queued")
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
        self,
        caller: Principal,
        place: Place,
        request: TurnRequest,
        limits: Limits,
        meta: dict[str, Any],
        template: Template,
    ) -> Acceptance:
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
            deadline_ms=self._clock.now_ms() + int((request.timeout_s or limits.timeout_s) * 1000),
            meta=as_text(meta),
            input=stored_input,
            running_events=[as_text(e) for e in created_event(template, queued=False)],
            queued_events=[as_text(e) for e in created_event(template, queued=True)],
            idempotency=idem,
            idempotency_hash=request.body_hash,
            retry=keys.retry(credential, request.body_hash),
            retry_count=request.retry_count,
        )

    async def _accept(self, acceptance: Acceptance) -> Accepted:
        return await self._write(lambda: self._ledger.accept(acceptance))

    def _own(
        self,
        a: Acceptance,
        accepted: Accepted,
        request: TurnRequest,
        limits: Limits,
        template: Template,
        *,
        named: bool,
    ) -> Fate:
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
                "meta": a.meta,
                "input": a.input,
                "generation": str(self._generation()),
                "accepted": str(accepted.accepted),
            },
        )
        assert record is not None
        held = Held(
            record=record,
            fence=accepted.fence,
            template=template,
            identity=a.identity,
            limits=limits,
            input_items=request.input_items,
            log=[Entry(0, 0, e.encode()) for e in a.running_events],
            named=named,
            proved=request.background,
        )
        self._keeper.hold(held)
        return held.fate

    async def _prove(self, request: TurnRequest, meta: dict[str, Any], fate: Fate, *, queued: bool) -> None:
        """Object `accepted`: before the answer of a background turn, else alongside (turns.md §2 row 3, decisions/0010).

        A turn that is not to be stored leaves no object at all: it lives as long as its owner or Redis.
        """
        if not request.store:
            return
        if not request.background:
            self._chore(self._prove_later(request.response_id, meta, fate, queued=queued))
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

    async def _prove_later(self, response_id: str, meta: dict[str, Any], fate: Fate, *, queued: bool) -> None:
        """Most turns have their response stored by then, which proves more."""
        await self._clock.sleep(PROOF_S)
        if fate.kept:
            return
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
                begun = await self._ledger.log(response_id, 0, 1)
                await self._accepted_object(response_id, record.meta, queued=has_waited(begun))
        except (Lost, Unreachable) as fault:
            raise unavailable(str(fault)) from fault
        except StoreUnavailable as fault:
            raise unavailable(str(fault)) from fault

    async def _accepted_object(self, response_id: str, meta: dict[str, Any], *, queued: bool) -> None:
        await self._store.put_accepted(
            response_id, meta=meta, accepted=self._clock.now_ms(), generation=self._generation(), queued=queued
        )
        with suppress(Lost, Unreachable):  # else the sweep of `open/` finds that it has ended
            record = await self._ledger.turn(response_id)
            if record is not None and record.state in ENDED and not record.raw.get("unflushed"):
                await self._store.settled(response_id)  # the turn was faster than its proof

    def _meta(self, place: Place, request: TurnRequest) -> dict[str, Any]:
        body = {k: v for k, v in request.body.items() if k != "input"}
        above = {"called_by": request.called_by} if request.called_by is not None else {}
        marks = {"carries": True} if request.carries else {}
        return (
            above
            | marks
            | {
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
        )

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

    async def _document(self, tenant: str, response_id: str) -> archive.Document | None:
        try:
            return await self._store.document(tenant, response_id)
        except StoreUnavailable as fault:
            raise unavailable(str(fault)) from fault

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

    def _chore(self, work: Coroutine[Any, Any, None]) -> None:
        async def quiet() -> None:
            try:
                await work
            except (ApiError, StoreUnavailable, Lost, Unreachable):
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


def as_text(value: Any) -> str:
    """Compact JSON as the ledger's text fields hold it."""
    return orjson.dumps(value).decode()
