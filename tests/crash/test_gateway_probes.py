"""Four hundred calls of the stock client, with its own two repeats, while one of two gateways behind a balancer ends: none fails."""

from __future__ import annotations

import itertools
import signal
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from crash.balancer import balanced
from fakes.platform import Platform, poll

pytestmark = [pytest.mark.crash, pytest.mark.timeout(300)]

PROBES = 400
CALLERS = 4
AGENT, ASKED, SAID = "paced", "2 words every 1 ms", "w0 w1 "


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_of_four_hundred_calls_none_fails_while_a_gateway_ends(struck: Platform, how: signal.Signals) -> None:
    first, second = struck.start_gateway(), struck.start_gateway()
    numbers, answered, failed = itertools.count(), itertools.count(), list[str]()
    reached = threading.Event()

    def call(url: str) -> None:
        """Calls in a session of its own until there were enough, each over a connection of its own, as new callers come."""
        asked: dict[str, Any] = {
            "model": AGENT, "input": ASKED, "extra_body": {"agent_session_id": f"probe-{uuid.uuid4().hex}"},
            "extra_headers": {"Connection": "close"},
        }  # fmt: skip
        with struck.client(AGENT, url=url, timeout=60, max_retries=2) as client:
            while next(numbers) < PROBES:
                try:
                    answer = client.responses.create(**asked)
                    assert answer.output_text == SAID, answer
                except Exception as fault:  # whatever a caller got counts
                    failed.append(f"{type(fault).__name__}: {fault}")
                if next(answered) == PROBES // 4:
                    reached.set()

    with balanced([first.url, second.url]) as balancer, ThreadPoolExecutor(CALLERS) as pool:
        running = [pool.submit(call, balancer.url) for _ in range(CALLERS)]
        poll("calls are answered", reached.is_set, within=120)
        first.process.send_signal(how)
        assert not all(one.done() for one in running), "it was to end under them"
        fresh = struck.start_gateway()
        balancer.replace(first.url, fresh.url)
        for one in running:
            one.result(timeout=200)
        assert first.process.wait(timeout=60) == (0 if how is signal.SIGTERM else -how)
    assert failed == []
    assert next(answered) == PROBES
    for gateway in (second, fresh):
        gateway.end()
