"""How fast this machine is just now, against the one the gates were set on: CPU gates are judged at that one's speed.

A shared machine takes between one and nearly two times the CPU for the same work from one minute to the next (docs/benchmarks.md), so
that a gate on bare milliseconds says more about the neighbours than about us. A fixed piece of work in the same interpreter is measured in
the same repetition, and stands beside the figure.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator

from bench import figures

REFERENCE_MS = 21.0
"""CPU of `fixed_work` on the 2-core machine of performance.md with Python 3.11 when it did nothing else (2026-11-26, median of nine)."""
SAMPLES = 5
EVERY_SECONDS = 0.5
_TEXT = json.dumps({str(number): [number] * 10 for number in range(100)})


def fixed_work() -> None:
    """Something of what a gateway does: JSON in and out."""
    for _ in range(100):
        json.dumps(json.loads(_TEXT))


def samples(count: int = SAMPLES, clock: Callable[[], float] = time.thread_time) -> list[float]:
    """CPU milliseconds of the fixed work, some times."""
    found = []
    for _ in range(count):
        began = clock()
        fixed_work()
        found.append((clock() - began) * 1000)
    return found


def now() -> float:
    """How many times the reference's CPU this machine takes for the same work."""
    return figures.median(samples()) / REFERENCE_MS


@contextlib.contextmanager
def watched() -> Iterator[Callable[[], float]]:
    """Looks at the pace now and then while the body runs, in a thread; what it gives tells `now()` of that time, once the body is over."""
    seen: list[float] = []
    over = threading.Event()

    def look() -> None:
        while True:
            seen.append(samples(2)[-1])  # the first one finds cold caches
            if over.wait(EVERY_SECONDS):
                return

    thread = threading.Thread(target=look, name="pace")
    thread.start()
    try:
        yield lambda: figures.median(seen) / REFERENCE_MS
    finally:
        over.set()
        thread.join()
