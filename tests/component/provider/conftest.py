"""Policy of these tests."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

pytest.register_assert_rewrite("component.provider.conformance")


@pytest.fixture(scope="session", autouse=True)
def _a_loop_to_return_to() -> Iterator[None]:
    """pytest-asyncio puts the current loop back after each test and makes one, never closed, where there is none."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    asyncio.set_event_loop(None)
    loop.close()
