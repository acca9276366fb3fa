"""Prometheus metrics: names, and one object that holds them in a registry of its own. Layer: gateway, rim.

`app.py` makes one per gateway; labels are closed sets (never an id or a name of a caller's choosing), so memory is bounded.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from moorage_api.errors import Kind

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Metrics(Collector):
    """The gateway's own figures. Other parts register theirs in the same `registry`.

    Requests are counted in plain integers and turned into samples when asked for: the client library's own counters take a
    lock each, and there would be five of them on every request.
    """

    content_type = CONTENT_TYPE_LATEST.encode()

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.in_flight = 0
        self._answers: dict[tuple[str, int], int] = {}
        self._durations: dict[str, list[float]] = {}  # a count for each bucket, then the sum
        self._refusals: dict[str, int] = {}
        registry.register(self)

    def answered(self, operation: str, status: int, seconds: float) -> None:
        """One request ended. `operation` must be of a closed set."""
        key = (operation, status)
        self._answers[key] = self._answers.get(key, 0) + 1
        durations = self._durations.get(operation)
        if durations is None:
            durations = self._durations[operation] = [0.0] * (len(SECONDS) + 2)
        durations[bisect_left(SECONDS, seconds)] += 1
        durations[-1] += seconds

    def refused(self, kind: Kind) -> None:
        """One request was refused at the door."""
        self._refusals[kind.value] = self._refusals.get(kind.value, 0) + 1

    def watch(self, name: str, text: str, read: Callable[[], float]) -> None:
        """A figure read when it is asked for."""
        Gauge(name, text, registry=self.registry).set_function(read)

    def collect(self) -> Iterator[Metric]:
        """The samples, for the registry."""
        requests = CounterMetricFamily(
            "moorage_requests", "Requests answered, by operation and status.", labels=("operation", "status")
        )
        for (operation, status), count in self._answers.items():
            requests.add_metric((operation, str(status)), count)
        yield requests
        seconds = HistogramMetricFamily(
            "moorage_request_seconds", "Time to the end of the answer.", labels=("operation",)
        )
        for operation, durations in self._durations.items():
            whole, buckets = 0.0, list[tuple[str, float]]()
            for bound, held in zip((*map(str, SECONDS), "+Inf"), durations, strict=False):
                whole += held
                buckets.append((bound, whole))
            seconds.add_metric((operation,), buckets, durations[-1])
        yield seconds
        refused = CounterMetricFamily("moorage_refused", "Requests refused before any work, by kind.", labels=("kind",))
        for kind, count in self._refusals.items():
            refused.add_metric((kind,), count)
        yield refused
        yield GaugeMetricFamily("moorage_requests_in_flight", "Requests being served.", self.in_flight)

    def render(self) -> bytes:
        """The text of /metrics."""
        return generate_latest(self.registry)
