"""Answers of servers as tools need them: no redirect is followed, and no more is read than may be. Layer: gateway, I/O rim."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator

from moorage_gateway.models.asking import AskFault, Coming, Request, Upstreams
from moorage_gateway.tools.servers import ToolFault, ToolRefusal

CONNECT_S = 10.0
FOREVER_S = 3600.0
"""The deadline of the whole call stands around each wait."""

_CHALLENGES = (401, 403)
_MOST_CHALLENGE = 2_048
"""Characters of a challenge that are looked at: the search takes the square of them, and a head may be 64 KiB."""
_BEARER = re.compile(r'(?i:\bbearer)\b.*?\berror="?(insufficient_scope|invalid_token)\b')


def request(method: str, url: str, headers: dict[str, str], body: bytes = b"") -> Request:
    """One that waits as long as its asker does."""
    own = {"accept-encoding": "identity", "user-agent": "moorage"}
    return Request(method, url, {**own, **headers}, body, CONNECT_S, FOREVER_S, FOREVER_S)


@contextlib.asynccontextmanager
async def answered(upstreams: Upstreams, asked: Request) -> AsyncIterator[Coming]:
    """The answer, for as long as the context lasts. Raises ToolFault, also for what goes wrong in it."""
    try:
        async with upstreams.ask(asked) as coming:
            if 300 <= coming.status < 400:
                raise ToolFault("it redirects elsewhere; write the place it means as url", sent=True, final=True)
            try:
                yield coming
            except (ToolFault, ToolRefusal) as no:
                no.word = bearer_error(coming)
                raise
    except AskFault as fault:
        raise ToolFault(str(fault), sent=fault.sent, late=fault.late, final=fault.final) from None


def bearer_error(coming: Coming) -> str:
    """What a server says of the token that it was shown (RFC 6750, 3.1); empty: nothing."""
    found = (
        _BEARER.search(coming.header("www-authenticate")[:_MOST_CHALLENGE]) if coming.status in _CHALLENGES else None
    )
    return found[1] if found is not None else ""


async def whole(coming: Coming, most: int) -> bytes:
    """The body. Raises ToolFault when it is longer than `most` bytes, and AskFault."""
    parts, size = [], 0
    async for piece in coming.pieces():
        size += len(piece)
        if size > most:
            raise ToolFault(f"its answer is longer than {most} bytes", sent=True, large=True)
        parts.append(piece)
    return b"".join(parts)
