"""What a type of upstream must do. Layer: shapes; a further type (processes) is one class beside `mcp.py`, `http_api.py` and `agents.py`.

ToolFault     no answer of the server's: `sent` says whether the call itself may have reached it
ToolRefusal   the server's own error: an answer
ConsentNeeded its user has to consent first: nothing was sent
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

MOST_TITLE = 200
"""Characters of what a server calls itself."""

LOST = frozenset({502, 504})
"""Of HTTP: said by what stands before a server. Whether the server itself got the call is not known (turns.md §6)."""

CALL_ID = "dev.moorage/callId"
"""In `_meta` of what a server is asked: the same for every try of a call, in every attempt, and no other call's."""

Sending = Callable[[], Awaitable[None]]
"""Awaited right before anything is sent that may have an effect. Raises NothingSent."""


class ToolFault(Exception):
    """`late`: out of time. `large`: longer than may be; the call was carried out as far as can be told. `final`: asking again changes
    nothing. `status`: of HTTP, where that is the whole answer. `word`: RFC 6750's for a token that is not taken."""

    word = ""

    def __init__(
        self, detail: str, *, sent: bool, late: bool = False, large: bool = False, final: bool = False, status: int = 0
    ) -> None:
        super().__init__(detail)
        self.sent = sent
        self.late = late
        self.large = large
        self.final = final
        self.status = status

    @property
    def lost(self) -> bool:
        """Whether the server may have got the call although it did not answer it."""
        return self.status in LOST

    @property
    def counts(self) -> bool:
        """Whether it is a failure of the server that speaks for leaving it alone: a refusal, a long answer, or our own lack is none."""
        return not self.large and not self.final and (not self.status or self.status >= 500)


class ConsentNeeded(ToolFault):
    """`link`: where the user does it."""

    def __init__(self, user: str, link: str) -> None:
        super().__init__(f"user '{user}' has to allow it first: {link}", sent=False, final=True)
        self.user = user
        self.link = link


class ToolRefusal(Exception):
    """`str()` is the server's own text, cut. `status`: of HTTP. `word`: see ToolFault. `named`: whether it names the request that it
    answers, which somebody has read then."""

    word = ""

    def __init__(self, code: int, message: str, *, status: int = 200, named: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        self.named = named


@dataclass(frozen=True)
class Whose:
    """The attempt for which tools are called: its agent's session and turn, and what a span of the call is below. Without a session: by
    hand, by `user`; whose turn it is otherwise, the ledger knows."""

    session: str = ""
    turn: str = ""
    traceparent: str = ""
    user: str = ""

    @property
    def by_hand(self) -> bool:
        """Whether a person makes the call."""
        return not self.session


class ToolServer(Protocol):
    """One upstream, reachable. Seconds bound the whole of a method, but for a goodbye. `left_out`: what of the list that was told last is
    no tool, and why, where that can be said. `title`: what it calls itself, as far as it has said when it has told its list."""

    left_out: dict[str, str]
    title: str

    async def tools(self, seconds: float) -> list[Any]:
        """What it says of its tools, unchecked. Raises ToolFault, ToolRefusal."""

    async def call(
        self, tool: str, arguments: dict[str, Any], meta: dict[str, Any], seconds: float, sending: Sending
    ) -> dict[str, Any]:
        """The result of one call, unchecked. Raises ToolFault, ToolRefusal, and what `sending` raises."""
