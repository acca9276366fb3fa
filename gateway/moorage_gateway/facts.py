"""What is known of one request while it is served: one object in the ASGI scope, filled by the layers, read by the access line.

Layer: floor of the gateway; no I/O. `middleware/access.py` makes it; everything below it takes it from the scope.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from moorage_gateway.auth import Principal

KEY = "moorage.facts"


@dataclass(slots=True)
class Facts:
    """`traceparent` names this request's own span; ids are of the callers' or made here. Empty means not known (yet)."""

    request_id: str
    trace_id: str
    traceparent: str
    caller: Principal | None = None
    operation: str = ""
    agent: str = ""
    session_id: str = ""
    response_id: str = ""
    error: str = ""

    @property
    def principal(self) -> Principal:
        """The verified caller; only below `middleware/identity.py`."""
        if self.caller is None:
            raise RuntimeError("a data route was reached without a caller")
        return self.caller


def of(scope: Any) -> Facts:
    """The facts of this request."""
    found = scope[KEY]
    assert isinstance(found, Facts)
    return found
