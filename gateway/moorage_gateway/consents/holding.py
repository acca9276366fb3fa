"""A user's token for a call. Layer: engine; I/O by the store, Redis and the token server.

A consent is read from the store and believed for `FRESH_S`, so that a revoked one is dead everywhere a moment later. It is renewed by one
gateway at a time, under a lock in Redis, after another look at the store: a refresh token that its server rotates is used once. What came
is used at once, and the lock kept until the store has it (`saving.py`). While the token before it still counts no call waits longer for the
new one than a moment, nor fails for want of it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from moorage_api.ledger.consents import ConsentLedger
from moorage_api.ledger.script import LedgerError
from moorage_gateway import token_requests
from moorage_gateway.clock import Clock
from moorage_gateway.consents.diagnosis import Diagnosis
from moorage_gateway.consents.records import ConsentRecords, Sealed
from moorage_gateway.consents.saving import AGAIN_S, WRITE_S, Hold, Saving, alone
from moorage_gateway.consents.shapes import ENDED, Consent, Subject, Terms, Tokens
from moorage_gateway.consents.verdicts import over, wrong
from moorage_gateway.models.asking import Upstreams
from moorage_gateway.store import StoreError, StoreUnavailable
from moorage_gateway.token_requests import KEPT, PATIENCE_S, REST_S, Said, TokenFault

FRESH_S = 4.0
ASK_S = 10.0
"""For a token server."""
RENEW_S = 25.0
"""For a whole renewal, of whoever has no other token: longer than the lock and the token server are waited for."""
MOST = 10_000
"""Consents that one gateway keeps in memory, but for those that it is at work on."""
MOST_UNSAVED = 1000
"""Then nothing is renewed until the store takes some."""

log = logging.getLogger(__name__)

T = TypeVar("T")


class Refused(Exception):
    """The token server gave no token, by a fault that is not the user's; `str()` says what was seen."""


@dataclass
class _Held:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    consent: Consent | None = None
    """As it was read or came; it is renewed with what the store has."""
    read_at: float = float("-inf")
    refused: str = field(default="", repr=False)
    """An access token that its server did not accept any more."""
    renewing: asyncio.Task[Consent | None] | None = None
    begun_at: float = float("-inf")
    rests_until: float = float("-inf")
    """After a renewal that gave nothing, where the old token still counts."""
    unsaved: Sealed | None = None
    """What came and the store does not have."""
    hold: Hold | None = None
    """Its lock: while it stands, nobody else wrote since."""
    saving: asyncio.Task[None] | None = None

    @property
    def busy(self) -> bool:
        """Whether it may not be forgotten."""
        return any(task is not None and not task.done() for task in (self.renewing, self.saving))


