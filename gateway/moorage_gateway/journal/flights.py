"""A call being made: what came of it so far, and who follows it. Layer: engine; no I/O, one event loop.

    running  → recorded   the journal has the whole answer: followers get its end
             → broken     no whole answer will come: followers must not be told an end
             → refused    nothing was passed on: followers are told a word, and ask again

Followers see every piece at once, up to the first one that is held back; the rest when it is recorded (turns.md §6).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass

from moorage_api.ledger.journal import NOTHING, Outcome
from moorage_gateway.journal.answers import Answer, Headers
from moorage_gateway.journal.kinds import NoOutcome


class Broken(Exception):
    """The answer has no end; `str()` says why."""


@dataclass
class Room:
    """Bytes that bodies and answers of all calls may take in this process."""

    left: int

    def take(self, size: int) -> bool:
        """Takes room, if there is any."""
        if size > self.left:
            return False
        self.left -= size
        return True

    def give(self, size: int) -> None:
        """Gives it back."""
        self.left += size


class Flight:
    """One call. `entry` is its journal entry, empty where none is kept. It is the Outlet of whoever makes the call."""

    def __init__(self, entry: str, room: Room, most: int, call_id: str = "") -> None:
        self.entry = entry
        self.call_id = call_id
        self.status = 0
        self.headers: Headers = ()
        self.sent = False
        self.outcome = NOTHING
        """What it turned out to be, as far as whoever makes it has noted."""
        self.refusal: Answer | None = None
        """Set in `refused`: ask again."""
        self._room = room
        self._most = most
        self._sending: Callable[[], Awaitable[None]] | None = None
        self._pieces: list[bytes] = []
        self._size = 0
        self._held: int | None = None  # index of the first piece that is held back
        self._over = False
        self._why = ""
        self._followers = 0
        self._seen = False
        self._changed = asyncio.Event()

    # -- the outlet of whoever makes the call

    async def sending(self) -> None:
        """See Outlet."""
        if self._sending is not None:
            await self._sending()
        self.sent = True

    def begin(self, status: int, headers: Headers, *, streams: bool) -> None:
        """See Outlet."""
        self.status, self.headers = status, headers
        self._held = None if streams else 0
        self._stir()

    def put(self, piece: bytes, *, last: bool = False) -> None:
        """See Outlet."""
        if self._size + len(piece) > self._most:
            raise NoOutcome(f"the answer is longer than {self._most} bytes")
        if not self._room.take(len(piece)):
            raise NoOutcome("this gateway holds too many answers at once")
        self._size += len(piece)
        if last and self._held is None:
            self._held = len(self._pieces)
        self._pieces.append(piece)
        if self._held is None:
            self._stir()

    @property
    def passed_on(self) -> bool:
        """See Outlet."""
        return self._seen

    def clear(self) -> None:
        """See Outlet."""
        self._room.give(self._size)
        self._pieces, self._size, self._held, self.status = [], 0, None, 0

    def note(self, outcome: Outcome) -> None:
        """See Outlet."""
        self.outcome = outcome

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self._over

    def guard(self, sending: Callable[[], Awaitable[None]]) -> None:
        """What is asked before anything is sent."""
        self._sending = sending

    @property
    def answer(self) -> Answer:
        """The whole answer, once the call was made."""
        return Answer(self.status, self.headers, b"".join(self._pieces))

    # -- its end, told by the journal

    def recorded(self) -> None:
        """Followers get all of it."""
        self._held, self._over = None, True
        self._stir()

    def instead(self, answer: Answer) -> None:
        """Nothing was passed on, and this is what is told."""
        self.clear()
        self.begin(answer.status, answer.headers, streams=True)
        self._pieces.append(answer.body)  # ours, and small: it needs no room
        self.recorded()

    def broken(self, why: str) -> None:
        """No end will come."""
        self._why, self._over = why or "broken", True
        self._stir()

    def refused(self, refusal: Answer) -> None:
        """Followers are told to ask again; those that saw a part already are not."""
        self.refusal = refusal
        self.broken("the call could not be made")

    # -- followers

    async def head(self) -> bool:
        """Waits until something of the answer may be seen. False: nothing will be, see `refusal`. Raises Broken."""
        while not self._over and (not self.status or self._held == 0):
            await self._changed.wait()
        if self._over and self._why:
            if self.refusal is None or self._seen:
                raise Broken(self._why)
            return False
        self._seen = True
        return True

    async def follow(self) -> AsyncGenerator[bytes, None]:
        """The pieces, as they may be seen, to the end. Raises Broken when it has none."""
        self._followers += 1
        at = 0
        try:
            while True:
                changed = self._changed
                until = len(self._pieces) if self._held is None else self._held
                while at < until:
                    yield self._pieces[at]
                    at += 1
                    until = len(self._pieces) if self._held is None else self._held
                if self._over:
                    if self._why:
                        raise Broken(self._why)
                    return
                if changed is self._changed:
                    await changed.wait()
        finally:
            self._followers -= 1
            self._release()

    def _stir(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        if self._over:
            self._release()

    def _release(self) -> None:
        """Gives the room back when nobody will read it any more; who comes later reads the journal."""
        if self._over and not self._followers:
            self._room.give(self._size)
            self._size = 0
