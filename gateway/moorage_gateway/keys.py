"""API keys: made, listed, revoked, recognised. Layer: gateway.

A key's text is `mk_ID_SECRET`; at rest there is only a digest of its secret. The secret is 256 random bits, so a plain sha256
cannot be searched and no slow hash is needed. A record's versions are immutable objects `keys/ID/vN.json`; the highest one
counts. Replicas learn of a change by a random mark in Redis (`keys:version`) that each compares once a second: equal marks
mean that nothing changed since the record was read, so a revoked key is dead everywhere within 5 s.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import re
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

from moorage_api import names
from moorage_api.errors import ApiError, Kind
from moorage_api.ledger import keys as ledger_keys
from moorage_api.ledger.script import LedgerError
from moorage_gateway.auth import SCOPES, Principal
from moorage_gateway.refusals import unavailable
from moorage_gateway.store import Store

log = logging.getLogger("moorage.keys")


FRESH_FOR = 4.0  # seconds a record is believed without word from Redis that nothing changed; 5 s is promised
POLL_EVERY = 1.0  # seconds between two looks at the mark
BELIEVED_FOR = 60.0  # seconds a record is believed at most, whatever the mark says
CACHED = 10_000  # records in process
LOOKUPS = 32  # store reads at a time for keys not in the cache, so that guessing cannot flood the store
LISTED = 10_000  # key objects one listing reads at most
NAME_LENGTH = 100
PRINTABLE_NAME = re.compile(r"[^\x00-\x1f\x7f]{0,100}\Z")

_CANNOT = "API keys cannot be checked"
_TEXT = re.compile(r"mk_([0-9a-f]{16})_([0-9a-f]{64})\Z")


class Commands(Protocol):
    """Single Redis commands, as the ledger's runner sends them. Raises LedgerError when there is no answer."""

    async def read(self, *command: str | bytes | int) -> Any:
        """The reply of one command."""


@dataclass(frozen=True)
class KeyRecord:
    """One version of a key. Times in epoch seconds; `revoked_at` 0 while it is valid; `digest` is sha256 of the secret."""

    id: str
    tenant: str
    user: str
    name: str
    agents: tuple[str, ...] | None
    scopes: tuple[str, ...]
    digest: str
    created_at: int
    created_by: str
    revoked_at: int = 0
    version: int = 1

    def to_bytes(self) -> bytes:
        """Canonical JSON."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> KeyRecord:
        """The record behind `to_bytes`; ValueError, KeyError or TypeError on anything else."""
        fields = json.loads(data)
        agents = fields.pop("agents")
        scopes = tuple(fields.pop("scopes"))
        return cls(**fields, agents=None if agents is None else tuple(agents), scopes=scopes)

    def principal(self) -> Principal:
        """Whom this key speaks for."""
        agents = None if self.agents is None else frozenset(self.agents)
        return Principal(self.tenant, self.user, self.id, agents, frozenset(self.scopes))


@dataclass(frozen=True)
class _Cached:
    record: KeyRecord | None
    read_at: float


def new_text() -> str:
    """The text of a new key: 64 bits name it, 256 bits prove it."""
    return f"mk_{secrets.token_hex(8)}_{secrets.token_hex(32)}"


def key_id(text: str) -> str | None:
    """The id inside a key's text, None when the text is no key."""
    found = _TEXT.match(text)
    return found.group(1) if found else None


