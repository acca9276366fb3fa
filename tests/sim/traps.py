"""Faults at a chosen point: the next time some gateway gets there, it is paused, killed, or its reply is lost (turns.md §10).

Random faults alone hardly ever meet the milliseconds in which a write travels; a trap waits there. What happens along with it
(`also`) makes the race likely that the write's guard is for.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

# Scripts, object writes and calls to shims by which a gateway can be caught. Those that guard much come more often.
POINTS = (
    "accept", "begin", "begin", "append", "append", "append", "decide", "decide", "close", "cancel", "acquire", "renew",
    "claim", "bound", "drain", "undrain", "hibernated", "note", "restore", "found", "delete", "release",
    "put response", "put accepted", "put lost",
    "shim bind", "shim bind", "shim start", "shim start", "shim attach", "shim stop", "shim drain",
    "answered",
)  # fmt: skip
ALSO = ("", "", "sandbox", "sandbox", "cancel", "rebind", "flush")


@dataclass
class Trap:
    """`side`: before or after the write took effect. `action`: pause (for `seconds`), kill, or lose (the reply)."""

    point: str
    side: str
    action: str
    seconds: float
    also: str
    skip: int


class Traps:
    """The traps that are set; at most a few at a time, so that a schedule still gets somewhere."""

    def __init__(self, rng: random.Random, *, flush: bool) -> None:
        self._rng = rng
        self._flush = flush
        self._set: list[Trap] = []
        self.sprung = 0

    def arm(self) -> None:
        """Sets one at random."""
        if len(self._set) >= 3:
            self._set.pop(0)
        rng = self._rng
        action = rng.choice(("pause", "pause", "pause", "kill", "lose"))
        also = rng.choice(ALSO)
        if also == "flush" and not self._flush:
            also = "sandbox"
        seconds = rng.choice((rng.uniform(1.0, 8.0), rng.uniform(11.0, 25.0), rng.uniform(11.0, 25.0)))
        if self._flush and rng.random() < 0.15:
            seconds = rng.uniform(40.0, 60.0)  # longer than it takes to give a lost turn up
        trap = Trap(rng.choice(POINTS), rng.choice(("before", "after")), action, seconds, also, 0)
        if trap.point == "append":
            trap.skip = rng.randrange(8)
        if trap.point == "answered":
            trap.side, trap.action, trap.also = "after", "kill", "flush" if self._flush else ""
        self._set.append(trap)

    def chain(self) -> None:
        """An acceptor dies before it proves what it accepted; whoever is told of the turn next loses Redis and dies too."""
        self._set = [Trap("accept", "after", "kill", 0.0, "", 0), Trap("answered", "after", "kill", 0.0, "flush", 0)]

    def clear(self) -> None:
        """Takes them all away."""
        self._set.clear()

    def spring(self, point: str, side: str) -> Trap | None:
        """The trap that closes here, if any."""
        if not self._set:
            return None
        for trap in self._set:
            if trap.point == point and trap.side == side:
                if trap.skip:
                    trap.skip -= 1
                    return None
                self._set.remove(trap)
                self.sprung += 1
                return trap
        return None
