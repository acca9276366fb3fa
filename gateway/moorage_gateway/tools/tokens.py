"""OAuth tokens of upstreams by the grant for programs (RFC 6749, 4.4), as this process holds them. Layer: gateway, state and I/O.

A token is asked for when it is needed, by one asker at a time, and kept until shortly before it ends. Neither it nor the secret is in any
text from here: of what a token server says when it refuses, the error's code alone is told.
"""

from __future__ import annotations

import asyncio
import base64
import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote_plus, urlencode

from moorage_api.errors import ApiError
from moorage_gateway.models.asking import Request, Upstreams
from moorage_gateway.models.credentials import usable
from moorage_gateway.request import JsonLimits, parse_json
from moorage_gateway.tools.reading import answered, request, whole
from moorage_gateway.tools.servers import ToolFault

ASK_S = 10.0
LASTS_S = 300.0
"""Of a token whose server does not say for how long it may be used."""
LONGEST_S = 86400.0
KEPT = 0.9
"""Of its time that a token is used for: a call that begins in the last tenth may end after it."""
REFUSED_S = 5.0
"""For which a refusal is remembered: a wrong secret is not tried once a call."""
LIMITS = JsonLimits(size=64 * 1024, depth=16, containers=1000)
MOST_TOKEN = 16 * 1024
MOST = 1000

_CODE = re.compile(r"[a-z_]{1,40}\Z")


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


@dataclass
class _Held:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    token: str = field(default="", repr=False)
    refusal: str = ""
    until: float = float("-inf")


class Tokens:
    """Those of this process. `now` in seconds that only go forward."""

    def __init__(self, upstreams: Upstreams, now: Callable[[], float]) -> None:
        self._upstreams = upstreams
        self._now = now
        self._held: OrderedDict[Order, _Held] = OrderedDict()

    async def get(self, order: Order, seconds: float) -> str:
        """The token. Raises ToolFault, of which nothing was sent."""
        held = self._held.setdefault(order, _Held())
        self._held.move_to_end(order)
        while len(self._held) > MOST:
            self._held.popitem(last=False)
        try:
            async with asyncio.timeout(min(ASK_S, seconds)), held.lock:
                if self._now() >= held.until:
                    await self._fill(held, order)
        except TimeoutError:
            raise ToolFault("its token server did not answer in time", sent=False, late=True) from None
        if held.refusal:
            raise ToolFault(held.refusal, sent=False, final=True)
        return held.token

    def drop(self, order: Order, token: str) -> None:
        """It is not accepted any more."""
        held = self._held.get(order)
        if held is not None and held.token == token:
            held.until = float("-inf")

    async def _fill(self, held: _Held, order: Order) -> None:
        asked_at = self._now()
        status, body = await self._asked(order)
        said = _read(body)
        if status >= 500:
            raise ToolFault(f"its token server answered {status}", sent=False)
        found, kind = said.get("access_token"), said.get("token_type", "bearer")
        token = usable(found if isinstance(found, str) else None)
        if status >= 400 or token is None:
            held.token, held.refusal, held.until = "", _refusal(status, said), self._now() + REFUSED_S
            return
        if len(token) > MOST_TOKEN or str(kind).lower() != "bearer":
            raise ToolFault("its token server gave no bearer token", sent=False, final=True)
        held.token, held.refusal, held.until = token, "", asked_at + KEPT * _lasts(said)

    async def _asked(self, order: Order) -> tuple[int, bytes]:
        try:
            async with answered(self._upstreams, _request(order)) as coming:
                return coming.status, await whole(coming, LIMITS.size)
        except ToolFault as fault:
            raise ToolFault(f"its token server: {fault}", sent=False, late=fault.late, final=fault.final) from None


def _request(order: Order) -> Request:
    fields = [("grant_type", "client_credentials"), *order.parameters]
    headers = {"accept": "application/json", "content-type": "application/x-www-form-urlencoded"}
    if order.scopes:
        fields.append(("scope", " ".join(order.scopes)))
    if order.in_form:
        fields += [("client_id", order.client), ("client_secret", order.secret)]
    else:
        pair = f"{quote_plus(order.client)}:{quote_plus(order.secret)}"  # RFC 6749, 2.3.1
        headers["authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
    return request("POST", order.url, headers, urlencode(fields).encode())


def _read(body: bytes) -> dict[str, Any]:
    try:
        found = parse_json(body, LIMITS)
    except ApiError:
        return {}
    return found if isinstance(found, dict) else {}


def _refusal(status: int, said: dict[str, Any]) -> str:
    code = said.get("error")
    told = f" {code}" if isinstance(code, str) and _CODE.match(code) else ""
    return f"its token server answered {status}{told}" if status >= 400 else "its token server gave no token"


def _lasts(said: dict[str, Any]) -> float:
    found = said.get("expires_in")
    if isinstance(found, str) and found.isdecimal() and len(found) < 10:
        found = int(found)  # some say it so
    if isinstance(found, bool) or not isinstance(found, int | float):
        return LASTS_S
    return min(max(float(found), 0.0), LONGEST_S)
