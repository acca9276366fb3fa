"""How much one session may do past the proxy: requests a minute, bytes an hour each way, connections at a time. Pure; `now` is given.

Counted by session and gateway: a sandbox that is replaced goes on with what its session has left.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Literal

MINUTE, HOUR = 60.0, 3600.0
KEPT = 10_000
"""Sessions that are remembered; of those without a connection the one that asked longest ago is forgotten first."""
TOLD = 32
"""Refusals of a session that are recorded in an hour; all are counted."""

Way = Literal["sent", "received"]


@dataclass(frozen=True)
class Bounds:
    """Of each session. `sent` and `received` in bytes an hour."""

    connections: int = 128
    requests: int = 600
    sent: int = 1 << 30
    received: int = 16 << 30


@dataclass
class Account:
    """What one session has used. Times in seconds that only go forward."""

    open: int = 0
    minute: float = 0.0
    asked: int = 0
    hour: float = 0.0
    bytes: dict[Way, int] = field(default_factory=lambda: {"sent": 0, "received": 0})
    told: set[str] = field(default_factory=set)

    def turned(self, now: float) -> None:
        """Begins a new minute, a new hour, where one is over."""
        if now - self.minute >= MINUTE:
            self.minute, self.asked = now, 0
        if now - self.hour >= HOUR:
            self.hour, self.bytes, self.told = now, {"sent": 0, "received": 0}, set()


@dataclass(frozen=True)
class Spent:
    """A bound that is reached: what to say, and seconds until there is more; None where that is not a matter of time."""

    message: str
    wait: float | None


class Budgets:
    """The accounts of this gateway's sessions."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self._accounts: OrderedDict[str, Account] = OrderedDict()

    def account(self, whose: str, now: float) -> Account:
        """The account of a session, brought up to date."""
        found = self._accounts.pop(whose, None) or Account(minute=now, hour=now)
        self._accounts[whose] = found
        found.turned(now)
        if len(self._accounts) > KEPT:
            idle = next((name for name, each in self._accounts.items() if not each.open and each is not found), None)
            if idle is not None:
                del self._accounts[idle]
        return found

    def open(self, account: Account) -> Spent | None:
        """One more connection; None: it is counted, and to be given back by `close`."""
        if account.open >= self.bounds.connections:
            most = self.bounds.connections
            return Spent(
                f"this session has {most} connections open (MOORAGE_EGRESS_CONNECTIONS): close some first", None
            )
        account.open += 1
        return None

    def close(self, account: Account) -> None:
        """Gives a connection back."""
        account.open -= 1

    def ask(self, account: Account, now: float) -> Spent | None:
        """One more request; None: it may be made. Each may look up a name, and names carry data out, too."""
        account.turned(now)
        for way in account.bytes:
            if account.bytes[way] >= self._most(way):
                return self.spent(account, way, now)
        if account.asked >= self.bounds.requests:
            text = f"this session has made {self.bounds.requests} requests in a minute (MOORAGE_EGRESS_REQUESTS): wait"
            return Spent(text, max(1.0, account.minute + MINUTE - now))
        account.asked += 1
        return None

    def move(self, account: Account, way: Way, count: int, now: float) -> bool:
        """So many bytes more; False: they are too many, and may not pass."""
        account.turned(now)
        if account.bytes[way] + count > self._most(way):
            account.bytes[way] = self._most(way)
            return False
        account.bytes[way] += count
        return True

    def spent(self, account: Account, way: Way, now: float) -> Spent:
        """What is said of an hour whose bytes are used up."""
        text = f"this session has {way} all the {self._most(way)} bytes that it may in an hour (MOORAGE_EGRESS_{way.upper()})"
        return Spent(text, max(1.0, account.hour + HOUR - now))

    def tell(self, account: Account, what: str) -> bool:
        """Whether this refusal is one that is recorded: the first of its kind in the hour, and not too many kinds."""
        if what in account.told or len(account.told) >= TOLD:
            return False
        account.told.add(what)
        return True

    def _most(self, way: Way) -> int:
        return self.bounds.sent if way == "sent" else self.bounds.received
