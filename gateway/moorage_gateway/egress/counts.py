"""What the proxy counts, for Prometheus and for the audit log. Layer: gateway, rim."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from moorage_gateway.egress.budgets import Way

Why = Literal[
    "malformed", "not_proven", "not_listed", "address", "name", "budget", "unresolved", "unreachable", "capacity"
]
"""`name`: what the client said first means another server than the tunnel; `address`: it resolves to what may not be reached."""

ANSWERED: frozenset[Why] = frozenset({"unresolved", "unreachable", "capacity"})
"""No decision against the caller: not recorded in the audit log."""


class EgressCounts(Collector):
    """Plain integers, turned into samples when asked for."""

    def __init__(self) -> None:
        self.passed = 0
        self.bytes: dict[Way, int] = {"sent": 0, "received": 0}
        self.refused: dict[Why, int] = {}

    def refuse(self, why: Why) -> None:
        """One request that was refused, or a tunnel that was cut."""
        self.refused[why] = self.refused.get(why, 0) + 1

    def collect(self) -> Iterator[Metric]:
        """The samples, for the registry."""
        yield CounterMetricFamily("moorage_egress_requests", "Requests that were connected.", self.passed)
        moved = CounterMetricFamily("moorage_egress_bytes", "Bytes that passed.", labels=("direction",))
        for way, count in self.bytes.items():
            moved.add_metric((way,), count)
        yield moved
        refused = CounterMetricFamily("moorage_egress_refused", "Requests refused and tunnels cut.", labels=("why",))
        for why, count in self.refused.items():
            refused.add_metric((why,), count)
        yield refused
