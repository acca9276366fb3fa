"""Faults at a chosen point: the next time some gateway gets there, it is paused, killed, or its reply is lost (turns.md §10).

Random faults alone hardly ever meet the milliseconds in which a write travels; a trap waits there. What happens along with it
(`also`) makes the race likely that the write's guard is for. A *story* is a few traps, and a world, in which one race comes true.
"""

from __future__ import annotations

import random
from collections.abc import Callable
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
    """`side`: before or after the write took effect. `action`:

    pause   the process stops for `seconds`
    late    it stops, and then the reply is lost
    slow    this one call takes `seconds`; the process goes on
    kill    the process dies
    lose    the reply is lost
    none    only `also` happens
    """

    point: str
    side: str
    action: str
    seconds: float = 0.0
    also: str = ""
    skip: int = 0


@dataclass(frozen=True)
class Story:
    """A world for one race. `quiet`: seconds before the random faults begin."""

    name: str
    traps: tuple[Trap, ...] = ()
    sessions: int = 2
    says: str = ""  # what every agent is like; empty: as it comes
    drains: bool | None = None
    queue: int = 0
    users: str = ""  # keyed, counted, passing, deleter; empty: as it comes
    quiet: float = 0.0
    pace: float = 1.0  # how slowly agents speak
    offers_lost: float = 0.05  # of the provider's offers, how many get no answer
    keeps: bool = False  # sandboxes are never idle for long enough to be drained
    chatty: bool = False  # raw calls come often
    fresh: bool = False  # every user has a session of its own, which nobody named before


PLAIN = Story("plain")
Uniform = Callable[[float, float], float]


def stories(rng: random.Random, *, lossy: bool) -> tuple[Story, ...]:
    """The stories of one kind of schedules, with numbers drawn from `rng`."""
    u = rng.uniform
    return _with_losses(u, rng) if lossy else _without(u, rng)


def _without(u: Uniform, rng: random.Random) -> tuple[Story, ...]:
    late = Trap("append", "before", "pause", u(11.2, 16.5), "sandbox", rng.randrange(4, 10))
    cancelled = Trap("append", "before", "pause", u(11.5, 17.0), "cancel", rng.randrange(1, 8))
    decided = Trap("decide", "before", "pause", u(11.5, 19.0), "sandbox")
    flagged = Trap(rng.choice(("decide", "begin")), "before", "pause", u(1.0, 6.0), "cancel")
    started = Trap("shim start", "before", "pause", u(11.2, 16.5), "")
    draining = tuple(Trap("drain", "before", "slow", u(0.3, 4.0)) for _ in range(8))
    queued = tuple(Trap("accept", "after", "late", u(0.5, 4.5), "", n) for n in (1, 1, 1))
    return (
        Story("a write of a former owner comes late", (late,), says="rechunked", users="keyed", quiet=30.0),
        Story("a cancelled turn's former owner comes back", (cancelled,), sessions=1, users="keyed", queue=4, quiet=40.0, pace=4.0),
        Story("an end is decided twice", (decided,), says="other", users="keyed", quiet=30.0),
        Story("a cancel comes just before the end", (flagged,), users="keyed", quiet=20.0),
        Story("a start comes late", (started,), users="keyed", quiet=30.0),
        Story("an acceptance is answered late", queued, sessions=1, users="keyed", queue=4, quiet=20.0),
        Story("who drains dies", (Trap("drain", "after", "kill"),), sessions=1, users="keyed", drains=True, quiet=40.0),
        Story("a busy answer comes late", (Trap("undrain", "before", "pause", u(7.0, 20.0)),), sessions=1, drains=True, users="keyed", quiet=40.0, chatty=True),
        Story("a hibernation comes late", (Trap("hibernated", "before", "pause", u(7.0, 16.0)),), sessions=1, users="keyed", drains=True, quiet=40.0),
        Story("sessions are deleted", users="deleter"),
        Story("a drain comes late", draining, sessions=1, users="keyed", drains=True, quiet=40.0),
        Story("offers are not answered", users="keyed", offers_lost=0.5),
        Story("readers leave", users="passing", quiet=10.0),
        Story("answers break", users="counted"),
    )  # fmt: skip


