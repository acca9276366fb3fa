"""The suite's policy: warnings are errors (pyproject), a leaked task fails its test, seeds are printed, fixtures shared."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from fakes.valkey import ledger, redis_client, valkey, valkey_server

__all__ = ["ledger", "redis_client", "valkey", "valkey_server"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Seeds and sizes of the seeded groups, so that a failing one replays alone."""
    parser.addoption("--sim-seed", type=int, default=1, help="first seed of the simulation")
    parser.addoption("--sim-schedules", type=int, default=0, help="schedules per fault set (0: the group's own number)")
    parser.addoption("--crash-seed", type=int, default=0, help="seed of the crash group (0: one by the day's date)")


@pytest.fixture(autouse=True)
def no_leaked_tasks(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that leaves a task behind fails: every task has an owner that awaits it."""
    yield
    try:
        loop = asyncio.get_event_loop_policy().get_event_loop()
    except RuntimeError:
        return
    if loop.is_closed() or loop.is_running():
        return
    left = [t for t in asyncio.all_tasks(loop) if not t.done()]
    assert not left, f"tasks left behind: {[t.get_name() for t in left]}"
