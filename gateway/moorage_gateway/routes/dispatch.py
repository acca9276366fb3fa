"""Sends a request to the data path or the control API. Raw ASGI. Layer: gateway, rim; the innermost of the public layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from moorage_gateway import facts, inbound
from moorage_gateway.inbound import Operation, Rejection, Route
from moorage_gateway.routes import answers, consent_pages, health
from moorage_gateway.routes.health import Health
from moorage_gateway.routes.invocations import Invocations
from moorage_gateway.routes.responses import Responses
from moorage_gateway.server import Asgi


@dataclass(frozen=True)
class Open:
    """What is served to anybody: probes, and the pages on which users consent."""

    probes: Health
    consents: Asgi


class Dispatch:
    """Decides on the decoded path alone, the one the identity was checked for."""

    def __init__(self, responses: Responses, invocations: Invocations, control: Asgi, open: Open) -> None:
        self._responses = responses
        self._invocations = invocations
        self._control = control
        self._open = open

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serves one request. Raises ApiError for refusals."""
        path = scope["path"]
        found = inbound.classify(scope["method"], path, scope["query_string"], scope["headers"])
        if isinstance(found, Route):
            facts.of(scope).operation = found.operation.value
            serve = self._invocations if found.operation is Operation.INVOKE else self._responses
            await serve(found, scope, receive, send)
        elif isinstance(found, Rejection):
            if not found.allow:
                raise found.error()
            facts.of(scope).error = found.kind.value
            await answers.send_error(send, found.error(), [(b"allow", ", ".join(found.allow).encode())])
        elif path in health.PATHS:
            await self._open.probes(scope, receive, send)
        elif path in consent_pages.PATHS:
            facts.of(scope).operation = "consent"
            await self._open.consents(scope, receive, send)
        else:
            await self._control(scope, receive, send)
