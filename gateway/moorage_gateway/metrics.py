"""Prometheus metrics: names, and one object that holds them in a registry of its own. Layer: gateway, rim.

`app.py` makes one per gateway; labels are closed sets (never an id or a name of a caller's choosing), so memory is bounded.
"""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from moorage_api.errors import Kind

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Metrics:
    """The gateway's own figures. Other parts register theirs in the same `registry`."""

    content_type = CONTENT_TYPE_LATEST.encode()

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self._requests = Counter(
            "moorage_requests",
            "Requests answered, by operation and status.",
            ("operation", "status"),
            registry=registry,
        )
        self._seconds = Histogram(
            "moorage_request_seconds",
            "Time to the end of the answer.",
            ("operation",),
            buckets=SECONDS,
            registry=registry,
        )
        self._refused = Counter(
            "moorage_refused", "Requests refused before any work, by kind.", ("kind",), registry=registry
        )
        self.in_flight = Gauge("moorage_requests_in_flight", "Requests being served.", registry=registry)
        self._by_answer: dict[tuple[str, int], Counter] = {}
        self._by_operation: dict[str, Histogram] = {}

    def answered(self, operation: str, status: int, seconds: float) -> None:
        """One request ended. `operation` must be of a closed set."""
        counter = self._by_answer.get((operation, status))
        if counter is None:
            counter = self._by_answer[operation, status] = self._requests.labels(operation, str(status))
            self._by_operation.setdefault(operation, self._seconds.labels(operation))
        counter.inc()
        self._by_operation[operation].observe(seconds)

    def refused(self, kind: Kind) -> None:
        """One request was refused at the door."""
        self._refused.labels(kind.value).inc()

    def watch(self, name: str, text: str, read: Callable[[], float]) -> None:
        """A figure read when it is asked for."""
        Gauge(name, text, registry=self.registry).set_function(read)

    def render(self) -> bytes:
        """The text of /metrics."""
        return generate_latest(self.registry)
