"""Traces: every name in one place, spans made only where they are exported. Layer: gateway, I/O rim.

Names follow the GenAI conventions (protocols.md §8); content is never captured. The trace id of a request is stored with its
turn, so attempts and takeovers by other gateways go on in one trace. Export is OTLP/HTTP from a thread with a bounded queue:
a collector that is slow or gone costs spans, never a request.

    SERVER  `POST /v1/agents/{agent}/responses`   one a request      (RequestTrace)
      └─ CLIENT  `invoke_agent NAME`              one an attempt     (Telemetry.invoke_agent)
           └─ `chat MODEL`, `execute_tool TOOL`, `step NAME`   one a call   (Telemetry.call; which is what: `observing.py`)
"""

from __future__ import annotations

import random
import re
import threading
from collections import deque
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags

SERVICE = "moorage-gateway"
OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
AGENT_NAME = "gen_ai.agent.name"
AGENT_VERSION = "gen_ai.agent.version"
CONVERSATION = "gen_ai.conversation.id"
RESPONSE_ID = "gen_ai.response.id"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
CACHED_TOKENS = "gen_ai.usage.cache_read.input_tokens"
REQUEST_MODEL = "gen_ai.request.model"
RESPONSE_MODEL = "gen_ai.response.model"
FINISH_REASONS = "gen_ai.response.finish_reasons"
TOOL_NAME = "gen_ai.tool.name"
TOOL_CALL_ID = "gen_ai.tool.call.id"
ERROR_TYPE = "error.type"
METHOD = "http.request.method"
ROUTE = "http.route"
STATUS = "http.response.status_code"
TENANT = "moorage.tenant"
SESSION = "moorage.session.id"
REQUEST = "moorage.request.id"
ATTEMPT = "moorage.attempt"
EPOCH = "moorage.epoch"
TURN = "moorage.turn"
ENTRY = "moorage.entry"
REPLAYED = "moorage.replayed"
CARRIED = "moorage.carried"
ENDPOINT = "moorage.endpoint"
ANSWERED_BY = "moorage.answered_by"
TOOLBOX = "moorage.toolbox"
STEP_NAME = "moorage.step"

INVOKE_AGENT = "invoke_agent"
EXECUTE_TOOL = "execute_tool"
STEP = "step"
CHAT = "chat"
EMBEDDINGS = "embeddings"
TEXT_COMPLETION = "text_completion"
BATCH = 256
EXPORT_SECONDS = 1.0
SHUTDOWN_SECONDS = 3.0

# The address of a request as its template, by operation; the control API is one operation.
ROUTES = {
    "create": "/v1/agents/{agent}/responses",
    "retrieve": "/v1/agents/{agent}/responses/{response_id}",
    "stream": "/v1/agents/{agent}/responses/{response_id}",
    "delete": "/v1/agents/{agent}/responses/{response_id}",
    "cancel": "/v1/agents/{agent}/responses/{response_id}/cancel",
    "input_items": "/v1/agents/{agent}/responses/{response_id}/input_items",
    "record": "/v1/agents/{agent}/responses/{response_id}/record",
    "journal": "/v1/agents/{agent}/responses/{response_id}/journal",
    "feedback": "/v1/agents/{agent}/responses/{response_id}/feedback",
    "consent": "/v1/oauth",
    "invoke": "/v1/agents/{agent}/invocations",
}

_TRACEPARENT = re.compile(rb"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})\Z")
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16


class TraceIds(NamedTuple):
    """Where a request stands in its trace."""

    trace_id: str
    span_id: str
    sampled: bool = True

    @property
    def traceparent(self) -> str:
        """The W3C header naming this span."""
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}"


def parse_traceparent(value: bytes | None) -> TraceIds | None:
    """The caller's place in its trace; None for none or a malformed one, which is ignored as the standard asks."""
    found = _TRACEPARENT.match(value) if value else None
    if found is None:
        return None
    trace_id, span_id = found[1].decode(), found[2].decode()
    if trace_id == _NO_TRACE or span_id == _NO_SPAN:
        return None
    return TraceIds(trace_id, span_id, bool(int(found[3], 16) & 1))


def new_ids(trace_id: str | None = None) -> TraceIds:
    """A new span id, in the given trace or a new one."""
    made = f"{random.getrandbits(192):048x}"  # no secret, and a look at the kernel's randomness costs as much as a whole event
    return TraceIds(trace_id or made[:32], made[32:])


@dataclass(slots=True)
class RequestTrace:
    """The root of one request. `span` None: nothing is exported, only ids are made."""

    ids: TraceIds
    span: trace.Span | None = None

    def end(self, name: str, status: int, attributes: dict[str, Any]) -> None:
        """Names and closes the span; what it was is known only now."""
        if self.span is None:
            return
        self.span.update_name(name)
        self.span.set_attributes({**attributes, STATUS: status})
        if status >= 500:
            self.span.set_status(Status(StatusCode.ERROR))
        self.span.end()


@dataclass(slots=True)
class AttemptTrace:
    """The span of one attempt; `traceparent` goes down to the agent, so that its spans hang below this one."""

    traceparent: str
    span: trace.Span | None = None

    def end(self, *, error: str | None = None, attributes: dict[str, Any] | None = None) -> None:
        """Closes the span; `error` is the kind of fault, no text of the agent's."""
        if self.span is None:
            return
        if attributes:
            self.span.set_attributes(attributes)
        if error is not None:
            self.span.set_attribute(ERROR_TYPE, error)
            self.span.set_status(Status(StatusCode.ERROR))
        self.span.end()


@dataclass(frozen=True)
class CallShape:
    """How a call past the boundary is shown; `remote`: somebody else's server did it, as the conventions see it."""

    name: str
    remote: bool
    attributes: dict[str, Any]


