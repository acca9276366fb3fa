"""Which session a request belongs to, and what its owner may do with it. Layer: gateway.

Every route that takes a session or a previous response passes here, and nothing but `_owned` decides who owns one: tenant,
agent, user and full session id are compared on every use, and whatever does not match is answered as if it did not exist.

| the request names             | session                                                   |
|-------------------------------|-----------------------------------------------------------|
| a session id (body or header) | that one, new when unknown                                |
| a conversation                | one derived from the conversation's id, new when unknown  |
| a previous response           | the one that response ran in; refused when unknown        |
| nothing                       | a fresh one                                               |
"""

from __future__ import annotations

import hashlib
import random
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from moorage_api import names
from moorage_api.catalog import AgentEntry
from moorage_api.errors import ApiError, Kind
from moorage_api.ledger.records import SessionIdentity, SessionRecord
from moorage_api.ledger.script import Lost, Unreachable
from moorage_api.ledger.sessions import SessionLedger
from moorage_gateway.auth import INVOKE, Principal
from moorage_gateway.clock import Clock
from moorage_gateway.refusals import unavailable
from moorage_gateway.session_records import DELETING, SessionRecords, StoredSession

KNOWN = 50_000  # sessions whose owner is remembered in process
KNOWN_FOR = 30.0  # seconds; the shim and the ledger refuse a session that ended meanwhile
LOSSES = 3  # times one call is repeated after a loss of Redis

T = TypeVar("T")


class CatalogDoor(Protocol):
    """What sessions need of the catalog."""

    def get(self, tenant: str, agent: str) -> AgentEntry | None:
        """One agent."""

    def list(self, tenant: str) -> list[AgentEntry]:
        """The agents of a tenant."""


class RecoveryDoor(Protocol):
    """Founds the ledger anew after a loss."""

    async def recover(self) -> None:
        """Returns when the ledger can be written again."""


@dataclass(frozen=True)
class Place:
    """Where a request runs. `is_new`: neither Redis nor the store had heard of the session."""

    tenant: str
    agent: str
    user: str
    session_id: str
    partition: str
    session_key: str
    revision: str
    entry: AgentEntry
    is_new: bool

    @property
    def identity(self) -> SessionIdentity:
        """As the ledger's scripts take it."""
        return SessionIdentity(self.tenant, self.agent, self.user, self.session_id, self.partition, self.revision)


@dataclass(frozen=True)
class _Known:
    user: str
    agent: str
    session: str
    revision: str
    until: float


def conversation_session(conversation: str) -> str:
    """The session id that a conversation id names: derived, so that it meets no id that a caller chose."""
    return f"conv-{hashlib.sha256(conversation.encode('utf-8', 'surrogatepass')).hexdigest()[:58]}"


def choose_revision(entry: AgentEntry, share: float) -> str:
    """The revision of a new session; `share` in [0, 1) picks by weight among the ready ones, newest first."""
    ready = [revision for revision in entry.revisions if revision.ready] or list(entry.revisions)
    if not ready:
        return ""
    left = share * 100
    for revision in ready:
        if left < revision.weight:
            return revision.revision
        left -= revision.weight
    return ready[-1].revision


