"""What telemetry sees of attempts and calls: the engine's and the journal's Observers over `telemetry.py`. Layer: gateway, rim.

Spans of calls are made from what the journal's entry says of them, made now or recorded before (`moorage.replayed`): names and counts,
never what was asked or answered. A further kind of call is one row of `SHAPES`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from moorage_api.wire import headers
from moorage_gateway import telemetry
from moorage_gateway.journal.seeing import Ended, Observer
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


_PROVIDERS = {"azure": "azure.ai.openai", "compatible": "openai"}
_OPERATIONS = {
    "chat/completions": telemetry.CHAT,
    "responses": telemetry.CHAT,
    "messages": telemetry.CHAT,
    "embeddings": telemetry.EMBEDDINGS,
    "completions": telemetry.TEXT_COMPLETION,
    "complete": telemetry.TEXT_COMPLETION,
}


def _model(what: dict[str, str]) -> telemetry.CallShape | None:
    """A request to a model; lists and counts of tokens are none."""
    path = what.get("path", "")
    operation = next((name for tail, name in _OPERATIONS.items() if path == tail or path.endswith(f"/{tail}")), None)
    if operation is None:
        return None
    protocol, model = what.get("protocol", ""), what.get("model", "")
    attributes = {
        telemetry.OPERATION: operation,
        telemetry.PROVIDER: _PROVIDERS.get(protocol, protocol),
        telemetry.REQUEST_MODEL: model,
        telemetry.RESPONSE_MODEL: what.get("answered_model"),
        telemetry.RESPONSE_ID: what.get("answer_id"),
        telemetry.FINISH_REASONS: what["finish"].split(",") if what.get("finish") else None,
        telemetry.INPUT_TOKENS: _count(what.get("input_tokens")),
        telemetry.OUTPUT_TOKENS: _count(what.get("output_tokens")),
        telemetry.CACHED_TOKENS: _count(what.get("cached_tokens")),
        telemetry.ENDPOINT: what.get("endpoint"),
        telemetry.ANSWERED_BY: what.get("answered_by"),
    }
    return telemetry.CallShape(f"{operation} {model}".rstrip(), True, attributes)


def _tool(what: dict[str, str]) -> telemetry.CallShape | None:
    name = what.get("tool", "")
    attributes = {
        telemetry.OPERATION: telemetry.EXECUTE_TOOL,
        telemetry.TOOL_NAME: name,
        telemetry.TOOL_CALL_ID: what.get("call_id"),
        telemetry.TOOLBOX: what.get("toolbox"),
    }
    return telemetry.CallShape(f"{telemetry.EXECUTE_TOOL} {name}", False, attributes) if name else None


def _step(what: dict[str, str]) -> telemetry.CallShape | None:
    """An effect of the agent's own (`moorage.step`), a framework's function tool too."""
    name = what.get("name", "")
    attributes = {
        telemetry.STEP_NAME: name,
        telemetry.STATUS: None,  # no request that somebody answered
        telemetry.CARRIED: True if "carried" in what else None,
    }
    return telemetry.CallShape(f"{telemetry.STEP} {name}", False, attributes) if name else None


SHAPES: dict[str, Callable[[dict[str, str]], telemetry.CallShape | None]] = {
    "model": _model,
    "tool": _tool,
    "step": _step,
}
"""By the `kind` of an entry."""


class CallSpans:
    """One span a call, below the attempt, or below the span of the agent's own client that is below it."""

    def __init__(self, traces: telemetry.Telemetry) -> None:
        self._traces = traces

    def ended(self, call: Ended) -> None:
        """See Observer."""
        shape = SHAPES.get(call.what.get("kind", ""), _none)(call.what)
        if shape is None or not call.traceparent:
            return
        common = {
            telemetry.TENANT: call.binding.tenant,
            telemetry.AGENT_NAME: call.binding.agent,
            telemetry.TURN: call.asking.response or None,
            telemetry.ENTRY: call.entry or None,
            telemetry.STATUS: call.status or None,
        }
        found = {name: value for name, value in {**common, **shape.attributes}.items() if value is not None}
        shape = telemetry.CallShape(shape.name, shape.remote, {**found, telemetry.REPLAYED: call.replayed})
        error = call.fault or (str(call.status) if call.status >= 400 else None)
        self._traces.call(call.traceparent, shape, began=call.began, ended=call.ended, error=error)


class Observers:
    """Several that look at the same calls."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = tuple(observers)

    def ended(self, call: Ended) -> None:
        """See Observer."""
        for each in self._observers:
            each.ended(call)


def _none(_: dict[str, str]) -> None:
    return None


def _count(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None
