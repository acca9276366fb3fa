"""What telemetry sees of attempts: the engine's Observer over `telemetry.py`. Layer: gateway, rim; `core.py` hands it to the engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from moorage_api.wire import headers
from moorage_gateway import telemetry
from moorage_gateway.turns.held import Held
from moorage_gateway.turns.steps import Attempted


class SpanObserver:
    """One `invoke_agent` CLIENT span an attempt, below the request that began the turn, in any gateway."""

    def __init__(self, traces: telemetry.Telemetry) -> None:
        self._traces = traces

    @contextmanager
    def attempt(self, held: Held, number: int) -> Iterator[Attempted]:
        """The span of attempt `number`; its context is what the agent gets as traceparent."""
        meta = held.record.meta
        span = self._traces.invoke_agent(
            dict(meta.get("headers") or {}).get(headers.TRACEPARENT),
            trace_id=str(meta["trace_id"]),
            agent=str(meta["agent"]),
            attributes={
                telemetry.AGENT_VERSION: str(meta["revision"]),
                telemetry.CONVERSATION: str(meta["session_id"]),
                telemetry.RESPONSE_ID: held.response,
                telemetry.TENANT: str(meta["tenant"]),
                telemetry.ATTEMPT: number,
            },
        )
        seen = Attempted(traceparent=span.traceparent)
        error: str | None = "interrupted"
        try:
            yield seen
            error = seen.fault or (seen.outcome if seen.outcome in ("failed", "cancelled") else None)
        finally:
            span.end(error=error)
