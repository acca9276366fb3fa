"""How many calls one upstream gets at a time, and when it is left alone. Layer: state of one process, no I/O; `now` in monotonic s."""

from __future__ import annotations

import asyncio

from moorage_api.kinds import quantities
from moorage_gateway.tools.names import Upstream


class Gate:
    """One upstream's. After `failures` in a row it is closed for `pause` seconds; the first call after that is a trial."""

    def __init__(self, concurrency: int, failures: int, pause: float) -> None:
        self.rules = (concurrency, failures, pause)
        self.failures = 0
        self.places = asyncio.Semaphore(concurrency)
        self._most = failures
        self._pause = pause
        self._until: float | None = None

    def closed(self, now: float) -> float:
        """Seconds for which it is left alone, 0 where it may be called: while a trial runs, others wait on."""
        if self._until is None:
            return 0.0
        if now < self._until:
            return self._until - now
        self._until = now + self._pause
        return 0.0

    def good(self) -> None:
        """It answered."""
        self.failures, self._until = 0, None

    def bad(self, now: float) -> None:
        """It did not."""
        self.failures += 1
        if self.failures >= self._most:
            self._until = now + self._pause


class Gates:
    """Those of every upstream that was called; new ones where the manifest says other numbers."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], Gate] = {}

    def of(self, toolbox: str, upstream: Upstream, breaker: dict[str, object]) -> Gate:
        """`toolbox` is the entry's field."""
        rules = (
            int(upstream.spec["concurrency"]),
            int(str(breaker["failures"])),
            quantities.seconds(str(breaker["pause"])),
        )
        known = self._known.get((toolbox, upstream.name))
        if known is None or known.rules != rules:
            known = self._known[toolbox, upstream.name] = Gate(*rules)
        return known