def _with_losses(u: Uniform, rng: random.Random) -> tuple[Story, ...]:
    acceptor = Trap("accept", "after", "kill")
    answered = Trap("answered", "after", "kill", 0.0, "flush")
    stale = Trap("append", "before", "pause", u(20.0, 30.0), "", rng.randrange(1, 6))
    taken = Trap("acquire", "after", "none", 0.0, "flush later")
    gone = Trap("append", "before", "pause", u(42.0, 55.0), "flush", rng.randrange(1, 8))
    short = Trap("append", "before", "pause", u(2.0, 5.9), "flush", rng.randrange(1, 8))
    ended = Trap("append", "before", "pause", u(22.0, 30.0), "", rng.randrange(1, 6))
    closed = Trap("close", "after", "none", 0.0, "flush")
    shown = Trap("close", "before", "kill", 0.0, "flush", rng.randrange(3))
    cut = Trap("close", "after", "none", 0.0, "cut and flush", rng.randrange(2))
    claims = (
        Trap("claim", "before", "none", 0.0, "keep"),
        Trap("begin", "after", "none", 0.0, "back later", rng.randrange(2)),
    )
    death = (
        Trap("append", "before", "none", 0.0, "keep", 1),
        Trap("append", "after", "none", 0.0, "sandbox", 1),
        Trap("append", "after", "none", 0.0, "back later", rng.randrange(1, 4)),
    )
    decided = (
        Trap("decide", "before", "none", 0.0, "keep"),
        Trap("decide", "after", "pause", u(25.0, 40.0), "back later"),
        Trap("acquire", "after", "none", 0.0, "sandbox"),
    )
    return (
        Story("the acceptor dies, and who joins is told", (acceptor, answered), users="keyed", quiet=5.0),
        Story("a former owner restores", (stale, taken), users="keyed", quiet=40.0, pace=4.0),
        Story("given up, its owner comes back", (gone,), users="keyed", quiet=60.0),
        Story("an owner is slow to restore", (short,), users="keyed", quiet=20.0),
        Story("ended, stored, lost, and a former owner comes back", (ended, closed), users="keyed", quiet=35.0),
        Story("stored, and its owner dies before it shows the end", (shown,), users="keyed", quiet=40.0),
        Story("cut off during a loss", (cut,), sessions=1, users="keyed", drains=True, quiet=45.0, keeps=True),
        Story("rolled back over claims", claims, users="keyed", quiet=20.0, fresh=True),
        Story("rolled back over a death", death, users="keyed", quiet=40.0, pace=4.0),
        Story("rolled back over a decision", decided, says="other", users="keyed", quiet=50.0),
    )


def rare(rng: random.Random) -> tuple[Story, ...]:
    """What chance hardly ever tells: only where a schedule asks for it by name."""
    u = rng.uniform
    away = Trap("append", "before", "pause", u(2.0, 5.9), "flush", rng.randrange(1, 4))
    shown = (
        Trap("append", "before", "none", 0.0, "keep", rng.randrange(1, 4)),
        Trap("append", "before", "none", 0.0, "cancel", rng.randrange(1, 3)),
        Trap("delivered", "after", "kill", 0.0, "all die and back"),
    )
    return (
        Story("deleted while its owner is away", (away,), sessions=1, users="deleter", quiet=25.0),
        Story("shown, and rolled back while nobody lives", shown, says="other", sessions=1, users="keyed", quiet=40.0),
    )


class Traps:
    """The traps that are set; at most a few at a time, so that a schedule still gets somewhere."""

    def __init__(self, rng: random.Random, story: Story, *, flush: bool, more: tuple[str, ...] = ()) -> None:
        self._rng = rng
        self._flush = flush
        self._points = (*POINTS, *more, *more)
        self._set: list[Trap] = list(story.traps)
        self.sprung = 0

    def arm(self) -> None:
        """Sets one at random."""
        if len(self._set) >= 3:
            self._set.pop(0)
        rng = self._rng
        action = rng.choice(("pause", "pause", "pause", "kill", "lose", "late", "slow"))
        also = rng.choice(ALSO)
        if also == "flush" and not self._flush:
            also = "sandbox"
        seconds = rng.choice((rng.uniform(1.0, 8.0), rng.uniform(11.0, 25.0), rng.uniform(11.0, 25.0)))
        if self._flush and rng.random() < 0.15:
            seconds = rng.uniform(40.0, 60.0)  # longer than it takes to give a lost turn up
        trap = Trap(rng.choice(self._points), rng.choice(("before", "after")), action, seconds, also)
        if trap.point == "append":
            trap.skip = rng.randrange(8)
        if trap.point == "answered":
            trap.side, trap.action, trap.also = "after", "kill", "flush" if self._flush else ""
        self._set.append(trap)

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
