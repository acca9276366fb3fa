"""How often a serving process looks for reference cycles. Layer: the floor; stdlib only.

Called by the outermost frame, once everything serves.

A turn makes some thousands of small objects and few cycles. With CPython's default (a young collection every 700 objects) a fifth of
the gateway's CPU went into collections that found nothing (docs/benchmarks.md); what was made at start need not be looked at again.
"""

from __future__ import annotations

import gc

YOUNG = 20_000  # objects before a young collection: a few MB at most
MIDDLE, OLD = 20, 20


def settle() -> None:
    """Collects once, sets aside what the process made to start, and collects less often from here."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, OLD)