class Telemetry:
    """The tracer of one gateway. Without an exporter every method still gives ids, and costs next to nothing."""

    def __init__(self, exporter: SpanExporter | None, *, queue: int, gateway_id: str, version: str) -> None:
        self._processor: BoundedProcessor | None = None
        self._tracer: trace.Tracer | None = None
        if exporter is not None:
            resource = Resource(
                {"service.name": SERVICE, "service.instance.id": gateway_id, "service.version": version}
            )
            provider = TracerProvider(resource=resource, shutdown_on_exit=False)
            self._processor = BoundedProcessor(exporter, queue)
            provider.add_span_processor(self._processor)
            self._tracer = provider.get_tracer(SERVICE, version)

    @property
    def dropped(self) -> int:
        """Spans that were lost to a full queue or a failed export."""
        return self._processor.dropped if self._processor else 0

    def request(self, traceparent: bytes | None, method: str) -> RequestTrace:
        """The root SERVER span of a request, in the caller's trace if it named one."""
        parent = parse_traceparent(traceparent)
        if self._tracer is None:
            return RequestTrace(new_ids(parent.trace_id if parent else None))
        span = self._tracer.start_span(
            method, context=_context(parent), kind=SpanKind.SERVER, attributes={METHOD: method}
        )
        return RequestTrace(_ids(span), span)

    def invoke_agent(
        self, traceparent: str | None, *, trace_id: str, agent: str, attributes: dict[str, Any]
    ) -> AttemptTrace:
        """The CLIENT span of an attempt, below the request that began the turn, whichever gateway runs it now.

        `traceparent` is the stored one of the turn; without it the stored `trace_id` alone is continued.
        """
        parent = parse_traceparent(traceparent.encode()) if traceparent else None
        if parent is None:
            parent = new_ids(trace_id)
        if self._tracer is None:
            return AttemptTrace(new_ids(parent.trace_id).traceparent)
        span = self._tracer.start_span(
            f"{INVOKE_AGENT} {agent}",
            context=_context(parent),
            kind=SpanKind.CLIENT,
            attributes={OPERATION: INVOKE_AGENT, PROVIDER: "moorage", AGENT_NAME: agent, **attributes},
        )
        return AttemptTrace(_ids(span).traceparent, span)

    def call(self, traceparent: str, shape: CallShape, *, began: int, ended: int, error: str | None) -> None:
        """The span of a call that has ended, below `traceparent`; none without one. Times in ns of the epoch."""
        parent = parse_traceparent(traceparent.encode("latin-1", "replace")) if self._tracer is not None else None
        if self._tracer is None or parent is None:
            return
        span = self._tracer.start_span(
            shape.name,
            context=_context(parent),
            kind=SpanKind.CLIENT if shape.remote else SpanKind.INTERNAL,
            attributes=shape.attributes,
            start_time=began,
        )
        if error is not None:
            span.set_attribute(ERROR_TYPE, error)
            span.set_status(Status(StatusCode.ERROR))
        span.end(end_time=ended)

    def close(self) -> None:
        """Sends what is queued, for a few seconds at most. Blocks: call it from a thread."""
        if self._processor is not None:
            self._processor.shutdown()


def otlp_exporter(endpoint: str) -> SpanExporter:
    """The OTLP/HTTP exporter for a base URL. Imported here: it costs time and memory that most starts do not need."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter(endpoint=f"{endpoint}/v1/traces", timeout=5)


@dataclass
class BoundedProcessor(SpanProcessor):
    """Hands ended spans to the exporter in a thread of its own; a full queue drops the newest and counts it."""

    exporter: SpanExporter
    limit: int
    dropped: int = 0
    _queue: deque[ReadableSpan] = field(default_factory=deque)
    _wake: threading.Event = field(default_factory=threading.Event)
    _closing: bool = False

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._run, name="spans", daemon=True)
        self._thread.start()

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Nothing is done at a span's start."""

    def on_end(self, span: ReadableSpan) -> None:
        """Queues a span that is sampled."""
        if self._closing or not span.context or not span.context.trace_flags.sampled:
            return
        if len(self._queue) >= self.limit:
            self.dropped += 1
            return
        self._queue.append(span)
        if len(self._queue) >= BATCH:
            self._wake.set()

    def shutdown(self) -> None:
        """Stops taking spans and waits a few seconds for the thread to send the rest."""
        self._closing = True
        self._wake.set()
        self._thread.join(SHUTDOWN_SECONDS)
        self.dropped += len(self._queue)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Asks the thread to send now; does not wait."""
        self._wake.set()
        return True

    def _run(self) -> None:
        while not self._closing:
            self._wake.wait(EXPORT_SECONDS)
            self._wake.clear()
            self._send()
        self._send()
        self.exporter.shutdown()

    def _send(self) -> None:
        while self._queue:
            batch = [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]
            try:
                sent = self.exporter.export(batch).name == "SUCCESS"
            except Exception:  # the outermost frame of the thread: foreign code must not end it
                sent = False
            if not sent:
                self.dropped += len(batch)


def _context(parent: TraceIds | None) -> Context:
    if parent is None:
        return Context()
    flags = TraceFlags(TraceFlags.SAMPLED if parent.sampled else TraceFlags.DEFAULT)
    remote = SpanContext(int(parent.trace_id, 16), int(parent.span_id, 16), is_remote=True, trace_flags=flags)
    return trace.set_span_in_context(NonRecordingSpan(remote), Context())


def _ids(span: trace.Span) -> TraceIds:
    found = span.get_span_context()
    return TraceIds(f"{found.trace_id:032x}", f"{found.span_id:016x}", found.trace_flags.sampled)
