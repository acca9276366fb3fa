"""Sends a request to the data path or the control API. Raw ASGI. Layer: gateway, rim; the innermost of the public layers."""

from __future__ import annotations

from typing import Any

from moorage_gateway import facts, inbound
from moorage_gateway.inbound import Operation, Rejection, Route
from moorage_gateway.routes import answers, health
from moorage_gateway.routes.health import Health
from moorage_gateway.routes.invocations import Invocations
from moorage_gateway.routes.responses import Responses
from moorage_gateway.server import Asgi


class Dispatch:
    """Decides on the decoded path alone, the one the identity was checked for."""

    def __init__(self, responses: Responses, invocations: Invocations, control: Asgi, probes: Health) -> None:
        self._responses = responses
        self._invocations = invocations
        self._control = control
        self._probes = probes

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serves one request. Raises ApiError for refusals."""
        path = scope["path"]
        match inbound.classify(scope["method"], path, scope["query_string"], scope["headers"]):
            case Rejection(allow=allow) as rejection if allow:
                facts.of(scope).error = rejection.kind.value
                await answers.send_error(send, rejection.error(), [(b"allow", ", ".join(allow).encode())])
            case Rejection() as rejection:
                raise rejection.error()
            case Route(operation=Operation.INVOKE) as route:
                facts.of(scope).operation = route.operation.value
                await self._invocations(route, scope, receive, send)
            case Route() as route:
                facts.of(scope).operation = route.operation.value
                await self._responses(route, scope, receive, send)
            case None if path in health.PATHS:
                await self._probes(scope, receive, send)
            case None:
                await self._control(scope, receive, send)
