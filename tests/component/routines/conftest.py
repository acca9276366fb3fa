"""Schedulers over a real Valkey of their own, whose scripts run by a clock the test sets; turns are played."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fakes.valkey import Valkey


@pytest.fixture
def server() -> Iterator[Valkey]:
    """One that a test may kill and start again."""
    made = Valkey()
    yield made
    made.stop()
