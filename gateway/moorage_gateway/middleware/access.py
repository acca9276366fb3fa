"""The outermost layer: names each request, opens its trace, writes its access line. Plain ASGI.

Stands outside all others, so that every answer of theirs, refusals too, carries the ids and is counted.
"""

from __future__ import annotations

import re
import time
from typing import Any

import orjson

from moorage_api.wire import headers as wire
from moorage_gateway import facts, telemetry
from moorage_gateway.access_log import AccessLog
from moorage_gateway.metrics import Metrics
from moorage_gateway.routes import answers
from moorage_gateway.server import Asgi

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}\Z")
_ID, _TRACE, _PARENT = wire.REQUEST_ID.encode(), wire.TRACE_ID.encode(), wire.TRACEPARENT.encode()
LEFT = 499  # in the log only: the caller went before the answer began


class Access:
    """See the module. `wall` gives epoch seconds for the line."""

    def __init__(self, app: Asgi, log: AccessLog, traces: telemetry.Telemetry, metrics: Metrics) -> None:
        self._app = app
        self._log = log
        self._traces = traces
        self._metrics = metrics

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serves one request and accounts for it, however it ends."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        given = parent = None
        for name, value in scope["headers"]:
            if name == _ID:
                given = value
            elif name == _PARENT:
                parent = value
        root = self._traces.request(parent, scope["method"])
        ids = root.ids
        request_id = given.decode() if given is not None and _REQUEST_ID.match(given) else ids.trace_id
        known = facts.Facts(request_id, ids.trace_id, ids.traceparent)
        scope[facts.KEY] = known
        added = [(_ID, request_id.encode()), (_TRACE, ids.trace_id.encode())]
        status, size = 0, 0
        exchange = answers.exchange_of(scope)

        async def counted(message: Any) -> None:
            nonlocal status, size
            if message["type"] == "http.response.body":
                size += len(message.get("body", b""))
            else:
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", ()), *added]}
            await send(message)

        self._metrics.in_flight += 1
        try:
            await self._app(scope, receive, counted)
        finally:
            self._metrics.in_flight -= 1
            seconds = time.perf_counter() - began
            if not answers.still_here(scope):
                known.error = known.error or "caller_left"
            sent = size if exchange is None else exchange.sent_bytes
            self._account(scope, known, root, status or LEFT, sent, seconds)

    def _account(
        self, scope: Any, known: facts.Facts, root: telemetry.RequestTrace, status: int, size: int, seconds: float
    ) -> None:
        operation = known.operation or "control"
        self._metrics.answered(operation, status, seconds)
        caller = known.caller
        line = {
            "time": time.time(),
            "log": "access",
            "method": scope["method"],
            "path": scope["path"][:512],
            "operation": operation,
            "status": status,
            "us": int(seconds * 1_000_000),
            "bytes": size,
            "tenant": caller.tenant if caller else "",
            "user": caller.user if caller else "",
            "key": caller.key_id if caller else "",
            "agent": known.agent,
            "session": known.session_id,
            "response": known.response_id,
            "error": known.error,
            "request_id": known.request_id,
            "trace_id": known.trace_id,
        }
        self._log.add(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
        if root.span is not None:
            route = telemetry.ROUTES.get(operation, operation)
            root.end(
                f"{scope['method']} {route}",
                status,
                {
                    telemetry.ROUTE: route,
                    telemetry.TENANT: line["tenant"],
                    telemetry.AGENT_NAME: known.agent,
                    telemetry.SESSION: known.session_id,
                    telemetry.RESPONSE_ID: known.response_id,
                    telemetry.REQUEST: known.request_id,
                },
            )
