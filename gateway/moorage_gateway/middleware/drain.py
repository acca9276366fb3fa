"""Refuses new work once this gateway stops, early and with Retry-After. Plain ASGI.

Stands before anything that takes resources. `Draining` is the one switch: readiness reads `notified`, this layer `closed`.
"""

from __future__ import annotations

from typing import Any

from moorage_api.errors import ApiError, Kind
from moorage_gateway.server import Asgi


class Draining:
    """Two steps: first readiness fails and everything is still served, then new requests are refused."""

    def __init__(self) -> None:
        self.notified = False
        self.closed = False

    def notify(self) -> None:
        """Readiness fails from now."""
        self.notified = True

    def close(self) -> None:
        """New requests are refused from now."""
        self.notified = self.closed = True


class Drain:
    """See the module."""

    def __init__(self, app: Asgi, draining: Draining) -> None:
        self._app = app
        self._draining = draining

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serves one request, or raises ApiError."""
        if self._draining.closed and scope["type"] == "http":
            raise ApiError(Kind.DRAINING, "This gateway is stopping; try again.", retry_after=1)
        await self._app(scope, receive, send)
