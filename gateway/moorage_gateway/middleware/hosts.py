"""Refuses requests whose Host names another site: a web page must not reach a loopback gateway under its own name. Plain ASGI.

Stands before identification, so that a rebound name learns nothing. Syntax and count of Host are checked by the listener.
"""

from __future__ import annotations

from typing import Any

from moorage_api.errors import ApiError, Kind
from moorage_gateway import inbound
from moorage_gateway.server import Asgi


class Hosts:
    """`allowed` holds lower-case names without ports; None lets any pass."""

    def __init__(self, app: Asgi, allowed: frozenset[str] | None) -> None:
        self._app = app
        self._allowed = None if allowed is None else frozenset(name.encode() for name in allowed)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serves one request, or raises ApiError."""
        if self._allowed is not None:
            host = inbound.find(scope["headers"], b"host")
            if host is not None and host.lower() not in self._allowed and _name(host) not in self._allowed:
                raise ApiError(
                    Kind.INVALID_REQUEST, "This gateway does not serve the named host; see MOORAGE_HOSTS.", param="Host"
                )
        await self._app(scope, receive, send)


def _name(host: bytes) -> bytes:
    """The host without its port, lower case; brackets of an IPv6 address stay."""
    host = host.lower()
    if host.startswith(b"["):
        return host[: host.find(b"]") + 1]
    return host.partition(b":")[0]
