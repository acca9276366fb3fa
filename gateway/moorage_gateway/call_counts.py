"""Counters of calls past the boundary, by tenant, endpoint and model. Layer: gateway, rim; `core.py` makes one.

Labels are bounded: tenants and endpoints are those of manifests; models are names of the agents' choosing, so of each endpoint the first
`MODELS` have a series of their own, and the rest are `other`. Replays are no calls: they cost nothing (`moorage_calls_replayed`).
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from moorage_gateway.journal.seeing import Ended

MODELS = 50
SERIES = 5_000
"""Endpoints with models, in all; those past it are counted together."""
OTHER = "other"
TOKENS = ("input_tokens", "output_tokens", "cached_tokens")
WORDS = ("ok", "refused", "failed", "broken", "over_limit")


class CallCounts(Collector):
    """Counts calls of models. `broken`: no whole answer came; `over_limit`: refused by the endpoint's own bounds; the rest by status."""

    def __init__(self) -> None:
        self._models: dict[tuple[str, str], set[str]] = {}
        self._calls: dict[tuple[str, str, str, str], int] = {}
        self._tokens: dict[tuple[str, str, str, str], int] = {}
        self._series = 0

    def ended(self, call: Ended) -> None:
        """See Observer."""
        what = call.what
        if what.get("kind") != "model" or call.replayed:
            return
        series = self._labels(call.binding.tenant, what.get("endpoint", ""), what.get("model", ""))
        self._add(self._calls, (*series, _word(call)), 1)
        for name in TOKENS:
            count = what.get(name, "")
            if count.isdecimal():
                self._add(self._tokens, (*series, name.removesuffix("_tokens")), int(count))

    def collect(self) -> Iterator[Metric]:
        """The samples, for the registry."""
        calls = CounterMetricFamily(
            "moorage_model_calls",
            "Calls of models that were made, by outcome.",
            labels=("tenant", "endpoint", "model", "outcome"),
        )
        for labels, count in self._calls.items():
            calls.add_metric(labels, count)
        yield calls
        tokens = CounterMetricFamily(
            "moorage_model_tokens",
            "Tokens that answers told of; `cached` are part of `input`.",
            labels=("tenant", "endpoint", "model", "kind"),
        )
        for labels, count in self._tokens.items():
            tokens.add_metric(labels, count)
        yield tokens

    def _labels(self, tenant: str, endpoint: str, model: str) -> tuple[str, str, str]:
        known = (
            self._models.setdefault((tenant, endpoint), set())
            if self._series < SERIES
            else self._models.get((tenant, endpoint))
        )
        if known is None:
            return OTHER, OTHER, OTHER
        if model not in known:
            if len(known) >= MODELS or self._series >= SERIES:
                return tenant, endpoint, OTHER
            known.add(model)
            self._series += 1
        return tenant, endpoint, model

    def _add(self, into: dict[tuple[str, str, str, str], int], labels: tuple[str, str, str, str], count: int) -> None:
        into[labels] = into.get(labels, 0) + count


def _word(call: Ended) -> str:
    if call.fault in ("shut", "rate", "spent"):
        return "over_limit"
    if call.fault or not call.status:
        return "broken"
    return "ok" if call.status < 400 else "refused" if call.status < 500 else "failed"
