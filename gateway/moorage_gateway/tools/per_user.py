"""A server that is opened by its user's own token. Layer: engine; I/O by the consents.

Whose token it is, is what the gateway verified: the user of the turn, or who calls by hand. No sandbox names one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from moorage_api.errors import ApiError
from moorage_api.ledger.records import TurnRecord
from moorage_api.ledger.script import LedgerError
from moorage_gateway.auth import ROUTINE
from moorage_gateway.consents.flow import Consents
from moorage_gateway.consents.holding import Refused
from moorage_gateway.consents.shapes import Subject, Terms
from moorage_gateway.consents.verdicts import wrong
from moorage_gateway.journal.kinds import NothingSent
from moorage_gateway.store import StoreError
from moorage_gateway.token_requests import TokenFault
from moorage_gateway.tools.servers import ConsentNeeded, ToolFault, Whose

GET_S = 30.0

Users = Callable[[str, str], Awaitable[str]]
"""The user of a turn, by tenant and response. Raises NothingSent."""

NOBODY = (
    "it acts for a user who has allowed that, and this call is made for none: it needs a turn of a user, or a routine with an owner "
    "(`spec.owner`)"
)


def users_of(known: Callable[[str], Awaitable[TurnRecord | None]]) -> Users:
    """Whose turn one is, as its caller was verified; empty: none of that tenant's. `known`: a turn as Redis has it."""

    async def of(tenant: str, response: str) -> str:
        try:
            record = await known(response)
        except ApiError as fault:
            raise NothingSent(fault.message) from fault
        if record is None:
            raise NothingSent("the turn is not to be found right now")
        return str(record.meta.get("user", "")) if record.meta["tenant"] == tenant else ""

    return of


class UserToken:
    """See `moorage_gateway.tools.authorized.TokenSource`: of one call."""

    def __init__(self, consents: Consents, users: Users, tenant: str, whose: Whose, terms: Terms) -> None:
        self._consents = consents
        self._users = users
        self._tenant = tenant
        self._whose = whose
        self._terms = terms
        self._subject: Subject | None = None
        self.grant = ""

    async def get(self, seconds: float) -> str:
        """See TokenSource. Raises ConsentNeeded, too."""
        if self._consents.lacking:
            raise ToolFault(self._consents.lacking, sent=False, final=True)
        try:
            async with asyncio.timeout(min(GET_S, seconds)):
                subject = self._subject = await self._whom()
                token = await self._consents.holding.token(subject, self._terms, seconds)
                if token is not None:
                    self.grant = str(self._consents.holding.given_at(subject))
                    return token
                link = await self._consents.ask(subject, self._terms, self._whose.turn)
        except TokenFault as fault:
            raise ToolFault(f"its token server: {fault}", sent=False, late=fault.late, final=fault.final) from None
        except Refused as no:
            raise ToolFault(str(no), sent=False, final=True) from None
        except TimeoutError:
            raise ToolFault("its token server did not answer in time", sent=False, late=True) from None
        except (LedgerError, StoreError) as fault:
            raise NothingSent("the platform's storage does not answer") from fault
        raise ConsentNeeded(subject.user, link)

    def drop(self, token: str) -> None:
        """See TokenSource."""
        if self._subject is not None:
            self._consents.holding.drop(self._subject, token)

    async def unfit(self, word: str) -> None:
        """See TokenSource: no consent of the user's helps, so the manifest's author is told."""
        if self._subject is not None:
            says = f"its server answered {word}: {wrong(word)}"
            await self._consents.holding.diagnosis.found(self._subject, self._terms.oauth, says)

    async def _whom(self) -> Subject:
        user = self._whose.user
        if not self._whose.by_hand:
            user = await self._users(self._tenant, self._whose.turn) if self._whose.turn else ""
        if not user or user.startswith(ROUTINE):
            raise ToolFault(NOBODY, sent=False, final=True)
        return Subject(self._tenant, user, self._terms.toolbox, self._terms.upstream)
