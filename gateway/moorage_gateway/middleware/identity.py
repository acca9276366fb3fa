"""Identifies the caller of everything but the open paths. Plain ASGI.

Stands after the crowd limit (a look-up may cost I/O) and before all that depends on who calls. Routes and the control API find the
principal in the request's facts and in `scope["state"]["principal"]`; nothing below looks at a credential again.
"""

from __future__ import annotations

from typing import Any, Protocol

from moorage_gateway import facts
from moorage_gateway.auth import Principal
from moorage_gateway.server import Asgi


class Door(Protocol):
    """Who is behind these headers; raises ApiError when nobody we know."""

    async def identify(self, headers: list[tuple[bytes, bytes]], peer: str | None) -> Principal:
        """The principal."""


class Identity:
    """See the module. `open_paths` are served to anybody."""

    def __init__(self, app: Asgi, door: Door, open_paths: frozenset[str]) -> None:
        self._app = app
        self._door = door
        self._open = open_paths

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serves one request, or raises ApiError."""
        if scope["path"] not in self._open:
            client = scope.get("client")
            caller = await self._door.identify(scope["headers"], client[0] if client else None)
            facts.of(scope).caller = caller
            scope.setdefault("state", {})["principal"] = caller
        await self._app(scope, receive, send)
