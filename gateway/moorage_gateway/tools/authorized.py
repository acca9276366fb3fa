"""A server that is opened by a token. Layer: engine; I/O by the server within.

One that answers 401 has done nothing: its token is forgotten, and where nothing else was sent, or the tool may be run again, it is asked
once more with a new one. An effect is not: what answers 401 after it may not be who carried it out.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

from moorage_gateway.journal.kinds import NothingSent
from moorage_gateway.tools.servers import Sending, ToolFault, ToolRefusal, ToolServer

T = TypeVar("T")

_UNAUTHORIZED = 401
_LESS = "insufficient_scope"
_LEAST_S = 0.001


class TokenSource(Protocol):
    """Where the token comes from."""

    @property
    def grant(self) -> str:
        """What the token that was got last comes of, where that changes under one manifest: which consent of a user's. Else empty."""

    async def get(self, seconds: float) -> str:
        """The token. Raises ToolFault, of which nothing was sent, and NothingSent."""

    def drop(self, token: str) -> None:
        """It is not accepted any more."""

    async def unfit(self, word: str) -> None:
        """The server takes none of these tokens: not one that was just got (`invalid_token`), or it says `insufficient_scope`."""


class Authorized:
    """See `ToolServer`. `make` makes the server that shows this token; `again`: whether this tool may be run again; `now` in seconds that
    only go forward."""

    def __init__(
        self,
        tokens: TokenSource,
        *,
        make: Callable[[str], ToolServer],
        again: Callable[[str], bool],
        now: Callable[[], float],
    ) -> None:
        self._tokens = tokens
        self._make = make
        self._again = again
        self._now = now
        self.left_out: dict[str, str] = {}
        self.title = ""

    async def tools(self, seconds: float) -> list[Any]:
        """See ToolServer."""

        async def listed(server: ToolServer, left: float) -> list[Any]:
            found = await server.tools(left)
            self.left_out, self.title = server.left_out, server.title
            return found

        try:
            return await self._with(seconds, listed, lambda: True)
        except NothingSent as why:
            raise ToolFault(str(why), sent=False, final=True) from why

    async def call(
        self, tool: str, arguments: dict[str, Any], meta: dict[str, Any], seconds: float, sending: Sending
    ) -> dict[str, Any]:
        """See ToolServer."""
        sent = False

        async def noting() -> None:
            nonlocal sent
            await sending()
            sent = True

        async def called(server: ToolServer, left: float) -> dict[str, Any]:
            return await server.call(tool, arguments, meta, left, noting)

        return await self._with(seconds, called, lambda: not sent or self._again(tool))

    async def _with(
        self, seconds: float, act: Callable[[ToolServer, float], Awaitable[T]], again: Callable[[], bool]
    ) -> T:
        ends = self._now() + seconds

        def left() -> float:
            return max(ends - self._now(), _LEAST_S)

        token = await self._tokens.get(seconds)
        try:
            return await act(self._make(token), left())
        except (ToolFault, ToolRefusal) as no:
            if no.status != _UNAUTHORIZED:
                await self._unfit(no)
                raise
            self._tokens.drop(token)
            if not again():
                raise
        token = await self._tokens.get(left())
        try:
            return await act(self._make(token), left())
        except (ToolFault, ToolRefusal) as no:
            await self._unfit(no)
            raise

    async def _unfit(self, no: ToolFault | ToolRefusal) -> None:
        if no.status == _UNAUTHORIZED:
            await self._tokens.unfit("invalid_token")
        elif no.word == _LESS:
            await self._tokens.unfit(_LESS)
