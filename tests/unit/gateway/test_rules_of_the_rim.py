"""Small rules of the rim: events' types, relayed headers, refusals, budgets, metrics, the access log's bounds."""

from __future__ import annotations

import asyncio
import threading

import pytest
from prometheus_client import CollectorRegistry

from moorage_api.errors import ApiError, Kind
from moorage_gateway import access_log, feedback
from moorage_gateway.access_log import AccessLog
from moorage_gateway.metrics import Metrics
from moorage_gateway.middleware.limits import Budget
from moorage_gateway.routes import relaying, sse

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    "data",
    [
        b'{"type":"response.created","a":1}',
        b'{"a":{"type":"x"},"type":"response.created"}',
        b'{"type": "response.created"}',
    ],
)
def test_the_type_of_an_event_is_found_wherever_it_stands(data: bytes) -> None:
    assert sse.event_type(data) == b"response.created"


def test_headers_that_a_connection_lists_stay_on_their_hop() -> None:
    headers = [(b"connection", b"X-Hop, close"), (b"x-hop", b"1"), (b"x-end", b"2"), (b"transfer-encoding", b"chunked")]
    assert relaying.up(headers) == [(b"x-end", b"2")]


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"nonsense", b'{"error": 5}', b'{"error": "something"}', b'{"error": "draining", "more": 1}', b"\xff"],
)
def test_a_body_that_is_not_exactly_a_refusal_is_the_agents_own(body: bytes) -> None:
    assert relaying.read_refusal(body) is None


def test_a_refusal_shows_the_last_lines_bounded() -> None:
    refused = relaying.Refused("agent_exit", tuple(f"line {n} " + "x" * 1000 for n in range(50)))
    message = refused.error().message
    assert "line 49" in message and "line 41 " not in message
    assert len(message) < 4_000


def test_a_budget_refills_at_its_rate_up_to_its_burst() -> None:
    budget = Budget(2, 0.0)
    assert [budget.take(0.0, 1, 2) for _ in range(3)] == [0.0, 0.0, 1.0]
    assert budget.take(1.0, 1, 2) == 0.0
    assert [budget.take(100.0, 1, 2) for _ in range(3)] == [0.0, 0.0, 1.0]


def test_metrics_add_up() -> None:
    metrics = Metrics(CollectorRegistry())
    metrics.answered("create", 200, 0.004)
    metrics.answered("create", 200, 1000.0)
    metrics.refused(Kind.SLOW_REQUEST)
    text = metrics.render().decode()
    assert 'moorage_requests_total{operation="create",status="200"} 2.0' in text
    assert 'moorage_request_seconds_bucket{le="0.005",operation="create"} 1.0' in text
    assert 'moorage_request_seconds_bucket{le="+Inf",operation="create"} 2.0' in text
    assert 'moorage_refused_total{kind="request_timeout"} 1.0' in text


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"comment": "x"},
        {"rating": "great"},
        {"score": "5"},
        {"score": True},
        {"rating": "positive", "typo": 1},
        {"rating": "positive", "comment": "x" * 9000},
    ],
)
def test_feedback_that_says_nothing_or_something_else_is_refused(body: dict[str, object]) -> None:
    with pytest.raises(ApiError):
        feedback.parse(body)


def test_feedback_keeps_what_it_knows() -> None:
    body = {"rating": "positive", "score": 0.5, "comment": "good", "metadata": {"a": "b"}, "name": None}
    assert feedback.parse(body) == {name: value for name, value in body.items() if value is not None}


async def test_a_slow_sink_never_holds_up_the_loop_and_what_is_too_much_is_counted() -> None:
    gate, written = threading.Event(), list[bytes]()

    def write(lines: bytes) -> None:
        gate.wait(10)
        written.append(lines)

    log = AccessLog(write)
    line = b"x" * 65_535 + b"\n"
    for _ in range(200):
        log.add(line)
        await asyncio.sleep(0)
    assert log.dropped > 0
    assert (
        log.dropped * len(line)
        > 200 * len(line) - access_log.PENDING_BYTES - 2 * access_log.BATCH_BYTES - len(line) * 3
    )
    gate.set()
    await log.aclose()
    assert sum(map(len, written)) == (200 - log.dropped) * len(line)
