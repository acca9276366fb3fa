"""Requests to token endpoints of OAuth, and what is read of their answers. Layer: gateway, I/O rim.

Nothing that is secret is in any text from here: of what a token server says when it refuses, the error's code alone is told.

TokenFault     no answer: `late`, or `final` where asking again changes nothing
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote_plus, urlencode

from moorage_api.errors import ApiError
from moorage_gateway.models.asking import AskFault, Request, Upstreams
from moorage_gateway.models.credentials import usable
from moorage_gateway.request import JsonLimits, parse_json

LASTS_S = 300.0
"""Of a token whose server does not say for how long it may be used."""
LONGEST_S = 86400.0
KEPT = 0.9
"""Of its time that a token is used for: a call that begins in the last tenth may end after it."""
PATIENCE_S = 2.0
"""For a new token, of whoever has one that still counts."""
REST_S = 10.0
"""Until the next try, after one in vain, where the old token still counts."""
LIMITS = JsonLimits(size=64 * 1024, depth=16, containers=1000)
MOST_TOKEN = 16 * 1024
CONNECT_S = 10.0
FOREVER_S = 3600.0
"""The deadline of whoever asks stands around each wait."""

_CODE = re.compile(r"[a-z_]{1,40}\Z")


class TokenFault(Exception):
    """`str()` says what was seen."""

    def __init__(self, detail: str, *, late: bool = False, final: bool = False) -> None:
        super().__init__(detail)
        self.late = late
        self.final = final


@dataclass(frozen=True)
class Client:
    """Who asks, and how it proves that: `in_form`, or as HTTP Basic. Without a secret the id alone goes in the form; without either the
    fields say it."""

    url: str
    id: str
    secret: str = field(repr=False)
    in_form: bool


@dataclass(frozen=True)
class Said:
    """An answer, as far as it was JSON."""

    status: int
    fields: dict[str, Any] = field(repr=False)

    @property
    def code(self) -> str:
        """OAuth's word for a refusal; empty: none that can be told."""
        found = self.fields.get("error")
        return found if isinstance(found, str) and _CODE.match(found) else ""

    @property
    def refusal(self) -> str:
        """Why there is no token."""
        told = f" {self.code}" if self.code else ""
        return (
            f"its token server answered {self.status}{told}" if self.status >= 400 else "its token server gave no token"
        )

    def token(self, name: str = "access_token") -> str | None:
        """One that may stand in a header; None: there is none."""
        found = self.fields.get(name)
        return usable(found) if self.status < 400 and isinstance(found, str) else None

    @property
    def is_bearer(self) -> bool:
        """Whether its access token is used as such, and not too long."""
        kind = str(self.fields.get("token_type", "bearer"))
        return len(self.token() or "") <= MOST_TOKEN and kind.lower() == "bearer"

    @property
    def lasts(self) -> float | None:
        """Seconds; None where the server does not say."""
        found = self.fields.get("expires_in")
        if isinstance(found, str) and found.isdecimal() and len(found) < 10:
            found = int(found)  # some say it so
        if isinstance(found, bool) or not isinstance(found, int | float):
            return None
        return min(max(float(found), 0.0), LONGEST_S)


async def ask(upstreams: Upstreams, client: Client, fields: list[tuple[str, str]]) -> Said:
    """One request. Raises TokenFault; no redirect is followed."""
    headers = {
        "accept": "application/json",
        "accept-encoding": "identity",
        "content-type": "application/x-www-form-urlencoded",
        "user-agent": "moorage",
    }
    if client.in_form or not client.secret:
        fields = [*fields, *([("client_id", client.id)] if client.id else [])]
        fields += [("client_secret", client.secret)] if client.secret else []
    else:
        pair = f"{quote_plus(client.id)}:{quote_plus(client.secret)}"  # RFC 6749, 2.3.1
        headers["authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
    asked = Request("POST", client.url, headers, urlencode(fields).encode(), CONNECT_S, FOREVER_S, FOREVER_S)
    parts, size = [], 0
    try:
        async with upstreams.ask(asked) as coming:
            if 300 <= coming.status < 400:
                raise TokenFault("it redirects elsewhere; write the place it means as url", final=True)
            async for piece in coming.pieces():
                size += len(piece)
                if size > LIMITS.size:
                    raise TokenFault(f"its answer is longer than {LIMITS.size} bytes", final=True)
                parts.append(piece)
            return Said(coming.status, _read(b"".join(parts)))
    except AskFault as fault:
        raise TokenFault(str(fault), late=fault.late, final=fault.final) from None


def _read(body: bytes) -> dict[str, Any]:
    try:
        found = parse_json(body, LIMITS)
    except ApiError:
        return {}
    return found if isinstance(found, dict) else {}
