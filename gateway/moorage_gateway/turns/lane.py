"""The quick way of a running attempt's events into its log: callbacks from socket to socket, no task in between.

Most events of a turn are deltas, and most of what a delta cost was the waking of tasks (decisions/0010). While nothing else happens
they go this way: gathered, normalised as their append leaves, shown to the readers when Redis has them. Anything else (an end, an outcome,
a refusal, a lost Redis, an interrupt) stops the lane and is the engine's, which appends what the lane could not. A group that was sent
is sent again as it was: so it answers the same, and nobody needs to know what became of it (turns.md §1 c).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from moorage_api.ledger.records import Entry
from moorage_api.ledger.turns import TurnLedger
from moorage_api.wire.shim import Frame, Source
from moorage_gateway.recovery import Recovery
from moorage_gateway.turns.held import Held
from moorage_gateway.turns.source_reader import SourceReader

# Bytes that may wait for an append to land; then the inbox holds the rest, and its bound stops the agent.
MOST = 64 * 1024


class Lane:
    """One attempt's. `offer` is the inbox' first choice; `stop` gives the engine everything back.

    Events wait as they came and are normalised when their append leaves, in one go with those of other turns.
    `wake` is called when the engine must look: an outcome, a contradiction, a refused append, too large a log, a mistake.
    """

    def __init__(
        self, held: Held, reader: SourceReader, ledger: TurnLedger, recovery: Recovery, wake: Callable[[], None]
    ) -> None:
        self._held = held
        self._reader = reader
        self._ledger = ledger
        self._recovery = recovery
        self._wake = wake
        self._open = False
        self._waiting: list[Source] = []  # not normalised yet
        self._waiting_bytes = 0
        self._posted = False  # an append will ask for what waits
        self._flying: list[Entry] = []  # sent, and not known to be written
        self._in_air = False  # no answer yet
        self._unsent: list[Entry] = []  # normalised, and then something came up
        self._landing: asyncio.Future[None] | None = None
        self._fault: Exception | None = None

    def start(self) -> None:
        """The engine has nothing left to do; from here events may go this way."""
        self._open = True

    def shut(self) -> None:
        """Nothing is sent any more; for an engine that lets go of the turn."""
        self._open = False

    async def stop(self) -> list[list[Entry]]:
        """The groups to append that are not acknowledged yet, in order; the lane is shut. Raises what normalising raised."""
        self._open = False
        if self._in_air:
            self._landing = asyncio.get_running_loop().create_future()
            await self._landing
            self._landing = None
        fault, self._fault = self._fault, None
        if fault is not None:
            self._flying, self._unsent = [], []
            self._take_waiting()
            raise fault
        self._unsent += self._normalised()
        if self._reader.contradicted:
            self._unsent = []  # nothing of this attempt belongs into that log any more
        left = [group for group in (self._flying, self._unsent) if group]
        self._flying, self._unsent = [], []
        return left

    def offer(self, frames: list[Frame]) -> bool:
        """Takes the events of the agent, all or none."""
        if not self._open or self._held.interrupted or self._recovery.runs or self._waiting_bytes >= MOST:
            return False
        events: list[Source] = []
        size = 0
        for frame in frames:
            if not isinstance(frame, Source):
                return False
            events.append(frame)
            size += len(frame.data)
        self._waiting += events
        self._waiting_bytes += size
        if not self._posted and not self._in_air:
            self._post()
        return True

    def _post(self) -> None:
        self._posted = True
        self._ledger.append_soon(self._held.response, self._held.fence, self._group, self._landed)

    def _group(self) -> tuple[int, list[Entry]] | None:
        """What leaves now; None when that is nothing, or the engine's business."""
        self._posted = False
        if not self._open or not self._waiting:
            return None
        reader = self._reader
        try:
            made = self._normalised()
        except Exception as fault:  # raised again by `stop`, in the task that owns the turn
            self._give_up(fault)
            return None
        if reader.contradicted or reader.normaliser.outcome is not None:
            self._unsent = made
            self._give_up()
            return None
        if not made:
            return None
        self._flying, self._in_air = made, True
        return len(self._held.log), made

    def _normalised(self) -> list[Entry]:
        self._reader.read(self._take_waiting())
        return self._reader.drain()

    def _take_waiting(self) -> Sequence[Frame]:
        events, self._waiting, self._waiting_bytes = self._waiting, [], 0
        return events

    def _landed(self, words: list[Any] | None) -> None:
        self._in_air = False
        if words is not None and words[0] == b"OK":
            group, self._flying = self._flying, []
            try:
                self._held.logged(group)
            except Exception as fault:  # a reader's; the log has it
                self._give_up(fault)
        else:
            self._give_up()
        if self._landing is not None and not self._landing.done():
            self._landing.set_result(None)
        if not self._open:
            return
        if self._held.log_bytes > self._held.limits.log_bytes or self._held.interrupted or self._recovery.runs:
            self._give_up()
        elif self._waiting and not self._posted:
            self._post()

    def _give_up(self, fault: Exception | None = None) -> None:
        self._open, self._fault = False, fault or self._fault
        self._wake()