class Sessions:
    """Resolves requests to sessions. What owners do with them afterwards is `session_control.py`."""

    def __init__(
        self,
        catalog: CatalogDoor,
        ledger: SessionLedger,
        records: SessionRecords,
        recovery: RecoveryDoor,
        clock: Clock,
        *,
        share: Callable[[], float] = random.random,
    ) -> None:
        self.catalog = catalog
        self.ledger = ledger
        self.records = records
        self._recovery = recovery
        self._clock = clock
        self._share = share
        self._known: OrderedDict[str, _Known] = OrderedDict()

    def agent(self, caller: Principal, name: str) -> AgentEntry:
        """The agent's entry, NOT_FOUND when the caller's tenant has none of that name or its key does not list it."""
        entry = self.catalog.get(caller.tenant, name) if names.AGENT.match(name) else None
        if entry is None or not caller.may_use(name):
            raise ApiError(
                Kind.NOT_FOUND, f"There is no agent named '{name[:64]}'. GET /v1/agents lists yours.", param="agent"
            )
        return entry

    async def resolve(
        self,
        caller: Principal,
        agent: str,
        *,
        session_id: str | None,
        previous_response_id: str | None,
        conversation: str | None,
    ) -> Place:
        """Where the request runs. Raises NOT_FOUND, INVALID_PARAMETERS, PREVIOUS_NOT_FOUND, FORBIDDEN or UNAVAILABLE."""
        entry = self.agent(caller, agent)
        self._check_access(caller, entry)
        previous = _previous_partition(previous_response_id)
        with unavailable("Sessions cannot be looked up"):
            if session_id is not None or conversation is not None:
                named = session_id if session_id is not None else conversation_session(conversation or "")
                return await self._named(caller, entry, named, previous)
            if previous is not None:
                return await self._following(caller, entry, previous)
            return await self._fresh(caller, entry, names.new_session_id())

    async def durable(self, place: Place) -> None:
        """Returns when the session's record is stored: for background turns, before their answer."""
        await self.records.durable(place.tenant, place.partition)

    def forget(self, session_key: str) -> None:
        """The session ended, or somebody saw it gone: look it up next time."""
        self._known.pop(session_key, None)

    async def guarded(self, call: Callable[[], Awaitable[T]]) -> T:
        """A ledger call, repeated after a loss was mended. Raises Unreachable."""
        for _ in range(LOSSES):
            try:
                return await call()
            except Lost:
                self._known.clear()
                await self._recovery.recover()
        raise Unreachable("the ledger keeps being lost")

    async def look(self, tenant: str, partition: str) -> SessionRecord | StoredSession | None:
        """The session as Redis has it, else as the store has it. Raises Unreachable, StoreUnavailable."""
        found = await self.ledger.session(names.session_key(tenant, partition))
        return found if found is not None else await self.records.load(tenant, partition)

    async def _named(self, caller: Principal, entry: AgentEntry, session_id: str, previous: str | None) -> Place:
        if not names.SESSION.match(session_id):
            raise ApiError(Kind.INVALID_PARAMETERS, "Malformed identifier.", param="agent_session_id")
        partition = names.partition(caller.tenant, entry.agent, caller.user, session_id)
        if previous is not None and previous != partition:
            raise ApiError(
                Kind.INVALID_PARAMETERS,
                "'previous_response_id' is of another session than the one this request names: leave one of them out.",
                param="previous_response_id",
            )
        known = self._remembered(names.session_key(caller.tenant, partition))
        if known is None:
            found = await self.look(caller.tenant, partition)
            if found is None:
                return await self._fresh(caller, entry, session_id)
            known = self._owned(found, caller, entry.agent)
        if known is None or (known.user, known.agent, known.session) != (caller.user, entry.agent, session_id):
            raise _not_found("This session was deleted, or its name is taken. Choose another session id.")
        return self._place(caller, entry, known, partition)

    async def _following(self, caller: Principal, entry: AgentEntry, partition: str) -> Place:
        known = self._remembered(names.session_key(caller.tenant, partition))
        if known is None or known.user != caller.user or known.agent != entry.agent:
            found = await self.look(caller.tenant, partition)
            known = self._owned(found, caller, entry.agent) if found is not None else None
        if known is None:
            raise previous_not_found()
        return self._place(caller, entry, known, partition)

    async def _fresh(self, caller: Principal, entry: AgentEntry, session_id: str) -> Place:
        partition = names.partition(caller.tenant, entry.agent, caller.user, session_id)
        revision = choose_revision(entry, self._share())
        key = names.session_key(caller.tenant, partition)
        created = self._clock.now_ms()
        await self.records.remember(
            StoredSession(caller.tenant, entry.agent, caller.user, session_id, partition, revision, created)
        )
        return Place(caller.tenant, entry.agent, caller.user, session_id, partition, key, revision, entry, is_new=True)

    def _owned(self, found: SessionRecord | StoredSession, caller: Principal, agent: str) -> _Known | None:
        """The one owner check: None when the session is not exactly this caller's, or has ended."""
        same = (found.tenant, found.agent, found.user) == (caller.tenant, agent, caller.user)
        partition = names.partition(caller.tenant, agent, caller.user, found.session)
        if not same or found.partition != partition or found.state in ("deleted", DELETING):
            return None
        known = _Known(found.user, found.agent, found.session, found.revision, self._clock.monotonic() + KNOWN_FOR)
        key = names.session_key(found.tenant, found.partition)
        self._known[key] = known
        self._known.move_to_end(key)
        while len(self._known) > KNOWN:
            self._known.popitem(last=False)
        return known

    def owns(self, found: SessionRecord | StoredSession, caller: Principal) -> bool:
        """Whether the session is this caller's, of an agent that its key may use."""
        return caller.may_use(found.agent) and self._owned(found, caller, found.agent) is not None

    def _remembered(self, key: str) -> _Known | None:
        known = self._known.get(key)
        if known is None or known.until < self._clock.monotonic():
            return None
        return known

    def _place(self, caller: Principal, entry: AgentEntry, known: _Known, partition: str) -> Place:
        return Place(
            tenant=caller.tenant,
            agent=entry.agent,
            user=caller.user,
            session_id=known.session,
            partition=partition,
            session_key=names.session_key(caller.tenant, partition),
            revision=known.revision or choose_revision(entry, self._share()),
            entry=entry,
            is_new=False,
        )

    def _check_access(self, caller: Principal, entry: AgentEntry) -> None:
        caller.require(INVOKE)
        access = entry.spec.get("access") or {}
        users, scopes = access.get("users") or [], access.get("scopes") or []
        if (users and caller.user not in users) or not all(caller.may(scope) for scope in scopes):
            raise ApiError(
                Kind.FORBIDDEN,
                f"The manifest of '{entry.agent}' does not list this caller in spec.access.",
                param="agent",
            )


def previous_not_found() -> ApiError:
    """The answer for a previous response that does not exist, or is another's."""
    return ApiError(
        Kind.PREVIOUS_NOT_FOUND,
        "Previous response not found: it was deleted, was not stored, or belongs to another agent or user.",
        param="previous_response_id",
    )


def _not_found(message: str) -> ApiError:
    return ApiError(Kind.NOT_FOUND, message, param="agent_session_id")


def _previous_partition(previous_response_id: str | None) -> str | None:
    if previous_response_id is None:
        return None
    partition = names.partition_of(previous_response_id)
    if partition is None:
        raise ApiError(Kind.INVALID_PARAMETERS, "Malformed identifier.", param="previous_response_id")
    return partition
