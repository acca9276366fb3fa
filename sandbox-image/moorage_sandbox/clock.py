"""Time as an argument. Layer: the floor of this package; tests pass a clock they move by hand."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """The two times a shim needs."""

    def now(self) -> float:
        """Seconds that only go forward: for every span and deadline."""
        ...

    def wall_ms(self) -> int:
        """Epoch milliseconds: only for what is compared with other machines' records."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        """See Clock."""
        return time.monotonic()

    def wall_ms(self) -> int:
        """See Clock."""
        return time.time_ns() // 1_000_000
