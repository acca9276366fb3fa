"""A collector: takes OTLP/HTTP traces on loopback and keeps every span it was sent, decoded."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True)
class SpanSeen:
    """One span as it was exported; ids in hex, `kind` 2 is server, 3 client."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    kind: int
    attributes: dict[str, Any]
    failed: bool
    began: int
    """Nanoseconds since 1970, as `ended`."""
    ended: int
    raw: bytes
    """The whole span as sent, to look for what must not be there."""


class Collector:
    """The spans of every export so far. `down` makes it refuse exports."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spans: list[SpanSeen] = []
        self.refused = 0
        self.down = False
        self.url = ""

    def trace(self, trace_id: str) -> list[SpanSeen]:
        """The spans of one trace, in order of arrival."""
        with self._lock:
            return [span for span in self._spans if span.trace_id == trace_id]

    def all(self) -> list[SpanSeen]:
        """Every span, in order of arrival."""
        with self._lock:
            return list(self._spans)

    def take(self, body: bytes) -> None:
        """One export."""
        request = ExportTraceServiceRequest()
        request.ParseFromString(body)
        found = [
            _seen(span) for resource in request.resource_spans for scope in resource.scope_spans for span in scope.spans
        ]
        with self._lock:
            self._spans += found


@contextmanager
def collecting(port: int = 0) -> Iterator[Collector]:
    """A collector that listens for as long as the context lasts."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            if collector.down:
                collector.refused += 1
                self.send_response(503)
            else:
                assert self.path == "/v1/traces", self.path
                collector.take(body)
                self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: the tests read spans, not lines."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    collector.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield collector
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _seen(span: Any) -> SpanSeen:
    return SpanSeen(
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        name=span.name,
        kind=span.kind,
        attributes={one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes},
        failed=span.status.code == 2,
        began=span.start_time_unix_nano,
        ended=span.end_time_unix_nano,
        raw=span.SerializeToString(),
    )