class Holding:
    """Consents as this process holds them."""

    def __init__(self, records: ConsentRecords, ledger: ConsentLedger, upstreams: Upstreams, clock: Clock) -> None:
        self._records = records
        self._ledger = ledger
        self._upstreams = upstreams
        self._clock = clock
        self._saving = Saving(records, clock)
        self.diagnosis = Diagnosis(ledger, clock)
        self._held: OrderedDict[Subject, _Held] = OrderedDict()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._unsaved: set[asyncio.Task[None]] = set()

    async def token(self, subject: Subject, terms: Terms, seconds: float = RENEW_S) -> str | None:
        """The access token; None: the user has to consent. `seconds`: what the call has. Raises Refused, TokenFault, LedgerError,
        StoreError, TimeoutError."""
        held = self._of(subject)
        async with held.lock:
            consent = await self._known(subject, held)
            if consent is None or not consent.counts(terms.binding):
                held.read_at = float("-inf")  # a consent may come at any moment
                return None
            if not self._good(consent, held):
                self._renew(subject, terms, held, consent)
        if not self._good(consent, held):
            consent = await self._waited(held, consent, seconds)
        return consent.tokens.access if consent is not None and consent.tokens is not None else None

    def given_at(self, subject: Subject) -> int:
        """When the user consented whose token was got last (epoch s): a renewed token comes of the same consent."""
        held = self._held.get(subject)
        return held.consent.at if held is not None and held.consent is not None else 0

    def drop(self, subject: Subject, token: str) -> None:
        """It is not accepted any more."""
        self._of(subject).refused = token

    def alone(self, subject: Subject) -> AbstractAsyncContextManager[Hold]:
        """See `saving.alone`."""
        return alone(self._ledger, self._clock, subject)

    async def put(self, consent: Consent) -> None:
        """Writes it, for as long as that may take. Raises StoreError."""
        deadline, sealed = self._clock.monotonic() + WRITE_S, self._records.sealed(consent)
        while True:
            try:
                await self._records.put(sealed)
                break
            except StoreError:
                if self._clock.monotonic() >= deadline:
                    raise
                await self._clock.sleep(AGAIN_S)
        held = self._of(consent.subject)
        held.consent, held.read_at, held.unsaved = consent, self._clock.monotonic(), None

    def tokens(self, said: Said, asked_at: int, refresh: str = "") -> Tokens:
        """Of an answer that gave some; `refresh`: what stays where it has none."""
        lasts = said.lasts
        until = 0 if lasts is None else asked_at + int(KEPT * lasts * 1000)
        ends = 0 if lasts is None else asked_at + int(lasts * 1000)
        return Tokens(said.token() or "", said.token("refresh_token") or refresh, until, ends)

    async def refusal(self, subject: Subject, terms: Terms, said: Said) -> str:
        """What a token server's answer without a token means; kept for the manifest's author where it is theirs to mend."""
        why = wrong(said.code, said.status)
        if not why:
            return said.refusal
        says = f"{said.refusal}: {why}"
        await self.diagnosis.found(subject, terms.oauth, says)
        return f"{says}. No user can mend that; whoever runs the toolbox can"

    async def aclose(self) -> None:
        """What is being renewed is written first, for `ASK_S`."""
        until = self._clock.monotonic() + ASK_S
        # A renewal begins the task that saves what came.
        while self._tasks and (left := until - self._clock.monotonic()) > 0:
            await asyncio.wait(self._tasks, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        late = set(self._tasks)
        for task in late:
            task.cancel()
        if late:
            log.warning("%d renewals of consents end unsaved: their users consent anew", len(late))
            await asyncio.wait(late, timeout=ASK_S)

    def _of(self, subject: Subject) -> _Held:
        held = self._held.setdefault(subject, _Held())
        self._held.move_to_end(subject)
        for _ in range(len(self._held) - MOST):
            oldest, each = next(iter(self._held.items()))
            if each.busy:
                self._held.move_to_end(oldest)
            else:
                del self._held[oldest]
        return held

    async def _known(self, subject: Subject, held: _Held) -> Consent | None:
        """As the store has it, or will have it."""
        if held.unsaved is not None:
            try:
                return await self._not_saved(held, held.unsaved)
            finally:
                if held.unsaved is not None and (held.saving is None or held.saving.done()):
                    held.saving = self._begun(self._saved_later(subject, held, held.unsaved), self._unsaved)
        if self._clock.monotonic() - held.read_at > FRESH_S:
            return await self._read(subject, held)
        return held.consent

    async def _not_saved(self, held: _Held, sealed: Sealed) -> Consent | None:
        """What came, unless somebody else wrote since, as who revokes does: that nobody did, a lock that stands shows, else the store."""
        at = self._clock.monotonic()
        if at - held.read_at <= FRESH_S:
            return held.consent
        with suppress(LedgerError):  # then the store is asked
            if held.hold is not None and await held.hold.stands():
                return held.consent
        found = await self._records.latest(sealed.subject)
        held.read_at = at
        if found is not None and (held.consent is None or found.version > held.consent.version):
            held.unsaved, held.consent = None, found
        return held.consent

    async def _read(self, subject: Subject, held: _Held) -> Consent | None:
        at = self._clock.monotonic()
        held.consent = await self._records.latest(subject)
        held.read_at = at
        return held.consent

    def _good(self, consent: Consent, held: _Held) -> bool:
        tokens = consent.tokens
        if tokens is None or tokens.access == held.refused:
            return False
        return not tokens.until or self._clock.now_ms() < tokens.until

    def _usable(self, consent: Consent, held: _Held) -> bool:
        """Whether its token still counts, although it is time for another."""
        tokens = consent.tokens
        if tokens is None or tokens.access == held.refused:
            return False
        return not tokens.ends or self._clock.now_ms() < tokens.ends

    # -- a renewal, in a task of its own: whoever waits may be out of time when the answer comes, and it comes once

    def _renew(self, subject: Subject, terms: Terms, held: _Held, old: Consent) -> None:
        """Begins, where none is under way or was in vain a moment ago."""
        now = self._clock.monotonic()
        if held.renewing is not None and not held.renewing.done():
            return
        if self._usable(old, held) and now < held.rests_until:
            return
        held.begun_at, held.rests_until = now, float("-inf")
        held.renewing = self._begun(self._renewed(subject, terms, held))

    async def _waited(self, held: _Held, old: Consent, seconds: float) -> Consent | None:
        """The renewed one; the old one where its token still counts and a moment has brought no other; None: it is over."""
        task, patience = held.renewing, min(RENEW_S, seconds)
        if self._usable(old, held):
            patience = min(held.begun_at + PATIENCE_S - self._clock.monotonic(), seconds / 2)
        if task is not None and patience > 0:
            await asyncio.wait({task}, timeout=patience)
        over = task if task is not None and task.done() and not task.cancelled() else None
        if over is not None and over.exception() is None:
            return over.result()
        if self._usable(old, held):
            return old
        if over is None:
            raise TimeoutError
        return over.result()

    def _begun(self, work: Coroutine[Any, Any, T], also: set[asyncio.Task[T]] | None = None) -> asyncio.Task[T]:
        """`also`: counted there, too, until it ends."""
        task = asyncio.get_running_loop().create_task(work, name="consent")
        for group in (self._tasks, also):
            if group is not None:
                group.add(task)
                task.add_done_callback(group.discard)
        task.add_done_callback(_told)
        return task

    async def _renewed(self, subject: Subject, terms: Terms, held: _Held) -> Consent | None:
        try:
            return await self._renewed_alone(subject, terms, held)
        except (Refused, TokenFault, LedgerError, StoreError, TimeoutError):
            held.rests_until = self._clock.monotonic() + REST_S
            raise

    async def _renewed_alone(self, subject: Subject, terms: Terms, held: _Held) -> Consent | None:
        if held.unsaved is not None or len(self._unsaved) >= MOST_UNSAVED:  # its lock is our own, and is not waited for
            raise StoreUnavailable("renewed tokens wait for the store to take them")
        async with AsyncExitStack() as lock:
            hold = await lock.enter_async_context(self.alone(subject))
            consent = await self._read(subject, held)
            if consent is None or not consent.counts(terms.binding) or self._good(consent, held):
                return consent if consent is not None and consent.counts(terms.binding) else None
            if consent.tokens is None or not consent.tokens.refresh:
                held.rests_until = self._clock.monotonic() + REST_S
                return consent if self._usable(consent, held) else None
            # Where a slow store has cost us the lock, whoever has it, or had it meanwhile, shows the refresh token.
            if not await hold.longer() or hold.lost:
                raise StoreUnavailable("another gateway renews this user's token")
            tokens = await self._asked(subject, terms, consent.tokens)
            version = max(consent.version + 1, hold.now)
            if tokens is None:
                await self.put(replace(consent, version=version, state=ENDED, tokens=None))
                return None
            consent = replace(consent, version=version, tokens=tokens)
            # The store's copy renews the next time: what stays in memory opens the server, and no token server.
            sealed, held.consent = self._records.sealed(consent), replace(consent, tokens=replace(tokens, refresh=""))
            held.unsaved, held.hold = sealed, hold
            held.saving = self._begun(self._saved(held, sealed, hold, lock.pop_all()), self._unsaved)
            renewed = held.consent
        await self.diagnosis.mended(subject)
        return renewed

    async def _saved(self, held: _Held, sealed: Sealed, hold: Hold, lock: AsyncExitStack) -> None:
        if await self._saving.saved(sealed, hold, lock) and held.unsaved is sealed:
            held.unsaved, held.read_at = None, float("-inf")

    async def _saved_later(self, subject: Subject, held: _Held, sealed: Sealed) -> None:
        """The same, when its lock was let go. Where another gateway wrote since, that is newer and counts."""
        async with AsyncExitStack() as lock:
            held.hold = hold = await lock.enter_async_context(self.alone(subject))
            hold.lost = True
            await self._saved(held, sealed, hold, lock.pop_all())

    async def _asked(self, subject: Subject, terms: Terms, tokens: Tokens) -> Tokens | None:
        """New ones; None: the consent is over."""
        fields = [("grant_type", "refresh_token"), ("refresh_token", tokens.refresh), *terms.resource]
        at = self._clock.now_ms()
        async with asyncio.timeout(ASK_S):
            said = await token_requests.ask(self._upstreams, terms.client, fields)
        if said.token() is not None and said.is_bearer:
            return self.tokens(said, at, tokens.refresh)
        if over(said.code):
            return None
        raise Refused(await self.refusal(subject, terms, said))


def _told(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.info("a consent could not be renewed or saved: %s", type(task.exception()).__name__)
