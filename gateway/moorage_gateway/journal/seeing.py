"""What others see of calls: traces, counters. Layer: shapes; `core.py` says who looks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from moorage_api.ledger.journal import Asking, Binding
from moorage_gateway.clock import Clock
from moorage_gateway.journal.kinds import Handed, Performed


@dataclass(frozen=True)
class Call:
    """One call as it was asked for. `traceparent`: what it says it is below, or nothing."""

    binding: Binding
    asking: Asking
    prepared: Performed | Handed
    traceparent: str = ""


@dataclass(frozen=True)
class Began:
    """When a call was asked for: by the wall, and by a clock that only goes forward."""

    ns: int
    monotonic: float

    @classmethod
    def at(cls, clock: Clock) -> Began:
        """Now."""
        return cls(clock.now_ms() * 1_000_000, clock.monotonic())

    @classmethod
    def since(cls, ms: int, clock: Clock) -> Began:
        """At a time by the wall; now, where that has not come yet by this clock."""
        now = clock.now_ms()
        return cls(min(ms, now) * 1_000_000, clock.monotonic() - max(0, now - ms) / 1000)

    def ended(self, clock: Clock) -> int:
        """Now, in ns of the epoch and never before the beginning."""
        return self.ns + round((clock.monotonic() - self.monotonic) * 1e9)


@dataclass(frozen=True)
class Ended:
    """One call that has ended, as its entry tells it. Times in ns of the epoch.

    `status`: of the answer, 0 where none came. `fault`: a word, where something went wrong. `traceparent`: what the agent's client, or its
    shim, said it is below; may be empty.
    """

    binding: Binding
    asking: Asking
    entry: str
    what: dict[str, str]
    status: int
    fault: str
    replayed: bool
    began: int
    ended: int
    traceparent: str


class Observer(Protocol):
    """Looks at calls as they end; must not raise, wait or keep."""

    def ended(self, call: Ended) -> None:
        """One did."""


class Telling:
    """Tells an observer of calls that have ended."""

    def __init__(self, observer: Observer, clock: Clock) -> None:
        self._observer = observer
        self._clock = clock

    def __call__(
        self, call: Call, began: Began, entry: str, *, status: int,
        what: dict[str, str] | None = None, fault: str = "", replayed: bool = False,
    ) -> None:  # fmt: skip
        """`what`: what is known of it beyond what was asked."""
        told, ended = call.asking.what | (what or {}), began.ended(self._clock)
        self._observer.ended(
            Ended(call.binding, call.asking, entry, told, status, fault, replayed, began.ns, ended, call.traceparent)
        )

    def of(
        self, binding: Binding, asking: Asking, began: Began, entry: str, what: dict[str, str], traceparent: str,
        *, fault: str = "",
    ) -> None:  # fmt: skip
        """Of one that its attempt made by itself and has reported."""
        ended = began.ended(self._clock)
        self._observer.ended(Ended(binding, asking, entry, what, 0, fault, False, began.ns, ended, traceparent))
