"""What an owner does with sessions: list, look, create, stop, delete. Layer: gateway, called by `routes/control.py`.

Deleting is done in an order that no crash undoes: the ledger refuses new turns (`delete_session`), the durable record says
`deleting`, responses go, the provider removes the files, the record goes. `run` finishes what a crash or a slow provider left.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, Protocol

from moorage_api import names
from moorage_api.errors import ApiError, Kind
from moorage_api.ledger import keys
from moorage_api.ledger.records import SessionIdentity, SessionRecord, text
from moorage_api.ledger.script import LedgerError
from moorage_gateway import session_views
from moorage_gateway.auth import INVOKE, OPERATOR, Principal
from moorage_gateway.checkpoints import Checkpoints
from moorage_gateway.clock import Clock
from moorage_gateway.keys import Commands
from moorage_gateway.refusals import unavailable
from moorage_gateway.session_records import DELETING, StoredSession
from moorage_gateway.sessions import Sessions
from moorage_gateway.store import Store, StoreUnavailable

log = logging.getLogger("moorage.sessions")

CHUNK = 200  # sessions read at a time for a listing
SCANNED = 5_000  # sessions one listing looks at
CANCEL_WITHIN = 15.0  # seconds for the turns of a session that is being deleted
FILES_WITHIN = 5.0  # seconds a caller waits for the provider; `run` goes on after that
SWEEP_EVERY = 5.0
POLL = 0.1


class TurnsDoor(Protocol):
    """What deleting a session needs of turns."""

    async def cancel(self, response_id: str, *, tenant: str) -> dict[str, Any]:
        """Returns once the outcome is decided."""

    async def delete(self, response_id: str, *, tenant: str) -> None:
        """Log, record and bodies go."""


@dataclass(frozen=True)
class Page:
    """One page of a listing."""

    data: tuple[dict[str, Any], ...]
    has_more: bool


class SessionControl:
    """Another tenant's or user's session is NOT_FOUND in every method; a store or Redis that is away is UNAVAILABLE."""

    def __init__(
        self,
        sessions: Sessions,
        store: Store,
        commands: Commands,
        turns: TurnsDoor,
        checkpoints: Checkpoints,
        clock: Clock,
    ) -> None:
        self._checkpoints = checkpoints
        self._sessions = sessions
        self._ledger = sessions.ledger
        self._records = sessions.records
        self._store = store
        self._commands = commands
        self._turns = turns
        self._clock = clock

    async def list(
        self,
        caller: Principal,
        *,
        agent: str | None = None,
        status: str | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> Page:
        """The caller's own sessions, newest first. `after` is the id of the last session of the page before."""
        with unavailable("Sessions cannot be listed"):
            await self._index(caller.tenant)
            found: list[dict[str, Any]] = []
            skipping = after is not None
            for offset in range(0, SCANNED, CHUNK):
                page = await self._ledger.page(caller.tenant, newest=CHUNK, offset=offset)
                for record in await asyncio.gather(*(self._look(key) for key in page)):
                    if record is None or not self._sessions.owns(record, caller) or agent not in (None, record.agent):
                        continue
                    if skipping:
                        skipping = record.session != after
                        continue
                    view = await self._view(record, caller)
                    if status in (None, view["status"]):
                        found.append(view)
                        if len(found) > limit:
                            return Page(tuple(found[:limit]), has_more=True)
                if len(page) < CHUNK:
                    break
            return Page(tuple(found), has_more=False)

    async def get(self, caller: Principal, session_id: str, *, agent: str | None = None) -> dict[str, Any]:
        """One session object. Without `agent` the id is looked for under every agent of the tenant."""
        with unavailable("The session cannot be looked up"):
            return await self._view(await self._find(caller, session_id, agent), caller)

    async def record(self, caller: Principal, session_id: str, agent: str | None) -> SessionRecord | StoredSession:
        """The caller's own session, as Redis or else the store has it. Raises what those raise, or NOT_FOUND."""
        return await self._find(caller, session_id, agent)

    async def find(self, caller: Principal, session_id: str, *, agent: str | None = None) -> tuple[str, str]:
        """(session key, agent) of the caller's own session."""
        with unavailable("The session cannot be looked up"):
            found = await self._find(caller, session_id, agent)
        return names.session_key(found.tenant, found.partition), found.agent

    async def create(self, caller: Principal, agent: str, session_id: str | None) -> dict[str, Any]:
        """Makes a session without a turn, durable before the answer; the caller's own existing one is returned."""
        named = session_id if session_id is not None else names.new_session_id()
        place = await self._sessions.resolve(
            caller, agent, session_id=named, previous_response_id=None, conversation=None
        )
        with unavailable("The session cannot be made"):
            word = await self._sessions.guarded(lambda: self._ledger.open_session(place.session_key, place.identity))
            if word != "OK":
                raise _not_found()
            await self._records.durable(place.tenant, place.partition)
            record = await self._ledger.session(place.session_key)
            if record is None:
                raise _not_found()
            return await self._view(record, caller)

    async def stop(self, caller: Principal, session_id: str, *, agent: str | None = None) -> dict[str, Any]:
        """Lets the session's sandbox go; its workspace stays. SESSION_BUSY while a turn runs or waits."""
        caller.require(INVOKE)
        with unavailable("The session cannot be stopped"):
            found = await self._find(caller, session_id, agent)
            key = names.session_key(found.tenant, found.partition)
            word = await self._sessions.guarded(lambda: self._ledger.request_stop(key))
            if word == "BUSY":
                raise _busy("A turn of this session is running or waiting: cancel it first, or wait for its end.")
            return await self._view(await self._find(caller, session_id, found.agent), caller)

    async def delete(self, caller: Principal, session_id: str, *, agent: str | None = None) -> None:
        """Ends the session: its turns are cancelled, its responses, files and checkpoints removed, its record last."""
        caller.require(INVOKE)
        with unavailable("The session cannot be deleted"):
            await self.remove(await self._find(caller, session_id, agent))

    async def remove(self, found: SessionRecord | StoredSession) -> None:
        """As `delete`, without a caller: for a session past its retention. Raises what ledger and store raise, or ApiError."""
        place = _identity(found)
        key = names.session_key(found.tenant, found.partition)
        if not isinstance(found, SessionRecord):
            # Redis lost it: it comes back only to be deleted, so that the provider finds its files' session ended.
            await self._sessions.guarded(lambda: self._ledger.open_session(key, place))
        await self._close(key)
        self._sessions.forget(key)
        await self._commands.read("SADD", keys.ENDING, key)
        await self._mark(found)
        await self._drop_responses(found.tenant, found.partition)
        await self._wait_for_files(key)

    async def run(self) -> None:
        """Finishes deletions until cancelled."""
        while True:
            try:
                for key in await self._commands.read("SMEMBERS", keys.ENDING):
                    await self._try_to_finish(text(key))
            except LedgerError as error:
                log.info("deletions wait: %s", error)
            await self._clock.sleep(SWEEP_EVERY)

    async def _try_to_finish(self, key: str) -> None:
        try:
            await self.finish(key)
        except (LedgerError, StoreUnavailable, ApiError, TimeoutError) as error:
            log.info(
                "the deletion of session %s waits: %s", key, error
            )  # one that cannot be finished holds up no other

    async def finish(self, key: str) -> bool:
        """The last step of a deletion, once the provider removed the files. False while it has not."""
        if await self._commands.read("ZSCORE", keys.DELETES, key) is not None:
            return False
        tenant, _, partition = key.partition(":")
        await self._drop_responses(tenant, partition)
        await self._checkpoints.remove(tenant, partition)
        await self._records.remove(tenant, partition)
        await self._commands.read("SREM", keys.ENDING, key)
        return True

    async def _close(self, key: str) -> None:
        until = self._clock.monotonic() + CANCEL_WITHIN
        while await self._sessions.guarded(lambda: self._ledger.delete_session(key)) == "BUSY":
            if self._clock.monotonic() > until:
                raise _busy("The turns of this session did not end in time: try again.")
            record = await self._ledger.session(key)
            turns = [*await self._ledger.waiting(key), *([record.running] if record and record.running else [])]
            for response in turns:
                await _unless_gone(self._turns.cancel(response, tenant=key.partition(":")[0]))
            await self._clock.sleep(POLL)

    async def _mark(self, found: SessionRecord | StoredSession) -> None:
        await self._records.durable(found.tenant, found.partition)
        stored = await self._records.load(found.tenant, found.partition)
        if stored is not None and stored.state != DELETING:
            await self._records.mark_deleting(stored)

    async def _drop_responses(self, tenant: str, partition: str) -> None:
        """Every stored response of the session: its id starts with the partition."""
        root = f"t/{tenant}/responses/"
        prefix = f"{root}caresp_{partition}00"
        while page := await self._store.list(prefix):
            for response in sorted({key[len(root) :].split("/")[0] for key in page}):
                await _unless_gone(self._turns.delete(response, tenant=tenant))
                await self._store.delete_prefix(f"{root}{response}/")

    async def _wait_for_files(self, key: str) -> None:
        until = self._clock.monotonic() + FILES_WITHIN
        while not await self.finish(key):
            if self._clock.monotonic() > until:
                return
            await self._clock.sleep(POLL)

    async def _find(self, caller: Principal, session_id: str, agent: str | None) -> SessionRecord | StoredSession:
        if agent is None:
            candidates = [entry.agent for entry in self._sessions.catalog.list(caller.tenant)]
        else:
            candidates = [agent] if self._was_agent(caller, agent) else [self._sessions.agent(caller, agent).agent]
        if not names.SESSION.match(session_id):
            raise _not_found()
        partitions = [names.partition(caller.tenant, one, caller.user, session_id) for one in candidates]
        seen = await asyncio.gather(*(self._sessions.look(caller.tenant, one) for one in partitions))
        mine = [one for one in seen if one is not None and self._sessions.owns(one, caller)]
        if len(mine) > 1:
            raise ApiError(
                Kind.INVALID_PARAMETERS, "Several agents have a session of this id: add '?agent=NAME'.", param="agent"
            )
        if not mine or mine[0].session != session_id:
            raise _not_found()
        return mine[0]

    def _was_agent(self, caller: Principal, name: str) -> bool:
        """Whether that may be an agent that was taken out: its sessions, and their files, are still their owners'."""
        gone = names.AGENT.match(name) is not None and self._sessions.catalog.get(caller.tenant, name) is None
        return gone and caller.may_use(name)

    async def _look(self, key: str) -> SessionRecord | StoredSession | None:
        tenant, _, partition = key.partition(":")
        return await self._sessions.look(tenant, partition)

    async def _view(self, found: SessionRecord | StoredSession, caller: Principal) -> dict[str, Any]:
        if not isinstance(found, SessionRecord):
            return session_views.stored_view(found)
        operator = caller.may(OPERATOR)
        descriptor = await self._ledger.sandbox(found.sandbox) if operator and found.sandbox else None
        return session_views.view(found, descriptor, operator=operator)

    async def _index(self, tenant: str) -> None:
        """Rebuilds the tenant's listing from the store when Redis has lost it (or never had it)."""
        mark = keys.sessions_whole(tenant)
        if await self._commands.read("EXISTS", mark):
            return
        async for record in self._records.all(tenant):
            key = names.session_key(tenant, record.partition)
            if record.state == DELETING:
                await self._resume_deletion(key, record)
            else:
                await self._commands.read("ZADD", keys.sessions(tenant), "NX", record.created, key)
        await self._commands.read("SET", mark, "1")

    async def _resume_deletion(self, key: str, record: StoredSession) -> None:
        await self._sessions.guarded(lambda: self._ledger.open_session(key, _identity(record)))
        await self._sessions.guarded(lambda: self._ledger.delete_session(key))
        await self._commands.read("SADD", keys.ENDING, key)


async def _unless_gone(call: Awaitable[object]) -> None:
    """What is to be ended or removed may be gone already: that is as good."""
    try:
        await call
    except ApiError as error:
        if error.kind is not Kind.NOT_FOUND:
            raise


def _identity(found: SessionRecord | StoredSession) -> SessionIdentity:
    return SessionIdentity(found.tenant, found.agent, found.user, found.session, found.partition, found.revision)


def _busy(message: str) -> ApiError:
    return ApiError(Kind.SESSION_BUSY, message, param="session_id")


def _not_found() -> ApiError:
    return ApiError(Kind.NOT_FOUND, "There is no such session. GET /v1/sessions lists yours.", param="session_id")
