"""The border between what store and Redis fail with and the one answer a caller can act on. Layer: gateway."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from moorage_api.errors import ApiError, Kind
from moorage_api.ledger.script import LedgerError
from moorage_gateway.store import StoreUnavailable


@contextlib.contextmanager
def unavailable(what: str) -> Iterator[None]:
    """Turns an unreachable store or ledger, or a passed deadline, into UNAVAILABLE: "`what` right now: try again"."""
    try:
        yield
    except (StoreUnavailable, LedgerError, TimeoutError) as error:
        raise ApiError(Kind.UNAVAILABLE, f"{what} right now: try again in a moment.", retry_after=1) from error
