"""A user's token for a call. Layer: engine; I/O by the store, Redis and the token server.

A consent is read from the store and believed for `FRESH_S`, so that a revoked one is dead everywhere a moment later. It is renewed by one
gateway at a time, under a lock in Redis, after another look at the store: a refresh token that its server rotates is used once. What came
is written before it is used, and kept here for as long as the store does not take it; a gateway that dies before loses it, and the user
consents anew.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import OrderedDict
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from moorage_api.ledger.consents import ConsentLedger
from moorage_api.ledger.script import LedgerError
from moorage_gateway import token_requests
from moorage_gateway.clock import Clock
from moorage_gateway.consents.records import ConsentRecords
from moorage_gateway.consents.shapes import ENDED, Consent, Subject, Terms, Tokens
from moorage_gateway.models.asking import Upstreams
from moorage_gateway.store import StoreError
from moorage_gateway.token_requests import KEPT, Said, TokenFault

FRESH_S = 4.0
ASK_S = 10.0
WRITE_S = 20.0
"""For what was got to be written: it cannot be got again."""
AGAIN_S = 0.5
LOOK_S = 0.05
"""Between two looks at a lock that another one holds."""
MOST = 10_000
"""Consents that one gateway keeps in memory."""

log = logging.getLogger(__name__)


class Refused(Exception):
    """The token server gave no token, by a fault that is not the user's; `str()` says what was seen."""


@dataclass
class _Held:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    consent: Consent | None = None
    read_at: float = float("-inf")
    refused: str = field(default="", repr=False)
    """An access token that its server did not accept any more."""
    renewing: asyncio.Task[Consent | None] | None = None
    unsaved: Consent | None = None
    """What came and could not be written: it is, before anything else is asked of it."""


class Holding:
    """Consents as this process holds them."""

    def __init__(self, records: ConsentRecords, ledger: ConsentLedger, upstreams: Upstreams, clock: Clock) -> None:
        self._records = records
        self._ledger = ledger
        self._upstreams = upstreams
        self._clock = clock
        self._held: OrderedDict[Subject, _Held] = OrderedDict()
        self._tasks: set[asyncio.Task[Consent | None]] = set()

    async def token(self, subject: Subject, terms: Terms) -> str | None:
        """The access token; None: the user has to consent. Raises Refused, TokenFault, LedgerError, StoreError, TimeoutError."""
        held = self._of(subject)
        async with held.lock:
            consent = held.consent
            if self._clock.monotonic() - held.read_at > FRESH_S:
                consent = await self._read(subject, held)
            if consent is None or not consent.counts(terms.binding):
                held.read_at = float("-inf")  # a consent may come at any moment
                return None
            if not self._good(consent, held):
                # In a task of its own: whoever waits may be out of time when the answer comes, and it comes once.
                if held.renewing is None or held.renewing.done():
                    held.renewing = self._begun(self._renewed(subject, terms, consent))
                async with asyncio.timeout(ASK_S):
                    consent = await asyncio.shield(held.renewing)
            return consent.tokens.access if consent is not None and consent.tokens is not None else None

    def drop(self, subject: Subject, token: str) -> None:
        """It is not accepted any more."""
        self._of(subject).refused = token

    @asynccontextmanager
    async def alone(self, subject: Subject) -> AsyncIterator[int]:
        """Nobody else writes this user's tokens meanwhile: gives the least version of what is written. Raises LedgerError."""
        holder = secrets.token_hex(16)
        try:  # also around the lock: who is cancelled after Redis took it leaves none behind, and only its holder's is taken off
            while not (now := await self._ledger.lock(subject.place, holder)):
                await self._clock.sleep(LOOK_S)
            yield now
        finally:
            try:
                await self._ledger.unlock(subject.place, holder)
            except LedgerError:
                log.info("a lock of consents runs out by itself")

    async def put(self, consent: Consent) -> None:
        """Writes it, for as long as that may take. Raises StoreError."""
        deadline = self._clock.monotonic() + WRITE_S
        while True:
            try:
                await self._records.write(consent)
                break
            except StoreError:
                if self._clock.monotonic() >= deadline:
                    raise
                await self._clock.sleep(AGAIN_S)
        self._keep(consent)

    def tokens(self, said: Said, asked_at: int, refresh: str = "") -> Tokens:
        """Of an answer that gave some; `refresh`: what stays where it has none."""
        lasts = said.lasts
        until = 0 if lasts is None else asked_at + int(KEPT * lasts * 1000)
        ends = 0 if lasts is None else asked_at + int(lasts * 1000)
        return Tokens(said.token() or "", said.token("refresh_token") or refresh, until, ends)

    async def aclose(self) -> None:
        """What is being renewed is written first."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=ASK_S)

    def _of(self, subject: Subject) -> _Held:
        held = self._held.setdefault(subject, _Held())
        self._held.move_to_end(subject)
        while len(self._held) > MOST:
            self._held.popitem(last=False)
        return held

    def _keep(self, consent: Consent) -> None:
        held = self._of(consent.subject)
        held.consent, held.read_at, held.unsaved = consent, self._clock.monotonic(), None

    def _begun(self, work: Coroutine[Any, Any, Consent | None]) -> asyncio.Task[Consent | None]:
        task = asyncio.get_running_loop().create_task(work, name="consent")
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def _read(self, subject: Subject, held: _Held) -> Consent | None:
        at = self._clock.monotonic()
        consent = await self._records.latest(subject)
        if held.unsaved is not None and (consent is None or consent.version < held.unsaved.version):
            consent = held.unsaved
            await self._records.write(consent)
        held.consent, held.read_at, held.unsaved = consent, at, None
        return consent

    def _good(self, consent: Consent, held: _Held) -> bool:
        tokens = consent.tokens
        if tokens is None or tokens.access == held.refused:
            return False
        return not tokens.until or self._clock.now_ms() < tokens.until

    def _ended(self, task: asyncio.Task[Consent | None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.info("a consent could not be renewed: %s", type(task.exception()).__name__)

    async def _renewed(self, subject: Subject, terms: Terms, before: Consent) -> Consent | None:
        async with self.alone(subject) as now:
            held = self._of(subject)
            consent = await self._read(subject, held)
            if consent is None or not consent.counts(terms.binding) or self._good(consent, held):
                return consent if consent is not None and consent.counts(terms.binding) else None
            if consent.tokens is None or not consent.tokens.refresh:
                return None
            renewed = await self._asked(terms, consent, consent.tokens)
            if renewed is None:
                await self.put(replace(consent, version=max(consent.version + 1, now), state=ENDED, tokens=None))
                return None
            if renewed is not consent.tokens:
                consent = replace(consent, version=max(consent.version + 1, now), tokens=renewed)
                held.unsaved, held.read_at = consent, float("-inf")
                await self.put(consent)
            return consent

    async def _asked(self, terms: Terms, consent: Consent, tokens: Tokens) -> Tokens | None:
        """New ones; the old ones where none are to be had now and these still count; None: the consent is over."""
        fields = [("grant_type", "refresh_token"), ("refresh_token", tokens.refresh), *terms.resource]
        at = self._clock.now_ms()
        usable = (not tokens.ends or at < tokens.ends) and tokens.access != self._of(consent.subject).refused
        try:
            async with asyncio.timeout(ASK_S):
                said = await token_requests.ask(self._upstreams, terms.client, fields)
        except (TokenFault, TimeoutError):
            if usable:
                return tokens
            raise
        if said.token() is not None and said.is_bearer:
            return self.tokens(said, at, tokens.refresh)
        if said.code == "invalid_grant":
            return None
        if usable:
            return tokens
        raise Refused(said.refusal)
