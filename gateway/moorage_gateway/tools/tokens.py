"""OAuth tokens of upstreams by the grant for programs (RFC 6749, 4.4), as this process holds them. Layer: gateway, state and I/O.

A token is asked for when it is needed, and kept (`kept_token.py`). Neither it nor the secret is in any text from here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from moorage_gateway import token_requests
from moorage_gateway.kept_token import Got, KeptToken
from moorage_gateway.models.asking import Upstreams
from moorage_gateway.token_requests import Client, Said, TokenFault
from moorage_gateway.tools.servers import ToolFault

MOST = 1000


@dataclass(frozen=True)
class Order:
    """Which token. `key` names the upstream; `parameters`: further fields of the request."""

    key: str
    url: str
    client: str
    secret: str = field(repr=False)
    scopes: tuple[str, ...]
    in_form: bool
    parameters: tuple[tuple[str, str], ...]


def ordered(key: str, described: dict[str, Any], secret: str) -> Order:
    """As the manifest's `oauth` says."""
    return Order(
        key,
        str(described["tokenUrl"]),
        str(described["clientId"]),
        secret,
        tuple(described["scopes"]),
        described["auth"] == "post",
        tuple(sorted(described["parameters"].items())),
    )


class Tokens:
    """Those of this process. `now` in seconds that only go forward."""

    def __init__(self, upstreams: Upstreams, now: Callable[[], float]) -> None:
        self._upstreams = upstreams
        self._now = now
        self._held: OrderedDict[Order, KeptToken] = OrderedDict()

    async def get(self, order: Order, seconds: float) -> str:
        """The token. Raises ToolFault, of which nothing was sent."""
        held = self._held.setdefault(order, KeptToken(self._now, ToolFault))
        self._held.move_to_end(order)
        while len(self._held) > MOST:
            self._held.popitem(last=False)
        try:
            got = await held.get(lambda: self._got(order), seconds)
        except TimeoutError:
            raise ToolFault("its token server did not answer in time", sent=False, late=True) from None
        if got.refusal:
            raise ToolFault(got.refusal, sent=False, final=True)
        return got.token

    def drop(self, order: Order, token: str) -> None:
        """It is not accepted any more."""
        held = self._held.get(order)
        if held is not None:
            held.drop(token)

    async def _got(self, order: Order) -> Got:
        said = await self._asked(order)
        if said.status >= 500:
            raise ToolFault(said.refusal, sent=False)
        token = said.token()
        if token is None:
            return Got(refusal=said.refusal)
        if not said.is_bearer:
            raise ToolFault("its token server gave no bearer token", sent=False, final=True)
        return Got(token, said.lasts)

    async def _asked(self, order: Order) -> Said:
        fields = [("grant_type", "client_credentials"), *order.parameters]
        if order.scopes:
            fields.append(("scope", " ".join(order.scopes)))
        client = Client(order.url, order.client, order.secret, order.in_form)
        try:
            return await token_requests.ask(self._upstreams, client, fields)
        except TokenFault as fault:
            raise ToolFault(f"its token server: {fault}", sent=False, late=fault.late, final=fault.final) from None


@dataclass(frozen=True)
class Ordered:
    """See `moorage_gateway.tools.authorized.TokenSource`: the platform's own token."""

    tokens: Tokens
    order: Order

    @property
    def grant(self) -> str:
        """See TokenSource."""
        return ""

    async def get(self, seconds: float) -> str:
        """See TokenSource."""
        return await self.tokens.get(self.order, seconds)

    def drop(self, token: str) -> None:
        """See TokenSource."""
        self.tokens.drop(self.order, token)

    async def unfit(self, word: str) -> None:
        """See TokenSource: whoever calls is told, and there is nobody else to ask."""
