"""Traces: ids without an exporter, one trace over attempts with one, and a collector that fails costs only spans."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind

from moorage_gateway import telemetry
from moorage_gateway.telemetry import Telemetry

pytestmark = pytest.mark.unit

TRACE, SPAN = "a" * 32, "b" * 16
PARENT = f"00-{TRACE}-{SPAN}-01"


class Collector(SpanExporter):
    """Keeps spans; `gate` holds it up, `broken` makes it fail."""

    def __init__(self, *, broken: bool = False) -> None:
        self.spans: list[ReadableSpan] = []
        self.broken = broken
        self.gate = threading.Event()
        self.gate.set()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.gate.wait(10)
        if self.broken:
            raise OSError("no route")
        self.spans += spans
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        pass


def make(collector: Collector | None, queue: int = 64) -> Telemetry:
    return Telemetry(collector, queue=queue, gateway_id="gw-1", version="0")


@pytest.mark.parametrize(
    ("value", "trace_id"),
    [
        (PARENT.encode(), TRACE),
        (None, None),
        (b"", None),
        (f"00-{'0' * 32}-{SPAN}-01".encode(), None),
        (f"00-{TRACE}-{'0' * 16}-01".encode(), None),
        (f"01-{TRACE}-{SPAN}-01".encode(), None),
        (f"00-{TRACE.upper()}-{SPAN}-01".encode(), None),
        (PARENT.encode() + b"\n", None),
    ],
)
def test_a_traceparent_is_read_or_ignored(value: bytes | None, trace_id: str | None) -> None:
    found = telemetry.parse_traceparent(value)
    assert (found.trace_id if found else None) == trace_id


def test_without_an_exporter_a_request_still_has_ids_in_the_callers_trace() -> None:
    traces = make(None)
    mine, other = traces.request(PARENT.encode(), "POST"), traces.request(None, "POST")
    assert mine.ids.trace_id == TRACE and mine.ids.span_id != SPAN
    assert other.ids.trace_id != TRACE
    attempt = traces.invoke_agent(mine.ids.traceparent, trace_id=TRACE, agent="hello", attributes={})
    assert attempt.traceparent.startswith(f"00-{TRACE}-")
    attempt.end()
    mine.end("x", 200, {})


def test_attempts_of_two_gateways_hang_below_the_request_in_one_trace() -> None:
    collector = Collector()
    first, second = make(collector), make(collector)
    root = first.request(PARENT.encode(), "POST")
    stored = root.ids.traceparent
    for number, gateway in enumerate((first, second), start=1):
        attempt = gateway.invoke_agent(stored, trace_id=TRACE, agent="hello", attributes={telemetry.ATTEMPT: number})
        attempt.end(error="exit" if number == 1 else None)
    root.end("POST create", 200, {})
    for gateway in (first, second):
        gateway.close()
    by_name: Callable[[str], list[ReadableSpan]] = lambda name: [span for span in collector.spans if span.name == name]  # noqa: E731
    (server,), attempts = by_name("POST create"), by_name("invoke_agent hello")
    assert server.kind is SpanKind.SERVER
    assert {f"{span.context.trace_id:032x}" for span in collector.spans if span.context} == {TRACE}
    assert [span.kind for span in attempts] == [SpanKind.CLIENT] * 2
    assert server.context is not None
    assert {span.parent.span_id for span in attempts if span.parent} == {server.context.span_id}
    assert [(span.attributes or {}).get("error.type") for span in attempts] == ["exit", None]


def test_a_full_queue_drops_spans_and_counts_them() -> None:
    collector = Collector()
    collector.gate.clear()
    traces = make(collector, queue=64)
    for _ in range(1000):
        traces.request(None, "GET").end("GET x", 200, {})
    assert traces.dropped >= 1000 - 64 - telemetry.BATCH - 64
    collector.gate.set()
    traces.close()


def test_a_failing_collector_costs_spans_and_nothing_else() -> None:
    traces = make(Collector(broken=True))
    for _ in range(10):
        traces.request(None, "GET").end("GET x", 200, {})
    traces.close()
    assert traces.dropped == 10


def test_spans_that_the_caller_did_not_sample_are_not_exported() -> None:
    collector = Collector()
    traces = make(collector)
    traces.request(f"00-{TRACE}-{SPAN}-00".encode(), "GET").end("GET x", 200, {})
    traces.close()
    assert collector.spans == []
