"""The suite's policy: warnings are errors (pyproject), seeds are printed and accepted back, fixtures are shared."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from fakes.valkey import ledger, redis_client, valkey, valkey_server

__all__ = ["ledger", "redis_client", "valkey", "valkey_server"]


# The suite of every provider is imported by a test module a provider.
pytest.register_assert_rewrite("component.provider.conformance")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Seeds and sizes of the seeded groups, so that a failing one replays alone."""
    parser.addoption("--sim-seed", type=int, default=1, help="first seed of the simulation")
    parser.addoption("--sim-schedules", type=int, default=0, help="schedules per fault set (0: the group's own number)")
    parser.addoption("--platform", default="", help="a file that tells of a running platform, for the journeys")
    parser.addoption("--crash-seed", type=int, default=0, help="seed of the crash group (0: one by the day's date)")
    parser.addoption("--sweep-from", type=int, default=0, help="number of the first point of each kind of the sweep")
    parser.addoption("--sweep-count", type=int, default=0, help="points of each kind (0: all that are left)")


@pytest.fixture(scope="session", autouse=True)
def loop_to_return_to() -> Iterator[None]:
    """pytest-asyncio puts the current loop back after each test and makes one, never closed, where there is none."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    asyncio.set_event_loop(None)
    loop.close()