class KeyService:
    """Keys of all tenants. `run` has to run as a task for as long as the service is used."""

    def __init__(
        self, store: Store, commands: Commands, *, now: Callable[[], float], monotonic: Callable[[], float]
    ) -> None:
        self._store = store
        self._commands = commands
        self._now = now
        self._monotonic = monotonic
        self._cache: OrderedDict[str, _Cached] = OrderedDict()
        self._reading: dict[str, asyncio.Task[KeyRecord | None]] = {}
        self._lookups = asyncio.Semaphore(LOOKUPS)
        self._mark: str | None = None
        self._unchanged_at = -1e9  # when the mark was last seen to be the one the cache was filled under
        self._generation = 0

    async def identify(self, text: str) -> Principal | None:
        """The principal of a valid key; None for any other text. UNAVAILABLE when the store cannot be asked."""
        found = _TEXT.match(text)
        if found is None:
            return None
        record = await self._record(found.group(1))
        # Compared even when there is no record, so that time tells nothing of which ids exist.
        digest = record.digest if record else "0" * 64
        matches = hmac.compare_digest(_digest(found.group(2)), digest)
        if record is None or not matches or record.revoked_at:
            return None
        return record.principal()

    async def create(
        self,
        *,
        tenant: str,
        user: str,
        scopes: Iterable[str],
        agents: Iterable[str] | None = None,
        name: str = "",
        created_by: str = "",
    ) -> tuple[KeyRecord, str]:
        """A new key and its text, which nobody can read again. INVALID_PARAMETERS names a wrong field."""
        text = new_text()
        record = self._new(text, tenant, user, tuple(scopes), agents, name, created_by)
        await self._write(record)
        return record, text

    async def ensure(
        self,
        text: str,
        *,
        tenant: str,
        user: str,
        scopes: Iterable[str],
        agents: Iterable[str] | None = None,
        name: str = "",
    ) -> KeyRecord | None:
        """Makes the key with this text unless it exists; for a key that its owner keeps elsewhere (the dev key).

        None when the text is of a key that was revoked, or differs from the key with its id: the owner makes a new one.
        """
        found = _TEXT.match(text)
        if found is None:
            return None
        known = await self._read(found.group(1))
        if known is not None:
            return known if not known.revoked_at and known.digest == _digest(found.group(2)) else None
        record = self._new(text, tenant, user, tuple(scopes), agents, name, "platform")
        await self._write(record)
        return record

    async def list(self, tenant: str) -> tuple[KeyRecord, ...]:
        """The tenant's keys, oldest first, revoked ones too."""
        with unavailable(_CANNOT):
            ids = {key.split("/")[1] for key in await self._all_objects()}
            found = await asyncio.gather(*(self._read(one) for one in sorted(ids)))
        mine = [record for record in found if record is not None and record.tenant == tenant]
        return tuple(sorted(mine, key=lambda record: (record.created_at, record.id)))

    async def get(self, tenant: str, identifier: str) -> KeyRecord | None:
        """One key of the tenant; None for another tenant's."""
        if not re.fullmatch(r"[0-9a-f]{16}", identifier):
            return None
        with unavailable(_CANNOT):
            record = await self._read(identifier)
        return record if record is not None and record.tenant == tenant else None

    async def revoke(self, tenant: str, identifier: str) -> KeyRecord | None:
        """Ends a key for good; None when the tenant has no such key. Revoking twice is fine.

        UNAVAILABLE when other replicas could not be told: the caller asks again, and nothing is lost by that.
        """
        record = await self.get(tenant, identifier)
        if record is None:
            return None
        if not record.revoked_at:
            record = replace(record, revoked_at=int(self._now()), version=record.version + 1)
            await self._write(record)
        else:
            await self._announce(identifier)
        return record

    async def run(self) -> None:
        """Looks at the mark once a second until cancelled."""
        while True:
            try:
                await self.refresh()
            except (LedgerError, TimeoutError) as error:
                log.info("the key mark cannot be read: %s", error)
            await asyncio.sleep(POLL_EVERY)

    async def refresh(self) -> None:
        """One look at the mark; forgets every cached key when it changed."""
        asked_at = self._monotonic()
        async with asyncio.timeout(FRESH_FOR):  # not wait_for: of Python 3.11, it may swallow a cancellation
            mark = _text(await self._commands.read("GET", ledger_keys.KEYS_VERSION))
        if mark != self._mark:
            self._mark = mark
            self._generation += 1
            self._cache.clear()
        self._unchanged_at = asked_at

    async def _record(self, identifier: str) -> KeyRecord | None:
        cached = self._cache.get(identifier)
        if cached is not None:
            now = self._monotonic()
            confirmed = max(cached.read_at, self._unchanged_at)
            if now - confirmed <= FRESH_FOR and now - cached.read_at <= BELIEVED_FOR:
                self._cache.move_to_end(identifier)
                return cached.record
        reading = self._reading.get(identifier)
        if reading is None:
            reading = asyncio.create_task(self._read_into_cache(identifier))
            self._reading[identifier] = reading
            reading.add_done_callback(lambda task: self._read_done(identifier, task))
        with unavailable(_CANNOT):
            return await asyncio.shield(reading)

    def _read_done(self, identifier: str, task: asyncio.Task[KeyRecord | None]) -> None:
        self._reading.pop(identifier, None)
        if not task.cancelled():
            task.exception()  # read, so that one whose callers all left does not warn

    async def _read_into_cache(self, identifier: str) -> KeyRecord | None:
        async with self._lookups:
            generation, begun = self._generation, self._monotonic()
            record = await self._read(identifier)
            if generation == self._generation:  # else the mark changed while we read: what we read may be older
                self._cache[identifier] = _Cached(record, begun)
                self._cache.move_to_end(identifier)
                while len(self._cache) > CACHED:
                    self._cache.popitem(last=False)
            return record

    async def _read(self, identifier: str) -> KeyRecord | None:
        """The highest version in the store."""
        versions = await self._store.list(f"keys/{identifier}/")
        data = await self._store.get(versions[-1]) if versions else None
        if data is None:
            return None
        try:
            return KeyRecord.from_bytes(data)
        except (ValueError, KeyError, TypeError):
            log.error("the record of key %s cannot be read: it is treated as unknown", identifier)
            return None

    async def _all_objects(self) -> tuple[str, ...]:
        found: tuple[str, ...] = ()
        while page := await self._store.list("keys/", after=found[-1] if found else ""):
            found += tuple(page)
            if len(found) >= LISTED:
                log.warning("more than %d key objects: the listing is cut", LISTED)
                break
        return found

    async def _write(self, record: KeyRecord) -> None:
        with unavailable(_CANNOT):
            await self._store.put(f"keys/{record.id}/v{record.version:06d}.json", record.to_bytes())
        await self._announce(record.id)

    async def _announce(self, identifier: str) -> None:
        self._generation += 1
        self._cache.pop(identifier, None)
        with unavailable(_CANNOT):
            await self._commands.read("SET", ledger_keys.KEYS_VERSION, secrets.token_hex(8))

    def _new(
        self,
        text: str,
        tenant: str,
        user: str,
        scopes: tuple[str, ...],
        agents: Iterable[str] | None,
        name: str,
        created_by: str,
    ) -> KeyRecord:
        found = _TEXT.match(text)
        assert found is not None
        listed = None if agents is None else tuple(sorted(set(agents)))
        _check(names.TENANT.match(tenant) is not None, "tenant", "lower-case letters, digits and '-', at most 63")
        _check(names.USER.match(user) is not None, "user", "1 to 128 letters, digits or any of '_.@:+-'")
        _check(bool(scopes) and set(scopes) <= SCOPES, "scopes", f"one or more of {', '.join(sorted(SCOPES))}")
        _check(PRINTABLE_NAME.match(name) is not None, "name", f"at most {NAME_LENGTH} printable characters")
        if listed is not None:
            _check(0 < len(listed) <= 100, "agents", "1 to 100 names of agents, or leave it out for all")
            _check(all(names.AGENT.match(one) for one in listed), "agents", "names of agents")
        return KeyRecord(
            id=found.group(1),
            tenant=tenant,
            user=user,
            name=name,
            agents=listed,
            scopes=tuple(sorted(set(scopes))),
            digest=_digest(found.group(2)),
            created_at=int(self._now()),
            created_by=created_by,
        )


def _check(holds: bool, field: str, expected: str) -> None:
    if not holds:
        raise ApiError(Kind.INVALID_PARAMETERS, f"'{field}' must be {expected}.", param=field)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value.decode() if isinstance(value, bytes) else str(value)
